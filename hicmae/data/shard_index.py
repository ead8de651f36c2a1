"""The index of a shard folder: which clip lies where, and how the folder was made.

``index.json`` (schema 1) lies beside the tars. Its ``shards`` list name, bytes, SHA-256 and clips of each tar; a clip
lists its members as ``{extension: [offset, size]}``, so that readers fetch bytes without walking through the tar.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from hicmae.data.manifest import END_OF_FILE_S

SCHEMA = 1
INDEX_NAME = "index.json"
REJECTS_NAME = "rejects.csv"
FORMATS = ("original",)  # how media are stored: the bytes of the original files

VIDEO_EXTENSIONS = ("mp4", "m4v", "mov", "mkv", "webm", "avi", "flv")
AUDIO_EXTENSIONS = ("wav", "flac", "m4a", "mp3", "ogg", "oga", "opus")
# members that loaders elsewhere would unpickle, that is: execute
PICKLED_EXTENSIONS = ("pyd", "pickle", "pkl", "pth", "pt", "npy", "npz", "ten", "joblib")
MAX_MEMBER_BYTES = 2**31
_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")


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
    duration_s: float | None = None
    """Length of the clip in seconds, after its span is cut; None where nobody has measured it."""
    has_video: bool | None = None
    has_audio: bool | None = None

    @property
    def span_s(self) -> tuple[float, float] | None:
        """(start, end) in seconds of the file, ``END_OF_FILE_S`` when open; None when the clip is the whole file."""
        if self.start_s is None and self.end_s is None:
            return None
        return self.start_s or 0.0, END_OF_FILE_S if self.end_s is None else self.end_s

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
            "duration_s": self.duration_s,
            "has_video": self.has_video,
            "has_audio": self.has_audio,
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        rest = {name: value for name, value in values.items() if name not in ("id", "members")}
        members = {extension: (int(o), int(s)) for extension, (o, s) in values["members"].items()}
        return cls(clip_id=values["id"], members=members, **rest)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar file."""

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


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """What ``index.json`` holds."""

    shards: tuple[Shard, ...]
    rejected: tuple[Reject, ...] = ()
    format: str = "original"
    """How media are stored, one of ``FORMATS``."""
    made_by: dict[str, Any] = field(default_factory=dict)
    """Version, command and options."""

    def totals(self) -> dict[str, float]:
        """Counts, bytes and seconds over all shards."""
        clips = [clip for shard in self.shards for clip in shard.clips]
        return {
            "shards": len(self.shards),
            "samples": len(clips),
            "bytes": sum(shard.bytes for shard in self.shards),
            "seconds": round(sum(clip.duration_s or 0.0 for clip in clips), 3),
            "with_video": sum(bool(clip.has_video) for clip in clips),
            "with_audio": sum(bool(clip.has_audio) for clip in clips),
            "rejected": len(self.rejected),
        }

    def write(self, folder: Path) -> Path:
        """Write ``index.json`` and, when clips were rejected, ``rejects.csv``; both atomically."""
        rejected = [reject.to_dict() for reject in self.rejected]
        write_json(
            folder / INDEX_NAME,
            {
                "schema": SCHEMA,
                "format": self.format,
                "totals": self.totals(),
                "made_by": self.made_by,
                "rejected": rejected,
                "shards": [shard.to_dict() for shard in self.shards],
            },
        )
        rejects = folder / REJECTS_NAME
        rejects.unlink(missing_ok=True)
        if rejected:
            temporary = _temporary(rejects)
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, ["id", "reason", "detail"], lineterminator="\n")
                writer.writeheader()
                writer.writerows(rejected)
            temporary.replace(rejects)
        return folder / INDEX_NAME

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> tuple[Self, Path]:
        """The index of a folder (or the path of an ``index.json``), and the folder.

        Raises:
            FileNotFoundError: there is no index.
            ValueError: it is torn, of another schema or of an unknown format.
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
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: not a shard index ({error!r}); write it again") from error
        if schema != SCHEMA or values.get("format") not in FORMATS:
            raise ValueError(
                f"{file}: schema {schema!r} and format {values.get('format')!r} are not known to this version, which "
                f"reads schema {SCHEMA} and formats {', '.join(FORMATS)}; install a newer hicmae or write it again"
            )
        try:
            index = cls(
                shards=tuple(Shard.from_dict(shard) for shard in values["shards"]),
                rejected=tuple(Reject.from_dict(reject) for reject in values["rejected"]),
                format=values["format"],
                made_by=values["made_by"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: damaged shard index ({error!r}); write it again") from error
        return index, file.parent


def media_members(
    members: Mapping[str, tuple[int, int]],
) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """The places of the picture file and of the separate sound file among a clip's members."""
    video = next((members[extension] for extension in VIDEO_EXTENSIONS if extension in members), None)
    audio = next((members[extension] for extension in AUDIO_EXTENSIONS if extension in members), None)
    return video, audio


@dataclass(frozen=True, kw_only=True)
class TarMember:
    """A regular file within a tar: its place in bytes."""

    name: str
    offset: int
    size: int


def scan_tar(path: Path) -> tuple[list[TarMember], str | None]:
    """Members that lie wholly within a tar, and what is wrong with the rest of it (None: nothing).

    Reads headers alone. A tar cut in half gives the members before the cut.
    """
    members: list[TarMember] = []
    total = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                if not entry.isfile():
                    return members, f"member {entry.name!r} is not a regular file"
                if entry.offset_data + entry.size > total:
                    return members, f"cut off within member {entry.name!r} at byte {total}"
                members.append(TarMember(name=entry.name, offset=entry.offset_data, size=entry.size))
            end = tar.offset
    except tarfile.ReadError as error:
        return members, f"not a whole tar ({error})"
    with path.open("rb") as file:
        file.seek(end - tarfile.BLOCKSIZE if end >= total else end)
        # without its closing block of zeros a tar that ends between two members looks whole
        if total < end or file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            return members, f"cut off between members at byte {total}"
    return members, None


def split_member_name(name: str) -> tuple[str, str] | None:
    """(key, extension in lower case) as WebDataset splits names: at the first dot of the file name; else None."""
    match = _KEY_AND_EXTENSION.fullmatch(name)
    return (match.group(1), match.group(2).lower()) if match else None


def refusal(extension: str) -> str | None:
    """Why members of this kind have no place in a shard of clips; None when they have."""
    if extension in (*VIDEO_EXTENSIONS, *AUDIO_EXTENSIONS, "json"):
        return None
    if extension.rsplit(".", 1)[-1] in PICKLED_EXTENSIONS:
        return f"'.{extension}' members can run code when loaded"
    return f"'.{extension}' is not a kind of member that clips have"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
