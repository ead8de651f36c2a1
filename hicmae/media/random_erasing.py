"""Random erasing (Zhong et al., 2020): one box of a clip, the same in all frames, becomes noise.

As the paper takes it from timm (mode 'pixel', one box): after colour normalisation, standard normal noise for each
pixel of each frame.

Shapes: B clips, T frames, S side of the frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_AREA = (0.02, 1 / 3)  # of the frame
_ASPECT = (0.3, 1 / 0.3)  # height over width


class Erasure(NamedTuple):
    """What is erased of a clip: plain values, so that the host need not wait for the device to read them."""

    top: int
    left: int
    height: int
    width: int
    """Pixels of the cropped frame."""
    seed: int
    """Of the noise."""


def draw_erasure(rng: np.random.Generator, size: int) -> Erasure | None:
    """Draw a box within a frame of ``size`` x ``size`` pixels; ``None`` where ten draws do not fit."""
    seed = int(rng.integers(2**63))
    for _ in range(10):
        area = size * size * rng.uniform(*_AREA)
        aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < height < size and 0 < width < size:
            top, left = rng.integers(size - height + 1), rng.integers(size - width + 1)
            return Erasure(int(top), int(left), height, width, seed)
    return None


def erase_(video: Tensor, erasures: Sequence[Erasure | None]) -> Tensor:
    """Fill each clip's box with noise, in place. The noise follows from the seed and the kind of device.

    Args:
        video: float (B, 3, T, S, S), colour-normalised.
        erasures: B boxes, ``None`` for clips that stay whole.
    """
    for clip, box in zip(video, erasures, strict=True):
        if box is not None:
            region = clip[..., box.top : box.top + box.height, box.left : box.left + box.width]
            generator = torch.Generator(device=video.device).manual_seed(box.seed)
            region.copy_(torch.randn(region.shape, generator=generator, device=video.device))
    return video
