"""Decoded frames to upright squares: the one place where frames are turned, cropped and resized."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

Frame = npt.NDArray[np.uint8]

_MOST_BYTES = 64 << 20


def display_size(width: int, height: int, rotation: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Size of a frame as displayed, (width, height): stretched to square pixels, then turned."""
    if pixel_aspect:
        width = max(1, round(width * pixel_aspect))
    return (height, width) if _quarter_turns(rotation) % 2 else (width, height)


class SquareFrames:
    """Takes frames as they are decoded, and fills a clip with their central squares, upright and resized.

    Frames wait until there are some, because resizing them together costs a third. Call ``flush`` at the end.
    """

    def __init__(self, clip: Frame, numbers: npt.NDArray[np.int64], *, pixel_aspect: Fraction | None) -> None:
        """Args:
        clip: uint8 (T, S, S, 3), written to.
        numbers: int64 (T,), ascending: which frame the clip shows when; one may be shown several times.
        pixel_aspect: width of a pixel over its height; None or 0 for square pixels.
        """
        self.clip = clip
        self.numbers = numbers
        self.aspect = float(pixel_aspect) if pixel_aspect else 1.0
        self._places: list[slice] = []
        self._buffer = np.empty((0, 0, 0, 3), dtype=np.uint8)

    def __call__(self, number: int, frame: Frame, rotation: int) -> None:
        """Take frame ``number``, uint8 (height, width, 3) as decoded, to be shown turned counter-clockwise by
        ``rotation`` degrees (multiples of 90 are honoured). The frame is not kept."""
        height, width = frame.shape[:2]
        side = min(height, width * self.aspect)
        crop_height, crop_width = max(1, round(side)), max(1, min(width, round(side / self.aspect)))
        top, left = (height - crop_height) // 2, (width - crop_width) // 2
        square = np.rot90(frame[top : top + crop_height, left : left + crop_width], _quarter_turns(rotation))
        low, high = np.searchsorted(self.numbers, (number, number + 1))
        if square.shape == self.clip.shape[1:]:
            self.clip[low:high] = square
            return
        if square.shape != self._buffer.shape[1:] or len(self._places) == len(self._buffer):
            self.flush()
            room = max(1, min(len(self.clip), _MOST_BYTES // square.nbytes))
            self._buffer = np.empty((room, *square.shape), dtype=np.uint8)
        self._buffer[len(self._places)] = square
        self._places.append(slice(int(low), int(high)))

    def flush(self) -> None:
        """Resize the frames that wait, with a bilinear, antialiased filter, into the clip."""
        if not self._places:
            return
        size = self.clip.shape[1]
        # Channels-last memory seen as NCHW takes torch's vectorised uint8 path.
        images = torch.from_numpy(self._buffer[: len(self._places)]).permute(0, 3, 1, 2)
        small = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        for place, frame in zip(self._places, small.permute(0, 2, 3, 1).numpy(), strict=True):
            self.clip[place] = frame
        self._places.clear()


def _quarter_turns(rotation: int) -> int:
    return round(rotation / 90) % 4
