"""The face clip of a file for as long as it is needed: what ``hicmae faces`` would have written, in a folder of the
system for temporary files."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hicmae.data.file_lock import hold_folder, hold_lock_if_free
from hicmae.data.manifest import Clip
from hicmae.faces.face_clip import FACE_SIZE, write_tracked
from hicmae.faces.tracker import FaceNotFoundError, FaceTrack, FaceTracker
from hicmae.media.clip import DecodeError

_PREFIX = "hicmae-faces-"
_FRESH_S = 60.0  # a folder this young may belong to a process that has not locked it yet


@dataclass(frozen=True, kw_only=True)
class PassingClip:
    """A face clip, and how it came about."""

    path: Path
    """The mp4; its clock begins with the first frame of the original."""
    start_s: float
    """That instant, on the original's clock, in seconds."""
    track: FaceTrack


@contextmanager
def passing_face_clip(clip: Clip, tracker: FaceTracker, *, size: int = FACE_SIZE) -> Iterator[PassingClip]:
    """Write the face clip of all of a clip that shows a face at all; it is gone afterwards.

    A process that is killed leaves its folder behind, which the next one removes.

    Args:
        clip: what to take, as for ``write_face_clip``. A clip without its video's name is called by its id.
        tracker: how the face is followed; its ``min_share`` is that of a clip and does not matter here.
        size: side of the picture in pixels.

    Raises:
        DecodeError: the file cannot be decoded, or no frame shows a face (``no_face``).
    """
    _remove_left_behind()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with hold_folder(folder):
            out = folder / "face.mp4"
            try:
                # Of an hour, the part with a face counts, however short; which part that is, the track knows.
                track = write_tracked(clip, replace(tracker, min_share=1e-9), out, size=size, region=None)
            except FaceNotFoundError as error:
                raise DecodeError(
                    error.name,
                    FaceNotFoundError.reason,
                    f"no face in any of the {error.looked} frames looked at",
                    "drop the file; or leave the tracking of faces out, if it shows nothing but a face",
                ) from None
            yield PassingClip(path=out, start_s=float(track.times_s[0]), track=track)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_behind() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime < _FRESH_S:
                continue
            with hold_lock_if_free(folder / ".lock") as lock:
                if lock is not None:
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # another user's, or just removed by another process
