"""Decoded frames to upright squares: the one place where frames are turned, cropped and resized."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from hicmae.media.clip import DecodeError

Frame = npt.NDArray[np.uint8]
Square = tuple[int, int, int]
"""(top, left, side), in pixels of the upright picture as displayed."""

_MOST_BYTES = 64 << 20


def display_size(width: int, height: int, rotation: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Size of a frame as displayed, (width, height): stretched to square pixels, then turned."""
    if pixel_aspect:
        width = max(1, round(width * pixel_aspect))
    return (height, width) if _quarter_turns(rotation) % 2 else (width, height)


def cut_square(frame: Frame, rotation: int, pixel_aspect: Fraction | None, square: Square | None, name: str) -> Frame:
    """The part of a decoded frame that a square of its upright picture shows, upright; a view.

    Args:
        frame: uint8 (height, width, 3), as decoded.
        rotation: degrees counter-clockwise that make it upright; multiples of 90 are honoured.
        pixel_aspect: width of a stored pixel over its height; None or 0 for square pixels.
        square: None for the largest one in the centre.
        name: what errors call this clip.

    Raises:
        DecodeError: ``square_outside`` where the square is not within the picture.
    """
    turns = _quarter_turns(rotation)
    if square is None:
        height, width = frame.shape[:2]
        aspect = float(pixel_aspect) if pixel_aspect else 1.0
        side = min(height, width * aspect)
        rows, columns = max(1, round(side)), max(1, min(width, round(side / aspect)))
        top, left = (height - rows) // 2, (width - columns) // 2
        cut = frame[top : top + rows, left : left + columns]
        return np.rot90(cut, turns) if turns else cut
    width, height = display_size(frame.shape[1], frame.shape[0], rotation, pixel_aspect)
    top, left, side = square
    if top < 0 or left < 0 or side < 1 or top + side > height or left + side > width:
        raise DecodeError(
            name,
            "square_outside",
            f"the square (top, left, side) {square} is not within its picture, which is shown {width} pixels wide and "
            f"{height} high",
            "give the square in pixels of the picture as displayed, or none for its centre",
        )
    upright = np.rot90(frame, turns) if turns else frame
    down, along = upright.shape[0] / height, upright.shape[1] / width  # stored pixels per displayed one
    first, start = round(top * down), round(left * along)
    last, end = max(first + 1, round((top + side) * down)), max(start + 1, round((left + side) * along))
    return upright[first:last, start:end]


class SquareFrames:
    """Takes frames as they are decoded, and fills clips with their squares, upright and resized.

    Frames wait until there are some, because resizing them together costs a third. Call ``flush`` at the end.
    """

    def __init__(
        self,
        rows: Sequence[Frame] | Frame,
        numbers: npt.NDArray[np.int64],
        *,
        pixel_aspect: Fraction | None,
        square: Square | None = None,
        name: str = "clip",
    ) -> None:
        """Args:
        rows: T arrays, uint8 (S, S, 3), written to: a clip, or the frames of several.
        numbers: int64 (T,): which frame each row shows; one may be shown several times.
        pixel_aspect: width of a stored pixel over its height; None or 0 for square pixels.
        square: which square of the picture; None for the central one.
        name: what errors call this clip.
        """
        self.size = rows[0].shape[0]
        self.aspect = pixel_aspect
        self.square = square
        self.name = name
        self.places: dict[int, list[Frame]] = {}
        for row, number in zip(rows, numbers.tolist(), strict=True):
            self.places.setdefault(number, []).append(row)
        self._waiting: list[list[Frame]] = []
        self._buffer = np.empty((0, 0, 0, 3), dtype=np.uint8)

    def takes_whole(self, height: int, width: int) -> bool:
        """Whether upright frames of this size are shown as they are, so that they may be decoded into a row."""
        whole = self.square in (None, (0, 0, self.size)) and self.aspect in (None, 0, 1)
        return whole and height == width == self.size

    def __call__(self, number: int, frame: Frame, rotation: int) -> None:
        """Take frame ``number``, uint8 (height, width, 3) as decoded, to be shown turned counter-clockwise by
        ``rotation`` degrees (multiples of 90 are honoured). The frame is not kept.

        Raises:
            DecodeError: ``square_outside`` where the wanted square is not within the picture.
        """
        square = cut_square(frame, rotation, self.aspect, self.square, self.name)
        if square.shape == (self.size, self.size, 3):
            for row in self.places[number]:
                row[...] = square
            return
        if square.shape != self._buffer.shape[1:] or len(self._waiting) == len(self._buffer):
            self.flush()
            room = max(1, min(len(self.places), _MOST_BYTES // square.nbytes))
            self._buffer = np.empty((room, *square.shape), dtype=np.uint8)
        self._buffer[len(self._waiting)] = square
        self._waiting.append(self.places[number])

    def flush(self) -> None:
        """Resize the frames that wait, with a bilinear, antialiased filter, into the clips."""
        if not self._waiting:
            return
        # Channels-last memory seen as NCHW takes torch's vectorised uint8 path.
        images = torch.from_numpy(self._buffer[: len(self._waiting)]).permute(0, 3, 1, 2)
        small = F.interpolate(images, size=(self.size,) * 2, mode="bilinear", antialias=True, align_corners=False)
        for rows, frame in zip(self._waiting, small.permute(0, 2, 3, 1).numpy(), strict=True):
            for row in rows:
                row[...] = frame
        self._waiting.clear()


def _quarter_turns(rotation: int) -> int:
    return round(rotation / 90) % 4
