"""Which long videos there are, where their labels lie, and whom they show: Aff-Wild2's folders, or a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from hicmae.data.splits import TEST, TRAIN, VAL

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v")
_PARTITIONS = {TRAIN: "Train_Set", VAL: "Validation_Set", TEST: "Test_Set"}
_RATE = re.compile(r"\d+-(\d+)-\d+x\d+")
_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class LongVideo:
    """One person in one video: a sequence to predict."""

    name: str
    """Unique, and fit to be a folder's name."""
    video: Path | None
    """The video; with ``faces`` its sound and its times only."""
    faces: Path | None = None
    """A folder of face pictures, ``00001.jpg`` being the first frame."""
    annotation: Path | None = None
    """A row of targets for every frame; ``None``: there are none."""
    subject: str
    """Who it is, or the recording that the person comes from: sequences of one subject stay together."""
    split: str = ""
    """train, val or test; empty: neither."""
    frame_rate: float | None = None
    """Frames a second of ``faces`` where there is no video."""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A sequence that cannot be used."""

    name: str
    reason: str
    """A short code: no_video, no_annotation, rows ..."""
    detail: str
    """What was found, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """The sequences of a corpus."""

    videos: tuple[LongVideo, ...]
    rejects: tuple[Reject, ...] = field(default=())


def read_affwild2(
    annotations: Path, videos: Sequence[Path], *, faces: Path | None = None, test_names: Path | None = None
) -> Sequences:
    """The valence-arousal part of Aff-Wild2 (Kollias and Zafeiriou), laid out as it is handed out.

    Each annotation is named as its video. Where a video shows two people, ``_left`` or ``_right`` is added, and only
    the folder of face pictures of that name can tell them apart.

    Args:
        annotations: the folder with ``Train_Set`` and ``Validation_Set`` (and ``Test_Set``, where somebody has it):
            text files with the header ``valence,arousal``.
        videos: folders with the videos (``batch1``, ``batch2``, ...).
        faces: the folder ``cropped_aligned``, with a folder of pictures for each annotation.
        test_names: a text file with the names of the test sequences, one a line; they have no annotation.

    Raises:
        FileNotFoundError, ValueError: a folder or a file is not there or is not this layout.
    """
    if not annotations.is_dir():
        raise FileNotFoundError(f"no folder of annotations {annotations}")
    files: list[tuple[str, str, Path | None]] = []
    for split, part in _PARTITIONS.items():
        files += [(path.stem, split, path) for path in sorted((annotations / part).glob("*.txt"))]
    if not files:
        there = ", ".join(sorted(path.name for path in annotations.iterdir())[:_SHOWN]) or "nothing"
        raise ValueError(
            f"{annotations} holds no Train_Set/*.txt or Validation_Set/*.txt, but {there}; give the folder of the "
            "valence-arousal challenge (VA_Set or VA_Estimation_Challenge) as data.annotations"
        )
    if test_names is not None:
        files += [(name, TEST, None) for name in test_names.read_text().split()]
    found = _index_videos(videos)
    sequences, rejects = [], []
    for name, split, annotation in files:
        plain = re.sub(r"_(left|right)$", "", name)
        video, folder = found.get(plain), faces / name if faces is not None else None
        if folder is not None and not folder.is_dir():
            rejects.append(Reject(name=name, reason="no_faces", detail=f"no folder {folder}; unpack it, or leave "
                                  "data.faces empty to use the pictures of the videos"))  # fmt: skip
        elif folder is None and video is None:
            where = ", ".join(map(str, videos)) or "data.videos, which is empty"
            rejects.append(Reject(name=name, reason="no_video", detail=f"no {plain}.mp4 (or avi ...) in {where}"))
        elif folder is None and plain != name:
            rejects.append(Reject(name=name, reason="two_people", detail=f"{video} shows two people, and only faces "
                                  "tell them apart; give the folder cropped_aligned as data.faces"))  # fmt: skip
        else:
            rate = _RATE.match(plain)
            sequences.append(
                LongVideo(
                    name=name,
                    video=video,
                    faces=folder,
                    annotation=annotation,
                    subject=recording(name),
                    split=split,
                    frame_rate=float(rate[1]) if rate else None,
                )
            )
    return _checked(sequences, rejects, str(annotations))


def recording(name: str) -> str:
    """The recording that a sequence of Aff-Wild2 comes from: its name without the person and the number of the part.

    The corpus does not name its subjects. Two people of a video and the parts of a long one share room, voice and
    conversation, so they must not be divided.

    >>> recording("5-60-1920x1080-2"), recording("10-60-1280x720_right"), recording("video10_1")
    ('5-60-1920x1080', '10-60-1280x720', 'video10')
    """
    match = re.match(r"(\d+-\d+-\d+x\d+|video\d+)", name)
    return match[1] if match else re.sub(r"_(left|right)$", "", name)


def read_table(path: Path) -> Sequences:
    """Sequences from a table (csv): a row each, with paths relative to the table.

    Columns: ``video`` or ``faces`` or both, ``subject``; and ``annotation``, ``split`` (train, val or test), ``name``
    (default: that of the annotation, else of the video), ``frame_rate`` (of ``faces`` without a video). Two rows may
    share a video, for two people or two annotations: then they need names.

    Raises:
        FileNotFoundError, ValueError: the table cannot be used; the row is named.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no table of sequences {path}")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    known = {"name", "video", "faces", "annotation", "subject", "split", "frame_rate"}
    if unknown := sorted(set(table.columns) - known):
        raise ValueError(f"{path} has unknown columns {unknown}; known: {', '.join(sorted(known))}")
    if "subject" not in table or not {"video", "faces"} & set(table.columns):
        raise ValueError(f"{path} has the columns {', '.join(table.columns)}; needed: subject, and video or faces")
    sequences, rejects = [], []
    for number, row in enumerate(table.to_dict("records")):
        where = f"{path}, row {number + 2}"
        files = {kind: path.parent / row[kind] if row.get(kind) else None for kind in ("video", "faces", "annotation")}
        named = files["annotation"] or files["video"] or files["faces"]
        if files["video"] is None and files["faces"] is None:
            raise ValueError(f"{where} has neither a video nor faces")
        assert named is not None
        name = row.get("name") or named.stem
        split = row.get("split", "")
        if split not in ("", TRAIN, VAL, TEST):
            raise ValueError(f"{where}: split {split!r}; expected train, val, test, or nothing")
        if not row["subject"]:
            raise ValueError(f"{where}: no subject; it keeps one person's sequences out of two parts")
        rate = row.get("frame_rate", "")
        missing = [f"no {kind} {file}" for kind, file in files.items() if file is not None and not file.exists()]
        if missing:
            kind = missing[0].split()[1]
            rejects.append(Reject(name=name, reason=f"no_{kind}", detail=f"{where}: {', '.join(missing)}"))
            continue
        if files["annotation"] is None and split in (TRAIN, VAL):
            rejects.append(Reject(name=name, reason="no_annotation", detail=f"{where}: split {split} needs labels"))
            continue
        sequences.append(
            LongVideo(name=name, subject=row["subject"], split=split, frame_rate=_rate(rate, where), **files)
        )
    return _checked(sequences, rejects, str(path))


def _rate(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1000:
        raise ValueError(f"{where}: frame_rate {text!r} is no number of frames a second")
    return rate


def _index_videos(folders: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder of videos {folder}")
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in VIDEO_SUFFIXES:
                if path.stem in found:
                    raise ValueError(f"two videos of the name {path.stem}: {found[path.stem]} and {path}; keep one")
                found[path.stem] = path
    return found


def _checked(sequences: list[LongVideo], rejects: list[Reject], source: str) -> Sequences:
    names: dict[str, LongVideo] = {}
    for one in sequences:
        if one.name in names:
            raise ValueError(f"{source} has two sequences of the name {one.name!r}; give each its own (column name)")
        if not re.fullmatch(r"[\w][\w.+ -]*", one.name):
            raise ValueError(f"{source}: the name {one.name!r} is no name for a file; use letters, digits, - and _")
        names[one.name] = one
    if not sequences:
        first = f"; the first: {rejects[0].name}: {rejects[0].detail}" if rejects else ""
        raise ValueError(f"{source} has no sequence that can be used ({len(rejects)} rejected{first})")
    return Sequences(videos=tuple(sequences), rejects=tuple(rejects))
