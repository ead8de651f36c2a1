"""Whether a picture looks like a scene out of which a face should be cut first, by a look at a few of its frames."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hicmae.faces.detector import FaceDetector
from hicmae.faces.look import detect_within
from hicmae.media.container import Track
from hicmae.media.pyav_decoder import decode_frames
from hicmae.media.square import Frame, display_size

FRAMES = 5
"""Frames that are looked at: key frames, each of which is decoded without others."""
WITHIN_S = 300.0
"""They lie within so many seconds: later ones of a large file would take reading all before them."""
SMALL_FACE = 0.4
"""Share of the picture's shorter side under which a face is small; ``hicmae faces`` makes it 0.62."""
SECOND_FACE = 0.5
"""Size over that of the largest face from which another one counts."""
FAR_FROM_SQUARE = 1.25
"""Longer side over shorter side from which a picture is unlike a face crop."""


def scene_doubt(picture: Track, detector: FaceDetector | None, name: str) -> str | None:
    """Why this may be no face crop, in a clause; None where it looks like one.

    Args:
        picture: the track.
        detector: finds faces; None to go by the picture's shape alone.
        name: what errors call this file.

    Raises:
        DecodeError: ``corrupt_frames``.
    """
    sides: list[float] = []  # of the largest face over the picture's shorter side
    crowded = 0
    width = height = 0

    def look(_number: int, frame: Frame, rotation: int) -> None:
        nonlocal crowded, width, height
        width, height = display_size(frame.shape[1], frame.shape[0], rotation, picture.stream.sample_aspect_ratio)
        if detector is None:
            return
        turns = round(rotation / 90) % 4
        upright = np.rot90(frame, turns) if turns else frame
        boxes = sorted(detect_within(upright, detector, (0, 0, height, width), width, height), key=lambda b: -b.size)
        if boxes:
            sides.append(boxes[0].side / min(width, height))
            crowded += len(boxes) > 1 and boxes[1].size >= SECOND_FACE * boxes[0].size

    decode_frames(picture, _key_frames(picture, FRAMES if detector else 1), look, name)
    if crowded * 2 > len(sides):
        return "it shows several faces"
    if sides and np.median(sides) < SMALL_FACE:
        return f"its largest face is {np.median(sides):.0%} as high as the picture"
    if not sides and max(width, height) >= FAR_FROM_SQUARE * min(width, height):
        return f"its picture is {width} x {height}, and only the square in its middle is looked at"
    return None


def _key_frames(picture: Track, count: int) -> npt.NDArray[np.int64]:
    """Numbers of at most ``count`` key frames spread over the first minutes, int64; of the first frame where the order
    of frames is not told."""
    if picture.counted:
        return np.zeros(1, dtype=np.int64)
    within = int(np.searchsorted(picture.times_s, picture.times_s[0] + WITHIN_S))
    keys = picture.packets.keys_until(int(picture.kept[within - 1]))
    numbers = np.flatnonzero(np.isin(picture.kept[:within], keys))
    if not len(numbers):
        return np.zeros(1, dtype=np.int64)
    return np.unique(numbers[np.rint(np.linspace(0, len(numbers) - 1, count)).astype(np.int64)]).astype(np.int64)
