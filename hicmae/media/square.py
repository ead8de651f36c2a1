"""Decoded frames to upright squares: the one place where frames are turned, cropped and resized."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

Frame = npt.NDArray[np.uint8]


def display_size(width: int, height: int, rotation: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Size of a frame as displayed, (width, height): stretched to square pixels, then turned."""
    if pixel_aspect:
        width = max(1, round(width * pixel_aspect))
    return (height, width) if _quarter_turns(rotation) % 2 else (width, height)


def square_frame(frame: Frame, size: int, *, rotation: int = 0, pixel_aspect: Fraction | None = None) -> Frame:
    """The central square of a frame, upright, resized with a bilinear, antialiased filter.

    Args:
        frame: uint8 (height, width, 3) as decoded.
        size: side of the result, in pixels.
        rotation: degrees counter-clockwise by which the frame is to be shown; multiples of 90 are honoured.
        pixel_aspect: width of a pixel over its height; None or 0 for square pixels.

    Returns:
        uint8 (size, size, 3). A frame that is this square already comes back untouched.
    """
    height, width = frame.shape[:2]
    aspect = float(pixel_aspect) if pixel_aspect else 1.0
    side = min(height, width * aspect)
    crop_height, crop_width = max(1, round(side)), max(1, min(width, round(side / aspect)))
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    frame = frame[top : top + crop_height, left : left + crop_width]
    turns = _quarter_turns(rotation)
    if turns:
        frame = np.rot90(frame, turns)
    if frame.shape[:2] == (size, size):
        return frame
    # Channels-last memory seen as NCHW takes torch's vectorised uint8 path; np.rot90 leaves negative strides,
    # which torch does not take.
    image = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).unsqueeze(0)
    small = F.interpolate(image, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return small.squeeze(0).permute(1, 2, 0).numpy()


def _quarter_turns(rotation: int) -> int:
    return round(rotation / 90) % 4
