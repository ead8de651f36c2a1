"""Windows that follow the face of a file, and a word of warning where they should. The first needs the extra
``faces``."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hicmae.backbone import Modality
from hicmae.config import InputSpec
from hicmae.faces.detector import FaceDetector, make_detector
from hicmae.faces.passing_clip import passing_face_clip
from hicmae.faces.scene import scene_doubt
from hicmae.faces.tracker import FaceTrack, FaceTracker
from hicmae.inference.items import Media, MediaItem
from hicmae.inference.windows import ClipWindow, FileWindows, WindowSettings, read_windows
from hicmae.media.clip import DecodeError
from hicmae.media.container import Track
from hicmae.media.frames_file import is_frames_file

LEAST_SHARE = 0.5
"""Share of the frames looked at within a window in which the face must be found, as ``hicmae faces`` asks of a clip."""


@dataclass(frozen=True, kw_only=True)
class FaceWindows:
    """The windows of a face clip, on the clock of the original; iterate over it."""

    track: FaceTrack
    total: int
    """Number of windows."""
    windows: FileWindows
    """Of the face clip."""
    start_s: float
    """Where the face clip begins, on the clock of the original."""

    def __iter__(self) -> Iterator[tuple[ClipWindow, bool]]:
        """Each window, and whether it shows a face long enough."""
        for window in self.windows:
            start_s, end_s = window.start_s + self.start_s, window.end_s + self.start_s
            shown = self.track.share_within(start_s, end_s) >= LEAST_SHARE
            yield replace(window, start_s=start_s, end_s=end_s), shown


def check_faces(modalities: Collection[Modality]) -> None:
    """``ValueError`` where faces cannot be followed: the recogniser does not look, or the extra is missing."""
    if "video" not in modalities:
        raise ValueError(
            "faces=True is for recognisers that look, and this one was built for sound alone; leave it out"
        )
    make_detector(FaceTracker().detector)  # type: ignore[arg-type]


@contextmanager
def face_windows(
    item: MediaItem, spec: InputSpec, settings: WindowSettings, modalities: Collection[Modality]
) -> Iterator[FaceWindows]:
    """Cut the face out of a clip as ``hicmae faces`` does, and go through the windows of that.

    Args:
        item: the clip; its ``square`` is where the face is looked for.
        spec, settings, modalities: as for ``read_windows``.

    Raises:
        DecodeError: as ``read_windows``; ``no_face`` where no frame shows one; ``stored_squares`` for single frames, as
            shards of JPEGs hold them.
    """
    video, audio = _loaded(item.video), _loaded(item.audio)
    assert video is not None, "asked for the face of a clip without a picture"
    if not isinstance(video, Path) and is_frames_file(video):
        found = "its picture is stored as single squares, in which no face can be followed"
        raise DecodeError(item.name, "stored_squares", found, "leave --faces out, or give the original files")
    with ExitStack() as stack:
        face = stack.enter_context(
            passing_face_clip(
                video, audio, FaceTracker(), span_s=item.span_s, square=item.square, name=item.name
            )
        )  # fmt: skip
        del video, audio  # a long file is not held in memory beside its face clip
        clip = MediaItem(name=item.name, video=face.path)
        windows = stack.enter_context(read_windows(clip, spec, settings, modalities=modalities))
        yield FaceWindows(track=face.track, total=windows.total, windows=windows, start_s=face.start_s)


def _loaded(media: Media | None) -> Path | bytes | None:
    return media() if callable(media) else media


def face_doubts(track: FaceTrack) -> list[str]:
    """Warnings about the face that was followed."""
    doubts = []
    if track.contested:
        doubts.append(
            "two_faces: another face, about as large and as central, was seen beside the one that was followed"
        )
    if len(track.pieces) > 1:
        doubts.append(
            f"jumps: the square jumps {len(track.pieces) - 1} times, with another shot or the face found elsewhere"
        )
    return doubts


def scene_warning(item: MediaItem, windows: FileWindows) -> str | None:
    """A warning where the picture looks like a scene rather than a face crop; None where it does not."""
    if item.square is not None or not isinstance(windows.picture, Track):
        return None  # a square has been chosen by somebody, and stored frames are squares
    detector: FaceDetector | None = None
    with suppress(ValueError):  # without the extra, the picture's shape has to do
        detector = make_detector(FaceTracker().detector)  # type: ignore[arg-type]
    try:
        doubt = scene_doubt(windows.picture, detector, item.name)
    except DecodeError:
        return None  # damage that no window shows, or that the windows report
    return (
        doubt and f"not_a_face_crop: {doubt}, but the model is trained on faces that fill it; ask for faces (--faces)"
    )
