"""Place moving pictures with transparency on a background: bilinear sampling of four channels at once.

Red, green, blue and alpha of a pixel sit in the four 16-bit lanes of one 64-bit integer. A pixel weighted by
0..256 fits its lane, so one multiplication weights all four channels; this is about twice as fast as Pillow's
affine transform followed by a paste.
"""

from __future__ import annotations

import numpy as np

_FRACTION = 4
"""Bits of sub-pixel position: weights are products of sixteenths and add up to 256."""


def pack(pixels: np.ndarray) -> np.ndarray:
    """uint8 (..., 4), colours already multiplied by alpha -> uint64 (...), one lane of 16 bits a channel."""
    lanes = pixels.astype("<u2", order="C")
    return lanes.view("<u8")[..., 0]


def compose(
    layer: np.ndarray, background: np.ndarray, matrix: np.ndarray, box: tuple[int, int, int, int], out: np.ndarray
) -> None:
    """Sample one packed picture at affine places and lay it over the background, writing RGB into ``out``.

    ``layer`` uint64 (rows, columns), transparent at its border. ``background`` uint64 (height, width) packed with
    alpha 0. ``matrix`` float (2, 3) takes (x, y, 1) of an output pixel to column and row of ``layer``.
    ``box`` = left, top, right, bottom is the part of the output that the layer can reach. ``out`` uint8
    (height, width, 3) already holds the background.
    """
    rows, columns = layer.shape
    left, top, right, bottom = box
    fixed = np.round(matrix * (1 << 16)).astype(np.int64)
    x, y = np.arange(left, right), np.arange(top, bottom)
    drop = 16 - _FRACTION
    column = ((fixed[0, 0] * x)[None] + (fixed[0, 1] * y + fixed[0, 2])[:, None]) >> drop
    row = ((fixed[1, 0] * x)[None] + (fixed[1, 1] * y + fixed[1, 2])[:, None]) >> drop
    np.clip(column, 0, ((columns - 1) << _FRACTION) - 1, out=column)
    np.clip(row, 0, ((rows - 1) << _FRACTION) - 1, out=row)
    one = 1 << _FRACTION
    right_share, lower_share = column & (one - 1), row & (one - 1)
    both = right_share * lower_share
    index = (row >> _FRACTION) * columns + (column >> _FRACTION)
    flat = layer.reshape(-1)
    blended = flat.take(index) * (one * one - one * (right_share + lower_share) + both).view(np.uint64)
    for step, weight in (
        (1, one * right_share - both), (columns, one * lower_share - both), (columns + 1, both)
    ):  # fmt: skip
        blended += flat.take(index + step) * weight.view(np.uint64)
    through = np.uint64(255) - (blended >> np.uint64(56))
    blended += background[top:bottom, left:right] * through
    # The high byte of each lane is the value divided by 256.
    out[top:bottom, left:right] = blended.view(np.uint8).reshape(bottom - top, right - left, 8)[..., 1:7:2]
