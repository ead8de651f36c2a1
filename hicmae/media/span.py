"""All frames of a clip's span, one after the other, as upright squares: what is stored when a clip is re-encoded."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hicmae.media.container import Track
from hicmae.media.frames_file import FramesFile
from hicmae.media.jpeg_decoder import decode_jpeg
from hicmae.media.pyav_decoder import decode_frames
from hicmae.media.square import SquareFrames
from hicmae.media.window import TOLERANCE_S

FINEST_TICK = Fraction(1, 1_000_000)
"""Frames are timed in ticks of the file's own, unless those are finer than this."""
_TOGETHER = 32  # frames that wait to be resized together: a clip of any length needs the memory of these


@dataclass(frozen=True, kw_only=True)
class SpanFrames:
    """The frames of a picture that a span shows, on a clock that begins with the first of them."""

    numbers: npt.NDArray[np.int64]
    """Their numbers in order of presentation, int64 (N,), at least one."""
    ticks: npt.NDArray[np.int64]
    """When each is presented, int64 (N,), strictly ascending from 0."""
    tick: Fraction
    """Seconds per tick."""
    end_ticks: int
    """When the last frame leaves the screen, after its own time."""
    start_s: float
    """Instant of the first frame on the file's own clock."""
    last_s: float
    """When the last frame leaves the screen, on the file's own clock."""

    @property
    def times_s(self) -> npt.NDArray[np.float64]:
        """When each is presented, float64 (N,), in seconds from the first."""
        return self.ticks * self.tick.numerator / self.tick.denominator

    @property
    def end_s(self) -> float:
        """When the last frame leaves the screen, in seconds from the first."""
        return float(self.end_ticks * self.tick)


class FrameWriter(Protocol):
    """Takes the squares of a span in order."""

    def begin(self) -> None:
        """Start, or start again: what was added before is void."""

    def add(self, frame: npt.NDArray[np.uint8]) -> None:
        """Take the next square, RGB uint8 (size, size, 3), valid during the call."""


def span_frames(picture: Track | FramesFile, span_s: tuple[float, float] | None) -> SpanFrames | None:
    """The frames that windows of this span may show; None where the span lies outside the picture."""
    times, end_s = picture.times_s, picture.end_s
    begin, finish = (times[0], end_s) if span_s is None else (max(span_s[0], times[0]), min(span_s[1], end_s))
    if finish <= begin:
        return None
    first = int(np.searchsorted(times, begin - TOLERANCE_S))
    last = max(0, int(np.searchsorted(times, finish - TOLERANCE_S)) - 1)
    first = min(first, last)
    numbers = np.arange(first, last + 1)
    tick = FINEST_TICK if isinstance(picture, FramesFile) else max(picture.tick, FINEST_TICK)
    start_s = float(times[first])
    ticks = np.rint((times[numbers] - start_s) * tick.denominator / tick.numerator).astype(np.int64)
    # Of frames that are presented at the same time, the last is seen.
    seen = np.diff(ticks, append=ticks[-1] + 1) > 0
    numbers, ticks = numbers[seen], ticks[seen]
    return SpanFrames(
        numbers=numbers,
        ticks=ticks,
        tick=tick,
        end_ticks=max(round((finish - start_s) / tick), int(ticks[-1]) + 1),
        start_s=start_s,
        last_s=float(finish),
    )


def write_squares(
    picture: Track | FramesFile,
    numbers: npt.NDArray[np.int64],
    writer: FrameWriter,
    *,
    size: int,
    square: tuple[int, int, int] | None,
    name: str,
) -> None:
    """Decode the frames with these numbers and hand their squares to ``writer``, a few at a time.

    Args:
        picture: the track, or the file of frames.
        numbers: int64 (N,), ascending and distinct.
        writer: takes each frame.
        size: side of the squares, in pixels.
        square: (top, left, side) in pixels of the upright picture; None for its central square.
        name: what errors call this clip.

    Raises:
        DecodeError: ``corrupt_frames``, or ``square_outside``.
    """
    aspect = None if isinstance(picture, FramesFile) else picture.stream.sample_aspect_ratio
    squares = _SquaresInOrder(numbers, writer, size=size, square=square, aspect=aspect, name=name)
    if isinstance(picture, FramesFile):
        for number in numbers.tolist():
            squares(number, decode_jpeg(picture, number, name), 0)
    else:
        decode_frames(picture, numbers, squares, name)
    squares.flush()
    assert squares.delivered == len(numbers), (name, squares.delivered, len(numbers))


class _SquaresInOrder:
    """Collects decoded frames until a few can be resized and written together."""

    def __init__(
        self,
        numbers: npt.NDArray[np.int64],
        writer: FrameWriter,
        *,
        size: int,
        square: tuple[int, int, int] | None,
        aspect: Fraction | None,
        name: str,
    ) -> None:
        self.numbers, self.writer, self.name = numbers, writer, name
        self.size, self.square, self.aspect = size, square, aspect
        self.delivered = 0

    def __call__(self, number: int, frame: npt.NDArray[np.uint8], rotation: int) -> None:
        place = int(np.searchsorted(self.numbers, number))
        if place == 0:
            # Also when the decoder starts again from further ahead, as it found no sound key frame.
            self.delivered = 0
            self.writer.begin()
        if place != self.delivered:
            return  # one is missing, for which the decoder will start again
        if self.delivered % _TOGETHER == 0:
            self.flush()
            part = self.numbers[self.delivered : self.delivered + _TOGETHER]
            self.chunk = np.empty((len(part), self.size, self.size, 3), dtype=np.uint8)
            self.waiting = SquareFrames(
                self.chunk, part, pixel_aspect=self.aspect, square=self.square, name=self.name
            )  # fmt: skip
        self.waiting(number, frame, rotation)
        self.delivered += 1

    def flush(self) -> None:
        """Write the frames that wait."""
        if not self.delivered:
            return
        self.waiting.flush()
        for frame in self.chunk:
            self.writer.add(frame)
