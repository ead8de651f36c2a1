"""SpecAugment (Park et al., 2019) without its time warp: stripes of time and of frequency are masked.

The paper does not use it; widths and counts are our choice.

Shapes: B clips, K stripes, F frames and M bins of the spectrogram.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SpecAugment:
    """How many stripes, and how wide."""

    time_stripes: int = 2
    """Stripes across all bins."""
    time_width: float = 0.2
    """Widest of them, as a share of the spectrogram's frames; each width is drawn evenly from 0 to this."""
    frequency_stripes: int = 2
    """Stripes across all frames."""
    frequency_width: float = 0.2
    """Widest of them, as a share of the mel bins."""

    def __post_init__(self) -> None:
        for name in ("time_stripes", "frequency_stripes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")
        if not self.time_stripes + self.frequency_stripes:
            raise ValueError("neither time_stripes nor frequency_stripes; spec_augment: null switches it off")
        for name in ("time_width", "frequency_width"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be a share of the spectrogram, above 0, at most 1")

    @property
    def stripes(self) -> int:
        """Stripes a clip."""
        return self.time_stripes + self.frequency_stripes


def draw_stripes(rng: np.random.Generator, config: SpecAugment) -> NDArray[np.float32]:
    """Draw a clip's stripes: float32 (K, 4), shares of the spectrogram: first frame, end, first bin, end."""
    stripes = np.tile(np.array([0, 1, 0, 1], dtype=np.float32), (config.stripes, 1))
    for number in range(config.stripes):
        in_time = number < config.time_stripes
        width = rng.uniform(0, config.time_width if in_time else config.frequency_width)
        start = rng.uniform(0, 1 - width)
        stripes[number, slice(0, 2) if in_time else slice(2, 4)] = start, start + width
    return stripes


def no_stripes(count: int) -> NDArray[np.float32]:
    """Stripes that mask nothing: float32 (K, 4)."""
    return np.zeros((count, 4), dtype=np.float32)


def mask_stripes(log_mel: Tensor, stripes: Tensor) -> Tensor:
    """Set stripes to 0, which is the mean of normalised log-mel energies.

    Args:
        log_mel: float (B, 1, F, M), normalised.
        stripes: float (B, K, 4), as drawn. A frame or bin is masked if its middle lies within.
    """
    frames = (torch.arange(log_mel.shape[2], device=log_mel.device) + 0.5) / log_mel.shape[2]
    bins = (torch.arange(log_mel.shape[3], device=log_mel.device) + 0.5) / log_mel.shape[3]
    first, end, low, high = stripes[..., None].unbind(2)  # (B, K, 1) each
    in_time = (frames >= first) & (frames < end)  # (B, K, F)
    in_frequency = (bins >= low) & (bins < high)  # (B, K, M)
    masked = (in_time[..., :, None] & in_frequency[..., None, :]).any(dim=1)  # (B, F, M)
    return log_mel.masked_fill(masked[:, None], 0.0)
