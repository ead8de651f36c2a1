"""What is known of a clip once it lies in a tar, of a whole tar, and of a clip that was left out."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedClip:
    """One clip of a shard."""

    clip_id: str
    members: dict[str, tuple[int, int]]
    """(offset, size) in bytes within the tar, by extension."""
    subject: str = ""
    split: str = ""
    labels: dict[str, str | float] = field(default_factory=dict)
    start_s: float | None = None
    end_s: float | None = None
    square: tuple[int, int, int] | None = None
    """(top, left, side) in pixels of the displayed picture: what of a file stored as it was to take; None for what
    the whole folder takes."""
    duration_s: float | None = None
    """Length of the clip in seconds, after its span is cut; None where nobody has measured it."""
    has_video: bool | None = None
    has_audio: bool | None = None
    crc32: int | None = None
    """CRC-32 of the picture member's bytes followed by the separate sound member's; None where unknown."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is unknown or empty is left out."""
        values = {
            "id": self.clip_id,
            "members": {extension: list(place) for extension, place in self.members.items()},
            "subject": self.subject or None,
            "split": self.split or None,
            "labels": self.labels or None,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "square": list(self.square) if self.square else None,
            "duration_s": self.duration_s,
            "has_video": self.has_video,
            "has_audio": self.has_audio,
            "crc32": self.crc32,
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        rest = {name: value for name, value in values.items() if name not in ("id", "members", "square")}
        if values.get("square"):
            rest["square"] = tuple(values["square"])
        members = {extension: (int(o), int(s)) for extension, (o, s) in values["members"].items()}
        return cls(clip_id=values["id"], members=members, **rest)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar file with its clips, as its writer knows it."""

    name: str
    bytes: int
    sha256: str
    clips: tuple[PackedClip, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        samples = [clip.to_dict() for clip in self.clips]
        return {"name": self.name, "bytes": self.bytes, "sha256": self.sha256, "samples": samples}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        if Path(values["name"]).name != values["name"]:
            raise ValueError(f"shard name {values['name']!r} is not a plain file name")
        clips = tuple(PackedClip.from_dict(sample) for sample in values["samples"])
        return cls(name=values["name"], bytes=values["bytes"], sha256=values["sha256"], clips=clips)


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A clip that was not packed, or that an index leaves out."""

    clip_id: str
    reason: str
    """Short code for counting."""
    detail: str
    """A sentence with what was found."""

    def to_dict(self) -> dict[str, str]:
        """Plain values for JSON and CSV."""
        return {"id": self.clip_id, "reason": self.reason, "detail": self.detail}

    @classmethod
    def from_dict(cls, values: Mapping[str, str]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(clip_id=values["id"], reason=values["reason"], detail=values["detail"])


def write_rejects(path: Path, rejects: Sequence[Reject]) -> Path:
    """Write ``id, reason, detail`` of clips as CSV, atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # names in tars from elsewhere are any bytes
        with temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, ["id", "reason", "detail"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(reject.to_dict() for reject in rejects)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
