"""Planar YUV 4:2:0 as the workers may ship it: half of the bytes of RGB, and no conversion on the processor.

A frame of S x S pixels is S rows of brightness, then the two colour planes, each S/2 x S/2, one after the other: in
all 3*S/2 rows of S bytes. The device converts, bit for bit as FFmpeg's swscale does on the processor: the usual
coefficients of BT.601, limited range, in 16-bit fixed point; each colour sample stands for 2 x 2 pixels.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hicmae.media.clip import DecodeError
from hicmae.media.container import Track
from hicmae.media.frames_file import FramesFile

PixelFormat = Literal["rgb24", "yuv420p"]
"""How a worker ships frames: interleaved RGB uint8 (T, S, S, 3), or planar YUV uint8 (T, 3*S/2, S)."""

_LIMITED_RANGE = (0, 1)
"""FFmpeg's colour ranges that mean 16..235: unspecified, and MPEG."""
_BT601 = (2, 5, 6)
"""FFmpeg's colour matrices that swscale takes as BT.601: unspecified, BT.470 BG, SMPTE 170M."""


def frame_shape(size: int, pixels: PixelFormat) -> tuple[int, ...]:
    """Shape of one frame of ``size`` x ``size`` pixels.

    Raises:
        ValueError: an odd size, which has no planar form.
    """
    if pixels == "rgb24":
        return size, size, 3
    if pixels != "yuv420p":
        raise ValueError(f"pixels={pixels!r} is not known; choose rgb24 or yuv420p")
    if size % 2:
        raise ValueError(f"image_size={size} is odd; yuv420p needs an even one: choose {size + 1}, or pixels='rgb24'")
    return size * 3 // 2, size


def fill_black(frames: npt.NDArray[np.uint8], pixels: PixelFormat) -> None:
    """Fill frames, uint8 (T, ...), with what is black: zeros in RGB."""
    if pixels == "rgb24":
        frames[...] = 0
    else:
        size = frames.shape[2]
        frames[:, :size], frames[:, size:] = 16, 128


def check_planar(picture: Track | FramesFile, square: tuple[int, int, int] | None, name: str) -> Track:
    """The picture, if its frames can be shipped as planes: no JPEGs, square pixels, no square to cut out.

    Raises:
        DecodeError: ``not_planar``.
    """
    if isinstance(picture, FramesFile):
        raise _not_planar(name, "its frames are JPEGs")
    if picture.stream.sample_aspect_ratio not in (None, 0, 1):
        raise _not_planar(name, "its pixels are not square")
    if square is not None:
        raise _not_planar(name, f"the square {square} is to be cut from its frames")
    return picture


def copy_planes(frame: Any, places: list[npt.NDArray[np.uint8]], name: str) -> None:
    """Copy the planes of a decoded PyAV frame to each of ``places``, uint8 (3*S/2, S).

    Raises:
        DecodeError: ``not_planar`` for a frame of another size or kind, whose colours would come out wrong.
    """
    size = places[0].shape[1]
    kind = (frame.format.name, frame.width, frame.height, round(frame.rotation / 90) % 4)
    plain = kind == ("yuv420p", size, size, 0)
    if not plain or frame.color_range not in _LIMITED_RANGE or frame.colorspace not in _BT601:
        found = f"its frames are {kind[0]}, {kind[1]} x {kind[2]}, turned by {frame.rotation} degrees, colour range "
        raise _not_planar(
            name,
            f"{found}{int(frame.color_range)}, matrix {int(frame.colorspace)}, not upright yuv420p of {size} x {size} "
            "in BT.601",
        )
    half = size // 2
    planes = []
    for plane, side in zip(frame.planes, (size, half, half), strict=True):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        planes.append(rows[:side, :side])
    for place in places:
        place[:size] = planes[0]
        place[size:].reshape(2, half, half)[...] = planes[1:]


def _not_planar(name: str, found: str) -> DecodeError:
    remedy = "ship RGB (pixels: rgb), or store the clips as h264 at the model's size"
    return DecodeError(name, "not_planar", f"planes are asked for, but {found}", remedy)


def to_rgb(video: Tensor) -> Tensor:
    """The pixels that swscale makes of planar frames.

    Args:
        video: uint8 (B, T, 3*S/2, S).

    Returns:
        uint8 (B, T, S, S, 3).
    """
    size = video.shape[3]
    half = size // 2
    y = video[:, :, :size].to(torch.int32)
    chroma = video[:, :, size:].reshape(*video.shape[:2], 2, half, half).to(torch.int32) * 8 - 1024
    u, v = chroma.unbind(2)  # (B, T, S/2, S/2)
    y = ((y * 8 - 128) * 9539) >> 16
    red, blue = (v * 13075) >> 16, (u * 16525) >> 16
    green = ((u * -3209) >> 16) + ((v * -6660) >> 16)
    rgb = torch.empty(*video.shape[:2], size, size, 3, dtype=torch.uint8, device=video.device)
    blocks = y.unflatten(3, (half, 2)).unflatten(2, (half, 2))  # (B, T, S/2, 2, S/2, 2)
    for channel, colour in enumerate((red, green, blue)):
        value = blocks + colour[:, :, :, None, :, None]
        rgb[..., channel] = value.clamp_(0, 255).reshape(y.shape)
    return rgb
