"""Manifests: one row a clip, as CSV or Parquet. Every corpus becomes one; users' own data need nothing else.

Columns: ``clip_id`` (required), ``video``, ``audio``, ``start_s``, ``end_s``, ``subject``, ``split``, perhaps
``square`` (``"top,left,side"`` in pixels of the displayed picture: what to take of it), then labels:
``emotion`` (text), ``valence``, ``arousal``, ``dominance`` (numbers) and any ``label:NAME`` (text).
"""

from __future__ import annotations

import csv
import functools
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

FIXED_COLUMNS = ("clip_id", "video", "audio", "start_s", "end_s", "subject", "split")
SQUARE_COLUMN = "square"
NUMBER_LABELS = ("valence", "arousal", "dominance")
TEXT_LABELS = ("emotion",)
LABEL_PREFIX = "label:"

END_OF_FILE_S = 1e9  # later than the end of any file
MAX_ID_LENGTH = 90  # a tar header holds 100 characters of name, of which the extension needs some
_SAFE_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_ID_LENGTH}}}", re.ASCII)
_SHOWN_PROBLEMS = 50


class ManifestError(ValueError):
    """What is wrong with a manifest, all at once: ``problems`` holds one line a finding, the message the first 50."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.path = path
        self.problems = list(problems)
        shown = self.problems[:_SHOWN_PROBLEMS]
        more = len(self.problems) - len(shown)
        lines = [f"{path}: {len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}", *shown]
        super().__init__("\n  ".join(lines + ([f"... and {more} more"] if more else [])))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.problems)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One clip of a manifest; at least one of ``video`` and ``audio`` is a file."""

    clip_id: str
    """Name of the clip: letters, digits, ``_`` and ``-``."""
    video: Path | None = None
    """Media file with pictures, and with sound unless ``audio`` names it."""
    audio: Path | None = None
    """Separate sound file; replaces the sound of ``video``."""
    start_s: float | None = None
    """Start of the clip within its file, in seconds; None is the start of the file."""
    end_s: float | None = None
    """End of the clip within its file, in seconds; None is the end of the file."""
    square: tuple[int, int, int] | None = None
    """(top, left, side) in pixels of the displayed picture: what to take of it; None for the central square."""
    subject: str = ""
    """Who is seen and heard; keeps speakers apart in validation."""
    split: str = ""
    """Part of the corpus: train, validation, test, fold3 ..."""
    labels: dict[str, str | float] = field(default_factory=dict)
    """Value by label column; a clip without a value lacks the key."""

    @property
    def span_s(self) -> tuple[float, float] | None:
        """(start, end) in seconds of the file, ``END_OF_FILE_S`` when open; None when the clip is the whole file."""
        if self.start_s is None and self.end_s is None:
            return None
        return self.start_s or 0.0, END_OF_FILE_S if self.end_s is None else self.end_s


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The clips of a manifest file, in its order."""

    path: Path
    clips: tuple[Clip, ...]
    label_columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.clips)


def id_problem(clip_id: str) -> str | None:
    """Why ``clip_id`` cannot name a clip, with a usable one; None when it can.

    Ids name members of tar files and rows of results, so they hold ASCII letters, digits, ``_`` and ``-`` alone: no
    path separators, and no dots, which WebDataset takes for the start of the extension.
    """
    if _SAFE_ID.fullmatch(clip_id):
        return None
    suggestion = re.sub(r"[^A-Za-z0-9_-]+", "_", clip_id, flags=re.ASCII).strip("_")[:MAX_ID_LENGTH]
    remedy = f", for instance {suggestion!r}" if suggestion else ""
    return (
        f"clip_id {clip_id[:200]!r} is not usable; use 1 to {MAX_ID_LENGTH} letters, digits, '_' or '-' "
        f"(no dots or slashes){remedy}"
    )


def read_manifest(
    path: str | os.PathLike[str],
    *,
    known_labels: Sequence[str] | None = None,
    frames_folders: bool = False,
    check_files: bool = True,
) -> Manifest:
    """Read a ``.csv`` or ``.parquet`` manifest and check every row and every media file it names.

    Args:
        path: the manifest. Media paths in it are absolute, or relative to its folder.
        known_labels: further columns to accept as text labels.
        frames_folders: let ``video`` be a folder too, of pictures; ``hicmae prepare`` makes a file of them.
        check_files: look at the media files; without, whoever reads them finds out what is missing.

    Raises:
        FileNotFoundError: there is no such manifest.
        ManifestError: (a ``ValueError``) all problems at once, each with row, value and remedy.
    """
    path = Path(path)
    header, rows = _read_table(path)
    labels, problems = _check_header(path, header, tuple(known_labels or ()))
    if problems:
        raise ManifestError(path, problems)

    clips: list[Clip] = []
    row_of: dict[str, int] = {}
    row_numbers: list[int] = []
    for number, cells in rows:
        if len(cells) != len(header):
            problems.append(
                f"row {number}: {len(cells)} values for {len(header)} columns; quote values that contain a comma"
            )
            continue
        clip, found = _parse_row(dict(zip(header, cells, strict=True)), labels, path.parent)
        if clip.clip_id and (first := row_of.setdefault(clip.clip_id, number)) != number:
            found.append(f"clip_id {clip.clip_id!r} is already used in row {first}; give each clip its own id")
        problems += [f"row {number}: {text}" for text in found]
        clips.append(clip)
        row_numbers.append(number)
    if not clips and not problems:
        problems.append("no rows; a manifest needs one row a clip")
    if check_files:
        problems += _check_files(clips, row_numbers, frames_folders)
    if problems:
        raise ManifestError(path, sorted(problems, key=_row_of_problem))
    return Manifest(path=path, clips=tuple(clips), label_columns=tuple(labels))


def select(manifest: Manifest, split: str) -> Manifest:
    """The clips of one split; a split without clips raises ``ValueError`` that lists those there are."""
    clips = tuple(clip for clip in manifest.clips if clip.split == split)
    if not clips:
        counts = Counter(clip.split for clip in manifest.clips)
        there = ", ".join(f"{name or '(empty)'} ({count})" for name, count in sorted(counts.items()))
        raise ValueError(f"{manifest.path}: no clip has split {split!r}; splits there are: {there}")
    return replace(manifest, clips=clips)


def write_manifest(path: str | os.PathLike[str], rows: Iterable[Clip | Mapping[str, Any]]) -> Path:
    """Write clips (or mappings with the manifest's column names) as ``.csv`` or ``.parquet``, atomically.

    Paths below the manifest's folder are written relative to it, so that the folder can be moved.
    """
    path = Path(path)
    root = path.parent.resolve()
    table = [_as_row(row, root) for row in rows]
    extra = {name for row in table for name in row} - {*FIXED_COLUMNS, SQUARE_COLUMN}
    square = [SQUARE_COLUMN] if any(SQUARE_COLUMN in row for row in table) else []
    columns = [*FIXED_COLUMNS, *square, *sorted(extra)]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if _kind(path) == "csv":
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
                writer.writeheader()
                writer.writerows(table)
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table({name: pa.array([row.get(name) for row in table]) for name in columns}), temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _kind(path: Path) -> str:
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("csv", "parquet"):
        raise ValueError(f"{path}: a manifest ends in .csv or .parquet")
    return kind


def _read_table(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Column names, and rows as text with the number a spreadsheet shows (the header is row 1)."""
    kind = _kind(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such manifest")
    return _read_csv(path) if kind == "csv" else _read_parquet(path)


def _read_csv(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    # utf-8-sig: spreadsheets put a byte order mark before the first column's name
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            lines = list(csv.reader(file, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a readable CSV file ({error}); save it as UTF-8 CSV") from error
    if not lines:
        raise ValueError(f"{path}: the file is empty; a manifest starts with the columns {', '.join(FIXED_COLUMNS)}")
    rows = ((number, [cell.strip() for cell in line]) for number, line in enumerate(lines[1:], start=2))
    return [name.strip() for name in lines[0]], ((number, cells) for number, cells in rows if any(cells))


def _read_parquet(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: not a readable Parquet file ({error}); write it anew") from error
    columns = [table.column(name).to_pylist() for name in table.column_names]
    rows = ((i + 2, [_as_text(column[i]) for column in columns]) for i in range(table.num_rows))
    return list(table.column_names), rows


def _as_text(value: Any) -> str:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else str(value).strip()


def _check_header(path: Path, header: list[str], known: tuple[str, ...]) -> tuple[list[str], list[str]]:
    problems = []
    allowed = (
        f"{', '.join((*FIXED_COLUMNS, SQUARE_COLUMN, *TEXT_LABELS, *NUMBER_LABELS, *known))} and {LABEL_PREFIX}NAME"
    )
    labels = []
    for name in header:
        if name in (*TEXT_LABELS, *NUMBER_LABELS, *known) or (name.startswith(LABEL_PREFIX) and name != LABEL_PREFIX):
            labels.append(name)
        elif name not in (*FIXED_COLUMNS, SQUARE_COLUMN):
            problems.append(
                f"unknown column {name!r}; allowed are {allowed}: "
                f"rename it to '{LABEL_PREFIX}{name}' when it is a label, or drop it"
            )
    problems += [f"column {name!r} occurs {n} times; keep one" for name, n in Counter(header).items() if n > 1]
    if "clip_id" not in header:
        problems.append("column 'clip_id' is missing; add one unique name a clip")
    if "video" not in header and "audio" not in header:
        problems.append("columns 'video' and 'audio' are both missing; add the one with the media files")
    if problems and len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        problems = [f"the columns are not separated by commas: {header[0]!r}; save {path.name} with commas"]
    return labels, problems


def _parse_row(values: dict[str, str], label_columns: list[str], root: Path) -> tuple[Clip, list[str]]:
    problems: list[str] = []
    clip_id = values["clip_id"]
    if problem := id_problem(clip_id):
        problems.append(problem)

    times: dict[str, float | None] = {}
    for name in ("start_s", "end_s"):
        text = values.get(name, "")
        times[name] = finite_number(text) if text else None
        if text and (times[name] is None or times[name] < 0):  # type: ignore[operator]
            problems.append(f"{name} {text!r} is not a time; use seconds from the start of the file, 0 or more")
            times[name] = None
    start, end = times["start_s"], times["end_s"]
    if end is not None and end <= (start or 0.0):
        problems.append(f"end_s {end:g} is not after start_s {start or 0.0:g}; check that both are in seconds")

    square = None
    if text := values.get(SQUARE_COLUMN, ""):
        square = _square(text)
        if square is None:
            problems.append(
                f"square {text!r} is not a square; write top,left,side in pixels of the displayed picture, for "
                "instance 0,32,160, or leave it empty for the central square"
            )

    labels: dict[str, str | float] = {}
    for name in label_columns:
        text = values[name]
        if not text:
            continue
        if name in NUMBER_LABELS:
            number = finite_number(text)
            if number is None:
                problems.append(f"{name} {text!r} is not a number; write a number, or leave it empty when unknown")
            else:
                labels[name] = number
        else:
            labels[name] = text

    video, audio = values.get("video", ""), values.get("audio", "")
    if not video and not audio:
        problems.append("video and audio are both empty; name at least one media file")
    clip = Clip(
        clip_id=clip_id,
        video=root / video if video else None,
        audio=root / audio if audio else None,
        start_s=start,
        end_s=end,
        square=square,
        subject=values.get("subject", ""),
        split=values.get("split", ""),
        labels=labels,
    )
    return clip, problems


def _square(text: str) -> tuple[int, int, int] | None:
    """(top, left, side), or None for what is no square."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() for part in parts):
        return None
    top, left, side = map(int, parts)
    return (top, left, side) if side else None


def finite_number(text: str) -> float | None:
    """The number that a cell of a table holds, or None where it holds no finite one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _check_files(clips: list[Clip], row_numbers: list[int], frames_folders: bool) -> list[str]:
    """One line for each media file that is missing, empty or not a file."""
    named = [
        (number, column, media)
        for number, clip in zip(row_numbers, clips, strict=True)
        for column, media in (("video", clip.video), ("audio", clip.audio))
        if media is not None
    ]
    unique = list({(media, frames_folders and column == "video") for _, column, media in named})
    # a million stats over a network file system take minutes one after another
    with ThreadPoolExecutor(max_workers=16) as pool:
        found = dict(zip(unique, pool.map(_file_problem, unique, chunksize=256), strict=True))
    problems = ((number, column, found[media, frames_folders and column == "video"]) for number, column, media in named)
    return [f"row {number}: {column} {problem}" for number, column, problem in problems if problem]


def _file_problem(media: tuple[Path, bool]) -> str | None:
    path, may_be_folder = media
    try:
        if not path.is_file():
            if path.is_dir():
                if may_be_folder:
                    return None
                return f"{str(path)!r} is a folder; name a file, or pack folders of pictures with 'hicmae prepare'"
            return f"{str(path)!r} does not exist; paths are relative to the manifest's folder"
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        return f"{str(path)!r} cannot be read ({error}); check the path and its permissions"
    return None if size else f"{str(path)!r} has zero length; copy or download it again, or drop the row"


def _row_of_problem(line: str) -> int:
    match = re.match(r"row (\d+):", line)
    return int(match.group(1)) if match else 0


def _as_row(row: Clip | Mapping[str, Any], root: Path) -> dict[str, Any]:
    if isinstance(row, Clip):
        fixed = {name: getattr(row, name) for name in FIXED_COLUMNS}
        # A clip's relative path is one of this process; in a row of text it is already the manifest's.
        fixed |= {name: media.absolute() for name in ("video", "audio") if (media := fixed[name]) is not None}
        square = {} if row.square is None else {SQUARE_COLUMN: ",".join(map(str, row.square))}
        row = fixed | square | row.labels
    values = {name: value for name, value in row.items() if value is not None}
    for name in ("video", "audio"):
        if values.get(name):
            media = Path(values[name])
            if media.is_absolute() and (folder := _resolved(media.parent)).is_relative_to(root):
                media = folder.relative_to(root) / media.name
            values[name] = str(media)
    return values


@functools.lru_cache(maxsize=1024)
def _resolved(folder: Path) -> Path:
    """A million files lie in fewer folders, and every look at one costs a question to the file system."""
    return folder.resolve()
