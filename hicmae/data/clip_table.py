"""The clips of a shard folder as columns: ``clips.arrow``, memory-mapped, so that a million clips burden no process.

One row a clip, in the order of the tars. All processes of a machine share the file's pages; a table that crosses to a
worker is only its path.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hicmae.data.manifest import END_OF_FILE_S, LABEL_PREFIX, NUMBER_LABELS
from hicmae.data.packed import PackedClip
from hicmae.data.tar_members import AUDIO_EXTENSIONS, MAX_MEMBER_BYTES, PICTURE_MEMBERS

_ROLES = ("video", "audio", "json")
_TEXT = pa.dictionary(pa.int32(), pa.string())
_SQUARE = pa.list_(pa.int32(), 3)
_COLUMNS = pa.schema(
    [("clip_id", pa.string()), ("shard", pa.int32())]
    + [(f"{role}_{what}", pa.int64()) for role in _ROLES for what in ("offset", "bytes")]
    + [("video_extension", _TEXT), ("audio_extension", _TEXT), ("crc32", pa.int64()), ("subject", _TEXT)]
    + [("split", _TEXT), ("start_s", pa.float64()), ("end_s", pa.float64()), ("duration_s", pa.float64())]
    + [("has_video", pa.bool_()), ("has_audio", pa.bool_())]
)
"""Offsets are -1 where there is no such member, ``crc32`` is -1 where it is unknown; other unknown values are null.
Labels follow as columns ``label:NAME``; where clips have squares of their own, ``square`` holds top, left and side."""


class ClipTable:
    """Columns of an index. ``ValueError`` for a file that is no such table."""

    def __init__(self, table: pa.Table, path: Path | None = None) -> None:
        self._table = table
        self._path = path
        wrong = [field.name for field in _COLUMNS if field.name not in table.column_names
                 or table.schema.field(field.name).type != field.type]  # fmt: skip
        if wrong:
            raise ValueError(f"columns {', '.join(wrong)} are missing or of another type")
        if "square" in table.column_names and table.schema.field("square").type != _SQUARE:
            raise ValueError("column square is of another type")
        self._column = {name: self._one_chunk(name) for name in table.column_names}
        self.label_names = tuple(
            name.removeprefix(LABEL_PREFIX) for name in table.column_names if name.startswith(LABEL_PREFIX)
        )
        self.shard: NDArray[np.int32] = self._numbers("shard")
        """int32 (N,): the shard of each clip, ascending."""
        self._places = {role: (self._numbers(f"{role}_offset"), self._numbers(f"{role}_bytes")) for role in _ROLES}

    @classmethod
    def build(cls, shards: Sequence[Sequence[PackedClip]]) -> Self:
        """The table of the clips of each shard, in order."""
        parts = [_part(number, clips) for number, clips in enumerate(shards) if clips]
        whole = pa.concat_tables(parts or [_part(0, [])], promote_options="permissive")
        return cls(whole.combine_chunks().unify_dictionaries())

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map a file that ``write`` made."""
        try:
            with pa.memory_map(str(path)) as file:
                return cls(pa.ipc.open_file(file).read_all(), path)
        except (pa.ArrowException, OSError) as error:  # a damaged file gives either
            raise ValueError(f"{path}: not a table of clips ({error})") from error
        except ValueError as error:
            raise ValueError(f"{path}: not a table of clips: {error}") from error

    def write(self, path: Path) -> None:
        """Write an Arrow file of one batch, so that readers need not copy."""
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, self._table.schema) as writer:
            writer.write_table(self._table, max_chunksize=max(1, len(self)))

    def check(self, shard_bytes: Sequence[int]) -> None:
        """``ValueError`` unless every value is in range for tars of these sizes; a damaged table must not be read."""
        try:
            self._table.validate(full=True)
        except pa.ArrowException as error:
            raise ValueError(f"damaged columns ({error})") from error
        required = ["clip_id", "shard", "crc32", *(f"{r}_{what}" for r in _ROLES for what in ("offset", "bytes"))]
        if empty := [name for name in required if self._column[name].null_count]:
            raise ValueError(f"columns {', '.join(empty)} have gaps")
        if len(self) and (
            self.shard.min() < 0 or self.shard.max() >= len(shard_bytes) or np.any(np.diff(self.shard) < 0)
        ):
            raise ValueError(
                f"clips lie in shards {self.shard.min()} to {self.shard.max()}, not in order, or there are not so many"
            )
        limits = np.asarray(shard_bytes, dtype=np.int64)[self.shard] if len(self) else np.zeros(0, np.int64)
        there = np.zeros(len(self), dtype=bool)
        for role, (offset, size) in self._places.items():
            given = offset != -1
            there |= given & (role != "json")
            bad = given & ((offset < 0) | (size < 1) | (size > MAX_MEMBER_BYTES) | (size > limits - offset))
            if bad.any():
                clip = int(np.flatnonzero(bad)[0])
                raise ValueError(
                    f"clip {self.clip_id(clip)!r}: its {role} would lie at bytes {offset[clip]} to "
                    f"{int(offset[clip]) + int(size[clip])} of a shard of {limits[clip]} bytes"
                )
        if not there.all():
            raise ValueError(f"clip {self.clip_id(int(np.flatnonzero(~there)[0]))!r} has neither picture nor sound")
        start, end = (pc.fill_null(self._column[name], value).to_numpy(zero_copy_only=False)
                      for name, value in (("start_s", 0.0), ("end_s", END_OF_FILE_S)))  # fmt: skip
        good = (start >= 0) & (start < end) & np.isfinite(end)
        if not good.all():
            clip = int(np.flatnonzero(~good)[0])
            raise ValueError(f"clip {self.clip_id(clip)!r}: a span from {start[clip]:g} to {end[clip]:g} s cannot be")
        if "square" in self._column:
            self._check_squares(self._column["square"])

    def _check_squares(self, column: pa.Array) -> None:
        squares = (
            pc.fill_null(column.flatten(), -1).to_numpy(zero_copy_only=False).reshape(-1, 3)
        )  # of those that are given
        bad = (squares.min(axis=1, initial=0) < 0) | (squares[:, 2] < 1)
        if bad.any():
            place = int(np.flatnonzero(bad)[0])
            clip = int(np.flatnonzero(column.is_valid())[place])
            raise ValueError(f"clip {self.clip_id(clip)!r}: a square of {squares[place].tolist()} cannot be")

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is None:
            return _from_table, (self._table,)
        return _reopen, (self._path, len(self), self._path.stat().st_size)

    def clip_id(self, row: int) -> str:
        return str(self._column["clip_id"][row].as_py())

    def place(self, row: int, role: str) -> tuple[int, int] | None:
        """(offset, bytes) of the clip's ``video``, ``audio`` or ``json`` member; None without one."""
        offset, size = self._places[role]
        return (int(offset[row]), int(size[row])) if offset[row] >= 0 else None

    def crc32(self, row: int) -> int | None:
        """CRC-32 of the picture member followed by the sound member; None where unknown."""
        value = int(self._column["crc32"][row].as_py())
        return value if value >= 0 else None

    def subject(self, row: int) -> str:
        return self._column["subject"][row].as_py() or ""

    def split(self, row: int) -> str:
        return self._column["split"][row].as_py() or ""

    def span_s(self, row: int) -> tuple[float, float] | None:
        """(start, end) in seconds of the file, ``END_OF_FILE_S`` when open; None when the clip is the whole file."""
        start, end = (self._column[name][row].as_py() for name in ("start_s", "end_s"))
        return None if start is None and end is None else (start or 0.0, END_OF_FILE_S if end is None else end)

    def square(self, row: int) -> tuple[int, int, int] | None:
        """(top, left, side) of a clip that has its own."""
        if "square" not in self._column or (value := self._column["square"][row].as_py()) is None:
            return None
        top, left, side = value
        return int(top), int(left), int(side)

    def labels(self, row: int) -> dict[str, str | float]:
        """Value by label; a clip without a value lacks the key."""
        values = ((name, self._column[LABEL_PREFIX + name][row].as_py()) for name in self.label_names)
        return {name: value for name, value in values if value is not None}

    def clip(self, row: int) -> PackedClip:
        """All that is known of a clip."""
        value = {name: self._column[name][row].as_py() for name in _COLUMNS.names}
        members = {value.get(f"{role}_extension", role): place for role in _ROLES if (place := self.place(row, role))}
        return PackedClip(
            clip_id=value["clip_id"], members=members, crc32=self.crc32(row), subject=value["subject"] or "",
            split=value["split"] or "", labels=self.labels(row), start_s=value["start_s"], end_s=value["end_s"],
            square=self.square(row), duration_s=value["duration_s"], has_video=value["has_video"],
            has_audio=value["has_audio"],
        )  # fmt: skip

    def clips(self) -> Iterator[PackedClip]:
        """All clips in order."""
        return (self.clip(row) for row in range(len(self)))

    def end(self) -> NDArray[np.int64]:
        """int64 (N,): the byte of its tar at which a clip's media end."""
        ends = [np.where(offset >= 0, offset + size, 0) for offset, size in
                (self._places["video"], self._places["audio"])]  # fmt: skip
        return np.maximum(*ends)

    def values(self, name: str) -> list[Any]:
        """A whole column as Python values; labels are ``label:NAME``."""
        return list(self._column[name].to_pylist())

    def repeated_ids(self) -> list[str]:
        """Ids that occur more than once."""
        counts = pc.value_counts(self._column["clip_id"])
        return list(counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist())

    def digest(self) -> str:
        """Changes with the clips' ids and their order."""
        digest = hashlib.blake2b(self.shard.tobytes(), digest_size=16)
        for start in range(0, len(self), 65_536):
            names = self._column["clip_id"].slice(start, 65_536).to_pylist()
            digest.update("\n".join(names).encode() + b"\n")
        return digest.hexdigest()

    def _one_chunk(self, name: str) -> pa.Array:
        column = self._table.column(name)
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

    def _numbers(self, name: str) -> NDArray[Any]:
        return np.asarray(self._column[name].to_numpy(zero_copy_only=False))


def _from_table(table: pa.Table) -> ClipTable:
    return ClipTable(table)


def _reopen(path: Path, rows: int, size: int) -> ClipTable:
    """Map the file that another process has mapped; ``ValueError`` when it was changed since."""
    if path.stat().st_size == size and len(table := ClipTable.open(path)) == rows:
        return table
    raise ValueError(f"{path} was changed while a job was reading it; start the job again")


def _part(shard: int, clips: Sequence[PackedClip]) -> pa.Table:
    """The rows of one shard."""
    rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS.names}
    for clip in clips:
        extension = {
            "video": next((e for e in PICTURE_MEMBERS if e in clip.members), None),
            "audio": next((e for e in AUDIO_EXTENSIONS if e in clip.members), None),
            "json": "json",
        }
        for role in _ROLES:
            offset, size = clip.members.get(extension[role] or "", (-1, 0))
            rows[f"{role}_offset"].append(offset)
            rows[f"{role}_bytes"].append(size)
        rows["video_extension"].append(extension["video"])
        rows["audio_extension"].append(extension["audio"])
        rows["shard"].append(shard)
        rows["crc32"].append(-1 if clip.crc32 is None else clip.crc32)
        rows["subject"].append(clip.subject or None)
        rows["split"].append(clip.split or None)
        for name in ("start_s", "end_s", "duration_s"):
            value = getattr(clip, name)
            rows[name].append(None if value is None or math.isnan(value) else value)
        for name in ("clip_id", "has_video", "has_audio"):
            rows[name].append(getattr(clip, name))
    arrays = {field.name: pa.array(rows[field.name], _plain(field.type)).cast(field.type) for field in _COLUMNS}
    if any(clip.square for clip in clips):
        arrays["square"] = pa.array([clip.square and list(clip.square) for clip in clips], _SQUARE)
    for name in sorted({name for clip in clips for name in clip.labels}):
        kind = pa.float64() if name in NUMBER_LABELS else _TEXT
        values = [clip.labels.get(name) for clip in clips]
        arrays[LABEL_PREFIX + name] = pa.array(values, _plain(kind)).cast(kind)
    return pa.table(arrays)


def _plain(kind: pa.DataType) -> pa.DataType:
    """What a dictionary holds; other types as they are."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind
