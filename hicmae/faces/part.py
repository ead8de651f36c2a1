"""One clip of a job: its face clip written, or why not, and a small file that says so."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av.error

from hicmae.data.manifest import Clip
from hicmae.data.packed import Reject
from hicmae.data.shard_index import write_json
from hicmae.faces.face_clip import write_face_clip
from hicmae.faces.look import Region
from hicmae.faces.tracker import FaceNotFoundError, FaceTrack, FaceTracker
from hicmae.media.clip import DecodeError
from hicmae.media.probe import nothing_there

SHOWN = 3
"""Frames of a clip on the sheet: the first, the middle one, the last."""


@dataclass(frozen=True, kw_only=True)
class FacePart:
    """What became of one clip."""

    clip: str
    """Digest of the clip: its files, span and square."""
    rejected: Reject | None = None
    bytes: int = 0
    """Of the face clip."""
    share: float = 0.0
    """``FaceTrack.share``"""
    contested: bool = False
    """``FaceTrack.contested``"""
    pieces: int = 0
    """Stretches between which the square jumps."""
    shown: tuple[tuple[float, ...], ...] = ()
    """(number of the frame in its file, top, left, side) of the frames on the sheet."""

    def write(self, file: Path) -> None:
        """As JSON, atomically."""
        rejected = self.rejected.to_dict() if self.rejected else None
        write_json(file, asdict(self) | {"rejected": rejected})

    @classmethod
    def read(cls, file: Path) -> FacePart | None:
        """The inverse of ``write``; None where there is no such file, or it is damaged."""
        try:
            values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            rejected, shown = values.pop("rejected"), values.pop("shown")
            return cls(
                rejected=Reject.from_dict(rejected) if rejected else None, shown=tuple(map(tuple, shown)), **values
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
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
        whole = self.out.stat().st_size == part.bytes if self.out.is_file() else False
        return part if part.rejected or whole else None


def clip_digest(clip: Clip) -> str:
    """Changes with what is taken of which files."""
    files = [(str(path.absolute()), _stamp(path)) if path else None for path in (clip.video, clip.audio)]
    values = json.dumps([files, clip.start_s, clip.end_s, clip.square])
    return hashlib.sha256(values.encode()).hexdigest()[:16]


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
        part = _make(task, digest)
    except (FaceNotFoundError, DecodeError) as error:
        part = FacePart(
            clip=digest, rejected=Reject(clip_id=clip.clip_id, reason=error.reason, detail=str(error))
        )  # fmt: skip
    except av.error.FFmpegError as error:
        detail = f"{clip.video} cannot be encoded: {error!r}"
        part = FacePart(clip=digest, rejected=Reject(clip_id=clip.clip_id, reason="encode_failed", detail=detail))
    except Exception as error:
        error.add_note(f"while looking for the face of clip {clip.clip_id!r} ({clip.video})")
        raise
    if part.rejected:
        task.out.unlink(missing_ok=True)  # of an earlier state of the clip
    part.write(task.part)
    return part


def _make(task: FaceTask, digest: str) -> FacePart:
    clip = task.clip
    if clip.video is None:
        raise nothing_there(clip.clip_id, True)
    square = clip.square if task.region is None else None
    track = task.tracker.track(clip.video, span_s=clip.span_s, region=task.region, square=square)
    write_face_clip(clip, track, task.out, size=task.size)
    return FacePart(
        clip=digest,
        bytes=task.out.stat().st_size,
        share=round(track.share, 4),
        contested=track.contested,
        pieces=len(track.pieces),
        shown=tuple(
            (int(track.numbers[place]), *(round(edge, 2) for edge in track.squares[place].tolist()))
            for place in shown_places(track)
        ),
    )


def shown_places(track: FaceTrack) -> list[int]:
    """Places of the frames on the sheet; a clip of fewer frames shows some twice."""
    last = len(track.numbers) - 1
    return [round(last * step / (SHOWN - 1)) for step in range(SHOWN)]
