"""Mixup and cutmix of audio-visual clips: one partner, one share and one choice for picture, sound and label.

Clips are paired with the batch in reverse order: a training batch is shuffled already, and in an even batch no clip
meets itself. Mixup: Zhang et al., 2018; cutmix: Yun et al., 2019. The reference mixes video and label and leaves the
sound as it was; ``video_only`` reproduces that.

Shapes: B clips, T frames, S side of the frames, F frames of the spectrogram, M mel bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """How training clips are mixed. The defaults are the paper's (section 4.2), but that the sound is mixed too."""

    mixup_alpha: float = 0.8
    """Mixup's share is drawn from Beta(alpha, alpha); 0 switches mixup off."""
    cutmix_alpha: float = 1.0
    """Cutmix's share is drawn from Beta(alpha, alpha); 0 switches cutmix off."""
    probability: float = 1.0
    """Share of batches that are mixed; 0 switches mixing off."""
    switch_probability: float = 0.5
    """Share of mixed batches that get cutmix rather than mixup, where both are on."""
    video_only: bool = False
    """Mix picture and label and leave the sound as it is, as the reference does."""

    def __post_init__(self) -> None:
        for name in ("mixup_alpha", "cutmix_alpha"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 (off) or more")
        for name in ("probability", "switch_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What happens to one batch."""

    share: float
    """How much of each label stays the clip's own, 0..1: for cutmix, exactly the area that stays."""
    box: tuple[int, int, int, int] | None = None
    """Cutmix: top, bottom, left, right in pixels, replaced in all frames; ``None`` is mixup."""
    span: tuple[int, int] | None = None
    """Cutmix: first and last (exclusive) spectrogram frame replaced, in all bins."""
    video_only: bool = False
    """Leave the sound as it is."""

    def video(self, video: Tensor) -> Tensor:
        """Mix (B, 3, T, S, S)."""
        if self.box is None:
            return self._blend(video)
        top, bottom, left, right = self.box
        mixed = video.clone()
        mixed[..., top:bottom, left:right] = video.flip(0)[..., top:bottom, left:right]
        return mixed

    def log_mel(self, log_mel: Tensor) -> Tensor:
        """Mix (B, 1, F, M)."""
        if self.video_only:
            return log_mel
        if self.span is None:
            return self._blend(log_mel)
        first, end = self.span
        mixed = log_mel.clone()
        mixed[:, :, first:end] = log_mel.flip(0)[:, :, first:end]
        return mixed

    def classes(self, labels: Tensor, classes: int) -> Tensor:
        """Class numbers int64 (B,) to class shares float32 (B, C)."""
        return self._blend(F.one_hot(labels, classes).float())

    def values(self, values: Tensor) -> Tensor:
        """Mix continuous targets (B, K)."""
        return self._blend(values)

    def _blend(self, x: Tensor) -> Tensor:
        return torch.lerp(x.flip(0), x, self.share)


def draw_mix(
    rng: np.random.Generator, config: MixConfig, *, image_size: int | None, audio_frames: int | None
) -> Mix | None:
    """Draw what happens to a batch; ``None`` leaves it alone.

    Cutmix draws a spatial box, centred anywhere and cut off at the border, and then the span of time whose share of
    the spectrogram is nearest to the box's share of the picture. The label follows the true areas: their mean, where
    both modalities are mixed.

    Args:
        rng: a generator of the batch's own, so that a resumed run draws the same.
        image_size: side of the frames in pixels; ``None`` for a model without video.
        audio_frames: frames of the spectrogram; ``None`` for a model without sound.
    """
    if config.video_only:
        audio_frames = None
    alphas = config.mixup_alpha, config.cutmix_alpha
    # All are drawn in any case, so that one setting does not shift the other draws.
    wanted, switch = rng.random() < config.probability, rng.random() < config.switch_probability
    if not wanted or not any(alphas):
        return None
    cut = switch if all(alphas) else bool(config.cutmix_alpha)
    alpha = config.cutmix_alpha if cut else config.mixup_alpha
    share = float(rng.beta(alpha, alpha))
    if not cut:
        return Mix(share=share, video_only=config.video_only)
    # A model without video gets its share from a box all the same, so that shares are distributed alike.
    box, area = _draw_box(rng, 1 - share, image_size or 160)
    areas = [area] if image_size else []
    span = None
    if audio_frames:
        length = round(area * audio_frames)
        first = int(rng.integers(audio_frames - length + 1))
        span = (first, first + length)
        areas.append(length / audio_frames)
    return Mix(share=1 - math.fsum(areas) / len(areas), box=box, span=span, video_only=config.video_only)


def _draw_box(rng: np.random.Generator, area: float, size: int) -> tuple[tuple[int, int, int, int], float]:
    """A square of about ``area`` of the frame, centred anywhere, cut off at the border; and its true area."""
    half = int(size * math.sqrt(area)) // 2
    row, column = (int(x) for x in rng.integers(size, size=2))
    top, bottom = max(0, row - half), min(size, row + half)
    left, right = max(0, column - half), min(size, column + half)
    return (top, bottom, left, right), (bottom - top) * (right - left) / size**2
