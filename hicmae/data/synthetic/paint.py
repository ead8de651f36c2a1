"""Painting with soft-edged analytic shapes on arrays of pixels, for all frames of a clip at once.

A picture is float32 (3, ..., rows, columns) on the scale 0..255. A shape is a signed distance in pixels, positive
inside; ``cover`` makes it a mask with an anti-aliased edge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hicmae.data.synthetic.speaker import Colour


def cover(distance: np.ndarray) -> np.ndarray:
    """Mask 0..1 of a shape from its signed distance in pixels (positive inside), any shape."""
    mask = distance + np.float32(0.5)
    np.clip(mask, 0, 1, out=mask)
    return mask


def blend(picture: np.ndarray, mask: np.ndarray, colour: Colour | Sequence[np.ndarray] | np.ndarray) -> None:
    """Paint ``colour`` (three numbers 0..1, or three planes that broadcast, 0..255) over ``picture`` in place."""
    for plane, paint in zip(picture, colour, strict=True):
        difference = (paint if isinstance(paint, np.ndarray) else 255 * float(paint)) - plane
        difference *= mask
        plane += difference


def darken(picture: np.ndarray, amount: np.ndarray) -> None:
    """Multiply every channel by ``1 - amount``, in place."""
    picture *= 1 - amount


def ellipse(x: np.ndarray, y: np.ndarray, radius_x: float, radius_y: float, pixels_per_unit: float) -> np.ndarray:
    """Approximate signed distance in pixels to an ellipse round the origin; x and y broadcast."""
    reach = np.sqrt((x / radius_x) ** 2 + (y / radius_y) ** 2)
    return (1 - reach) * np.float32(min(radius_x, radius_y) * pixels_per_unit)


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """``first`` with this share of ``second``."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(first, second, strict=True))
    return red, green, blue


def scaled(colour: Colour, factor: float) -> Colour:
    """A lighter or darker colour, cut at white."""
    red, green, blue = (min(1.0, factor * value) for value in colour)
    return red, green, blue


def value_noise(rng: np.random.Generator, shape: tuple[int, ...], cells: int) -> np.ndarray:
    """Smooth texture, float32 of this shape (rows, columns), variance near 1, ``cells`` bumps along a side."""
    lattice = rng.standard_normal((cells + 2, cells + 2), dtype=np.float32)
    y, x = np.linspace(0, cells, shape[0], dtype=np.float32), np.linspace(0, cells, shape[1], dtype=np.float32)
    row, column = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    down, along = (y - row)[:, None].astype(np.float32), (x - column)[None].astype(np.float32)
    down, along = down * down * (3 - 2 * down), along * along * (3 - 2 * along)
    # Two interpolations instead of matrix products: those would start BLAS threads in every worker.
    strips = lattice[row] * (1 - down) + lattice[row + 1] * down
    return strips[:, column] * (1 - along) + strips[:, column + 1] * along
