"""Gaussian blur, as of a lens out of focus.

Shapes: T frames, S pixels of a frame's side.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hicmae.corruptions.corruption import Media

REFERENCE_SIZE = 160
"""Side of the frames, in pixels, on which sigma is counted: larger frames are blurred by as much of the face."""


def gaussian_blur(media: Media, level: float, rng: np.random.Generator) -> Media:
    """Frames convolved with a Gaussian of ``level`` pixels of a frame of 160; beyond its edge a frame is mirrored."""
    frames, side = media.video, media.video.shape[1]
    kernel = blur_matrix(side, level * side / REFERENCE_SIZE)
    down = np.tensordot(frames.astype(np.float32), kernel, axes=(1, 1))  # (T, S, 3, S): rows last
    both = np.tensordot(down, kernel, axes=(1, 1))  # (T, 3, S, S): columns last
    blurred = np.rint(both.transpose(0, 2, 3, 1)).clip(0, 255).astype(np.uint8)
    return replace(media, video=blurred)


def blur_matrix(side: int, sigma: float) -> NDArray[np.float32]:
    """Weights of each pixel of a line for each blurred one, float32 (S, S); rows sum to 1."""
    reach = int(np.ceil(4 * sigma))
    offset = np.arange(-reach, reach + 1)
    weight = np.exp(-(offset**2) / (2 * sigma**2))
    place = (np.arange(side)[:, None] + offset) % (2 * side)
    mirrored = np.where(place < side, place, 2 * side - 1 - place)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], mirrored), weight / weight.sum())
    return matrix.astype(np.float32)
