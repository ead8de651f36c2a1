"""One clip cut to its face, and what somebody who was not there may want to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av.error

from hicmae.data.manifest import Clip
from hicmae.faces.face_clip import FACE_SIZE, write_tracked
from hicmae.faces.look import Region
from hicmae.faces.tracker import FaceTrack, FaceTracker
from hicmae.media.clip import DecodeError

SHOWN = 3
"""Frames of a clip on the sheet: the first, the middle one, the last."""
_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class FaceCut:
    """How a face clip came about."""

    bytes: int
    """Of the face clip."""
    share: float
    """``FaceTrack.share``"""
    contested: bool
    """``FaceTrack.contested``"""
    pieces: int
    """Stretches between which the square jumps."""
    shown: tuple[tuple[float, ...], ...]
    """(number of the frame in its file, top, left, side) of the frames on the sheet."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FaceCut:
        """The inverse of ``to_dict``; ``KeyError`` or ``TypeError`` for other values."""
        return cls(**{**values, "shown": tuple(map(tuple, values["shown"]))})


def cut_face(
    clip: Clip, out: Path, *, tracker: FaceTracker, size: int = FACE_SIZE, region: Region | None = None
) -> FaceCut:
    """Write the face clip of a clip, see ``write_face_clip``.

    Raises:
        FaceNotFoundError, DecodeError: the clip is one for the rejects, with this ``reason``.
        ValueError: an option is out of range, or the detector is not installed.
    """
    try:
        track = write_tracked(clip, tracker, out, size=size, region=region)
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise  # of the machine, and not of the clip
        raise DecodeError(str(clip.video), "encode_failed", f"its face cannot be encoded: {error!r}", "look at the file") from error  # fmt: skip  # noqa: E501
    return FaceCut(
        bytes=out.stat().st_size,
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


def doubts(cuts: Mapping[str, FaceCut]) -> tuple[str, ...]:
    """Sentences about the clips, given by id, of which the face may be another's."""
    kinds = {
        "show another face that is about as large and as central": [i for i, cut in cuts.items() if cut.contested],
        "have a square that jumps (another shot, or the face found elsewhere)": [
            i for i, cut in cuts.items() if cut.pieces > 1
        ],
    }
    return tuple(
        f"{len(ids)} clips {what}: {', '.join(ids[:_NAMED])}" + (", ..." if len(ids) > _NAMED else "")
        for what, ids in kinds.items()
        if ids
    )
