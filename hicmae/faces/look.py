"""The first pass over a clip: faces in every n-th frame, and the frames that begin another shot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hicmae.faces.detector import FaceBox, FaceDetector, need
from hicmae.media.clip import DecodeError
from hicmae.media.container import Track
from hicmae.media.pyav_decoder import decode_frames
from hicmae.media.span import span_frames
from hicmae.media.square import Frame, display_size

LONGEST_SIDE = 640
"""Frames are scaled down to this before a detector sees them; faces down to a thirtieth of the picture are found."""
_THUMB = 16  # side of the miniatures by which shots are told apart
_CUT_LEAST = 14.0
_CUT_RATIO = 3.0
"""A shot begins where the miniatures of two neighbouring frames differ by this many grey levels (of 255, on average),
and by this many times more than around them: what moves or flickers differs for longer than one frame."""
_AROUND = 3  # frames on either side

Bounds = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels of the displayed picture."""
Region = tuple[float, float, float, float]
"""(top, left, bottom, right) as fractions of the displayed picture's height and width."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """The faces in one frame."""

    place: int
    """Which of the clip's frames, from 0."""
    boxes: tuple[FaceBox, ...]
    """In pixels of the displayed picture."""


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What the first pass has found."""

    numbers: npt.NDArray[np.int64]
    """Numbers of the clip's frames in its file, int64 (N,)."""
    times_s: npt.NDArray[np.float64]
    """When each is presented, float64 (N,), in seconds on the file's clock."""
    width: int
    height: int
    """Of the displayed picture."""
    bounds: Bounds
    """Part of it in which faces were looked for."""
    looks: tuple[Look, ...]
    """Ascending."""
    shots: tuple[int, ...]
    """Places of the frames with which a shot begins; the first is 0."""


def look_for_faces(
    picture: Track,
    detector: FaceDetector,
    *,
    span_s: tuple[float, float] | None,
    region: Region | None,
    square: tuple[int, int, int] | None,
    every: int,
    name: str,
) -> Looks:
    """Decode the frames of a span one after the other; none is kept.

    Args:
        picture: the track.
        detector: finds the faces in a frame.
        span_s: (start, end) in seconds on the file's clock; None for the whole file.
        region: look there alone.
        square: look within (top, left, side) alone, in pixels of the displayed picture.
        every: look at each ``every``-th frame, at the last, and where a shot may begin.
        name: what errors call this clip.

    Raises:
        DecodeError: ``span_outside``, ``square_outside``, ``corrupt_frames``.
    """
    span = span_frames(picture, span_s)
    if span is None:
        raise DecodeError(
            name,
            "span_outside",
            f"the span {span_s} lies outside the file, which runs from {picture.times_s[0]:.3f} to "
            f"{picture.end_s:.3f} s",
            "correct start_s and end_s",
        )
    eye = _Eye(span.numbers, detector, picture.stream.sample_aspect_ratio, region, square, every, name)
    decode_frames(picture, span.numbers, eye, name)
    return Looks(
        numbers=span.numbers,
        times_s=picture.times_s[span.numbers],
        width=eye.width,
        height=eye.height,
        bounds=eye.bounds,
        looks=tuple(eye.looks[place] for place in sorted(eye.looks)),
        shots=(0, *(shots_within(eye.change)).tolist()),
    )


def shots_within(change: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Places, above 0, where a shot begins.

    Args:
        change: float32 (N,), by how much each frame differs from the one before.
    """
    starts = [
        place
        for place in np.flatnonzero(change >= _CUT_LEAST).tolist()
        if place and change[place] >= _CUT_RATIO * _around(change, place)
    ]
    return np.array(starts, dtype=np.intp)


def _around(change: npt.NDArray[np.float32], place: int) -> float:
    # change[0] compares with nothing.
    near = np.concatenate([change[max(1, place - _AROUND) : place], change[place + 1 : place + 1 + _AROUND]])
    return float(near.mean()) if near.size else 0.0


def bounds_of(width: int, height: int, region: Region | None, square: tuple[int, int, int] | None, name: str) -> Bounds:
    """The part of a picture that is looked at, in pixels.

    Raises:
        DecodeError: ``square_outside`` where the square is not within the picture.
    """
    if square is not None:
        top, left, side = square
        if top < 0 or left < 0 or side < 1 or top + side > height or left + side > width:
            raise DecodeError(
                name,
                "square_outside",
                f"the square (top, left, side) {square} is not within its picture, which is shown {width} pixels wide "
                f"and {height} high",
                "give the square in pixels of the picture as displayed, or none",
            )
        return top, left, top + side, left + side
    if region is None:
        return 0, 0, height, width
    top, left = round(region[0] * height), round(region[1] * width)
    return top, left, max(top + 1, round(region[2] * height)), max(left + 1, round(region[3] * width))


class _Eye:
    """Takes frames as they are decoded."""

    def __init__(
        self,
        numbers: npt.NDArray[np.int64],
        detector: FaceDetector,
        aspect: Any,
        region: Region | None,
        square: tuple[int, int, int] | None,
        every: int,
        name: str,
    ) -> None:
        self._cv2 = need("cv2")
        self.numbers, self.detector, self.aspect, self.every = numbers, detector, aspect, every
        self.region, self.square, self.name = region, square, name
        self.looks: dict[int, Look] = {}
        self.change = np.zeros(len(numbers), dtype=np.float32)
        self.width = self.height = 0
        self._thumb: npt.NDArray[np.float32] | None = None

    def __call__(self, number: int, frame: Frame, rotation: int) -> None:
        # A decoder that found no sound key frame starts again from further ahead: what comes twice is taken twice.
        place = int(np.searchsorted(self.numbers, number))
        width, height = display_size(frame.shape[1], frame.shape[0], rotation, self.aspect)
        if (width, height) != (self.width, self.height):
            if self.width and place:
                raise DecodeError(
                    self.name,
                    "size_changes",
                    f"its picture changes from {self.width} x {self.height} to {width} x {height}",
                    "re-encode it at one size, for example: ffmpeg -i FILE -vf scale=1280:720 NEW.mp4",
                )
            self.width, self.height = width, height
            self.bounds = bounds_of(width, height, self.region, self.square, self.name)
        turns = round(rotation / 90) % 4
        upright = np.rot90(frame, turns) if turns else frame
        area = self._cv2.INTER_AREA
        # Every fourth line will do for so small a picture, and costs a fraction.
        coarse = np.ascontiguousarray(upright[::4, ::4])
        thumb = self._cv2.resize(coarse, (_THUMB, _THUMB), interpolation=area).astype(np.float32)
        if place:
            assert self._thumb is not None
            self.change[place] = np.abs(thumb - self._thumb).mean()
        self._thumb = thumb
        if place % self.every == 0 or place == len(self.numbers) - 1 or self.change[place] >= _CUT_LEAST:
            boxes = detect_within(upright, self.detector, self.bounds, width, height)
            self.looks[place] = Look(place=place, boxes=tuple(boxes))


def detect_within(upright: Frame, detector: FaceDetector, bounds: Bounds, width: int, height: int) -> list[FaceBox]:
    """The faces in a part of a frame, which the detector sees scaled down to ``LONGEST_SIDE``.

    Args:
        upright: uint8 (H, W, 3), as stored but for the rotation, so perhaps with pixels that are not square.
        detector: finds the faces.
        bounds: the part, in pixels of the displayed picture.
        width, height: of the displayed picture.

    Returns:
        Boxes in pixels of the displayed picture.
    """
    cv2 = need("cv2")
    top, left, bottom, right = bounds
    down, along = upright.shape[0] / height, upright.shape[1] / width  # stored pixels per displayed one
    part = upright[round(top * down) : round(bottom * down), round(left * along) : round(right * along)]
    scale = min(1.0, LONGEST_SIDE / max(bottom - top, right - left))
    wide, high = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    small = np.ascontiguousarray(part)
    if small.shape[:2] != (high, wide):
        small = cv2.resize(small, (wide, high), interpolation=cv2.INTER_AREA)
    per_x, per_y = (right - left) / wide, (bottom - top) / high
    return [
        FaceBox(
            left=left + box.left * per_x,
            top=top + box.top * per_y,
            width=box.width * per_x,
            height=box.height * per_y,
            score=box.score,
        )
        for box in detector.detect(small)
    ]
