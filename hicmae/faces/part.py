"""One clip of a job: its face clip written, or why not, and a small file that says so."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hicmae.data.manifest import Clip
from hicmae.data.packed import Reject
from hicmae.data.shard_index import write_json
from hicmae.faces.cut import FaceCut, cut_face
from hicmae.faces.look import Region
from hicmae.faces.tracker import FaceNotFoundError, FaceTracker
from hicmae.media.clip import DecodeError


@dataclass(frozen=True, kw_only=True)
class FacePart:
    """What became of one clip: either a face clip, or a reject."""

    clip: str
    """Digest of the clip: its files, span and square."""
    cut: FaceCut | None = None
    rejected: Reject | None = None

    def write(self, file: Path) -> None:
        """As JSON, atomically."""
        cut, rejected = self.cut and self.cut.to_dict(), self.rejected and self.rejected.to_dict()
        write_json(file, {"clip": self.clip, "cut": cut, "rejected": rejected})

    @classmethod
    def read(cls, file: Path) -> FacePart | None:
        """The inverse of ``write``; None where there is no such file, or it is damaged."""
        try:
            values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            cut, rejected = values["cut"], values["rejected"]
            return cls(
                clip=values["clip"],
                cut=cut and FaceCut.from_dict(cut),
                rejected=rejected and Reject.from_dict(rejected),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None


@dataclass(frozen=True, kw_only=True)
class FaceTask:
    """What a process needs to know to do one clip."""

    clip: Clip
    out: Path
    """The face clip."""
    part: Path
    """File of the ``FacePart``."""
    tracker: FaceTracker
    size: int
    region: Region | None

    def finished(self) -> FacePart | None:
        """What an earlier run has made of this very clip; None where it is to be done."""
        part = FacePart.read(self.part)
        if part is None or part.clip != clip_digest(self.clip):
            return None
        if part.cut is None:
            return part if part.rejected else None
        return part if self.out.is_file() and self.out.stat().st_size == part.cut.bytes else None


def clip_digest(clip: Clip) -> str:
    """Changes with what is taken of which files."""
    files = [(str(path.absolute()), _stamp(path)) if path else None for path in (clip.video, clip.audio)]
    values = json.dumps([files, clip.start_s, clip.end_s, clip.square])
    return hashlib.sha256(values.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def make_face_clip(task: FaceTask) -> FacePart:
    """Track and write one clip, and its part file last. What cannot be used is a reject, not an error."""
    clip, digest = task.clip, clip_digest(task.clip)
    try:
        cut = cut_face(clip, task.out, tracker=task.tracker, size=task.size, region=task.region)
        part = FacePart(clip=digest, cut=cut)
    except (FaceNotFoundError, DecodeError) as error:
        task.out.unlink(missing_ok=True)  # of an earlier state of the clip
        part = FacePart(
            clip=digest, rejected=Reject(clip_id=clip.clip_id, reason=error.reason, detail=str(error))
        )  # fmt: skip
    except Exception as error:
        error.add_note(f"while looking for the face of clip {clip.clip_id!r} ({clip.video})")
        raise
    part.write(task.part)
    return part
