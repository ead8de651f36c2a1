"""The face clip of a file for as long as it is needed: what ``hicmae faces`` would have written, in a folder of the
system for temporary files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import av.error

from hicmae.data.passing_folder import passing_folder
from hicmae.faces.face_clip import FACE_SIZE, write_square
from hicmae.faces.tracker import FaceNotFoundError, FaceTrack, FaceTracker
from hicmae.media.clip import DecodeError
from hicmae.media.large_file import MediaData

_PREFIX = "hicmae-faces-"


@dataclass(frozen=True, kw_only=True)
class PassingClip:
    """A face clip, and how it came about."""

    path: Path
    """The mp4; its clock begins with the first frame of the original."""
    start_s: float
    """That instant, on the original's clock, in seconds."""
    track: FaceTrack


@contextmanager
def passing_face_clip(
    video: Path | MediaData,
    audio: Path | MediaData | None,
    tracker: FaceTracker,
    *,
    span_s: tuple[float, float] | None = None,
    square: tuple[int, int, int] | None = None,
    size: int = FACE_SIZE,
    name: str,
) -> Iterator[PassingClip]:
    """Write the face clip of a clip in which a face is seen at all; it is gone afterwards.

    A process that is killed leaves its folder behind, which the next one removes.

    Args:
        video: a media file with a picture, or what is in it.
        audio: a sound file on the same clock that replaces its sound.
        tracker: how the face is followed. Its ``min_share`` does not matter: of an hour, the part with a face counts,
            however short, and the track tells which part that is.
        span_s: take only these seconds (start, end) of the file.
        square: look within (top, left, side) alone, in pixels of the displayed picture.
        size: side of the picture in pixels.
        name: what errors call this clip.

    Raises:
        DecodeError: the file cannot be decoded, or no frame shows a face (``no_face``).
    """
    with passing_folder(Path(tempfile.gettempdir()), _PREFIX) as folder:
        out, patient = folder / "face.mp4", replace(tracker, min_share=1e-9)
        try:
            track = write_square(
                video, audio, patient, out, span_s=span_s, square=square, size=size, region=None, name=name
            )  # fmt: skip
        except FaceNotFoundError as error:
            raise DecodeError(
                name,
                FaceNotFoundError.reason,
                f"no face in any of the {error.looked} frames looked at",
                "drop it; or do not look for faces, if the whole picture is one",
            ) from None
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise  # of the machine, and not of the clip
            raise DecodeError(
                name, "encode_failed", f"its face cannot be encoded: {error!r}", "look at the file"
            ) from error  # fmt: skip
        yield PassingClip(path=out, start_s=float(track.times_s[0]), track=track)
