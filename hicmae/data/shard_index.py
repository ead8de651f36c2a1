"""The index of a shard folder: which clip lies where, and how the folder was made.

``index.json`` (schema 2) lies beside the tars and says what the folder is; ``clips.arrow`` has a row for each clip,
with the places of its members, so that readers fetch bytes without walking through a tar. Both are written atomically.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from hicmae.data.clip_table import ClipTable
from hicmae.data.packed import Reject, Shard, write_rejects
from hicmae.data.storage import StorageFormat
from hicmae.file_digest import sha256_of

SCHEMA = 2
INDEX_NAME = "index.json"
CLIPS_NAME = "clips.arrow"
REJECTS_NAME = "rejects.csv"


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """A tar as its index describes it."""

    name: str
    bytes: int
    sha256: str
    samples: int
    """Clips in it."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or Path(self.name).name != self.name:
            raise ValueError(f"shard name {self.name!r} is not a plain file name")
        if self.bytes < 0 or self.samples < 0:
            raise ValueError(f"shard {self.name}: {self.bytes} bytes and {self.samples} clips cannot be")


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """What ``index.json`` and ``clips.arrow`` hold."""

    shards: tuple[ShardFile, ...]
    clips: ClipTable
    """One row a clip, in the order of the shards."""
    rejected: tuple[Reject, ...] = ()
    storage: StorageFormat = field(default_factory=StorageFormat)
    quality: dict[str, Any] = field(default_factory=dict)
    """What re-encoding cost, measured on a sample of clips; empty for original files."""
    made_by: dict[str, Any] = field(default_factory=dict)
    """Version, command and options."""

    @classmethod
    def build(cls, shards: Sequence[Shard], **about: Any) -> Self:
        """The index of shards just written; ``about``: the other fields."""
        files = tuple(ShardFile(name=s.name, bytes=s.bytes, sha256=s.sha256, samples=len(s.clips)) for s in shards)
        return cls(shards=files, clips=ClipTable.build([shard.clips for shard in shards]), **about)

    def totals(self) -> dict[str, float]:
        """Counts, bytes and seconds over all shards."""
        return {
            "shards": len(self.shards),
            "samples": len(self.clips),
            "bytes": sum(shard.bytes for shard in self.shards),
            "seconds": round(sum(value or 0.0 for value in self.clips.values("duration_s")), 3),
            "with_video": sum(map(bool, self.clips.values("has_video"))),
            "with_audio": sum(map(bool, self.clips.values("has_audio"))),
            "rejected": len(self.rejected),
        }

    def write(self, folder: Path) -> Path:
        """Write ``clips.arrow``, ``index.json`` and, when clips were rejected, ``rejects.csv``; each atomically."""
        rejected = [reject.to_dict() for reject in self.rejected]
        temporary = _temporary(folder / CLIPS_NAME)
        try:
            self.clips.write(temporary)
            sha256 = sha256_of(temporary)
            temporary.replace(folder / CLIPS_NAME)
        finally:
            temporary.unlink(missing_ok=True)
        rejects = folder / REJECTS_NAME
        rejects.unlink(missing_ok=True)
        if rejected:
            write_rejects(rejects, self.rejected)
        write_json(
            folder / INDEX_NAME,
            {
                "schema": SCHEMA,
                "storage": self.storage.to_dict(),
                "quality": self.quality,
                "totals": self.totals(),
                "made_by": self.made_by,
                "rejected": rejected,
                "clips": {"file": CLIPS_NAME, "rows": len(self.clips), "sha256": sha256},
                "shards": [vars(shard) for shard in self.shards],
            },
        )
        return folder / INDEX_NAME

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> tuple[Self, Path]:
        """The index of a folder (or the path of an ``index.json``), and the folder.

        Raises:
            FileNotFoundError: there is no index, or its table of clips is missing.
            ValueError: it is torn, of another schema, or does not fit its table of clips.
        """
        path = Path(path)
        file = path if path.suffix == ".json" else path / INDEX_NAME
        if not file.is_file():
            raise FileNotFoundError(
                f"{file}: no such index; 'hicmae shards write' makes one, 'hicmae shards index' makes one for tars "
                "from elsewhere, and a folder written in parts gets it when the last part is done"
            )
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            schema = values["schema"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{file}: not a shard index ({error!r}); write it again") from error
        if schema != SCHEMA:
            raise ValueError(
                f"{file}: schema {schema!r} is not known to this version, which reads schema {SCHEMA}; install a "
                "newer hicmae, or remove the index and run 'hicmae shards index' for tars of original files"
            )
        try:
            return cls._from_json(values, file.parent), file.parent
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(f"{file}: damaged shard index ({error!r}); write it again") from error

    @classmethod
    def _from_json(cls, values: Mapping[str, Any], folder: Path) -> Self:
        shards = tuple(ShardFile(**shard) for shard in values["shards"])
        table = folder / CLIPS_NAME
        if not table.is_file():
            raise FileNotFoundError(f"{table}: missing, but the index beside it refers to it; copy the whole folder")
        if sha256_of(table) != values["clips"]["sha256"]:
            raise ValueError(f"{CLIPS_NAME} is not the file that was written with this index")
        clips = ClipTable.open(table)
        clips.check([shard.bytes for shard in shards])
        counts = np.bincount(clips.shard, minlength=len(shards)).tolist()
        for shard, found in zip(shards, counts, strict=True):
            if found != shard.samples:
                raise ValueError(f"{shard.name} has {shard.samples} clips, and {found} rows in {CLIPS_NAME}")
        return cls(
            shards=shards,
            clips=clips,
            rejected=tuple(Reject.from_dict(reject) for reject in values["rejected"]),
            storage=StorageFormat.from_dict(values["storage"]),
            quality=dict(values["quality"]),
            made_by=dict(values["made_by"]),
        )


def write_json(path: Path, values: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one."""
    temporary = _temporary(path)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(values, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
