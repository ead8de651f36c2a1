"""Batches as a training step gets them, of random values: what a step costs does not depend on what is seen.

Shapes: B clips, T frames, V visible tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from hicmae.config import ModelConfig
from hicmae.masking import random_mask, tube_mask
from hicmae.training.optim import OptimizerConfig

LABEL_SMOOTHING = 0.1
"""Of the paper's fine-tuning."""
CLASSES = 6
"""Of CREMA-D."""


@dataclass(frozen=True, kw_only=True)
class PretrainingBatch:
    """What ``HiCMAE`` takes, with the paper's shares of masked tokens."""

    RECIPE: ClassVar[OptimizerConfig] = OptimizerConfig()

    video: Tensor
    """float32 (B, 3, T, H, W), colour-normalised."""
    log_mel: Tensor
    """float32 (B, 1, frames, bins), normalised."""
    video_visible: Tensor
    """int64 (B, V), ascending."""
    audio_visible: Tensor
    """int64 (B, V'), ascending."""

    @classmethod
    def random(cls, config: ModelConfig, clips: int, device: torch.device, *, seed: int = 0) -> Self:
        """So many clips of random values; the same for the same seed."""
        video, log_mel = _inputs(config, clips, seed)
        rng = np.random.default_rng(seed)
        tubes = np.stack([tube_mask(rng, config.video_grid, 0.9) for _ in range(clips)])
        patches = np.stack([random_mask(rng, config.audio_tokens, 0.8) for _ in range(clips)])
        return cls(
            video=video.to(device),
            log_mel=log_mel.to(device),
            video_visible=torch.from_numpy(tubes).to(device),
            audio_visible=torch.from_numpy(patches).to(device),
        )


@dataclass(frozen=True, kw_only=True)
class RecognitionBatch:
    """What ``EmotionRecognizer`` takes, and the classes it should say."""

    RECIPE: ClassVar[OptimizerConfig] = OptimizerConfig(
        lr_per_256=1e-3, min_lr_per_256=1e-6, scale_min_lr=False, betas=(0.9, 0.999), layer_decay=0.75
    )

    video: Tensor
    """float32 (B, 3, T, H, W), colour-normalised."""
    log_mel: Tensor
    """float32 (B, 1, frames, bins), normalised."""
    labels: Tensor
    """int64 (B,), below ``CLASSES``."""

    @classmethod
    def random(cls, config: ModelConfig, clips: int, device: torch.device, *, seed: int = 0) -> Self:
        """So many clips of random values; the same for the same seed."""
        video, log_mel = _inputs(config, clips, seed)
        labels = torch.arange(clips) % CLASSES
        return cls(video=video.to(device), log_mel=log_mel.to(device), labels=labels.to(device))


def _inputs(config: ModelConfig, clips: int, seed: int) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    video = torch.randn(clips, 3, config.num_frames, config.image_size, config.image_size, generator=made)
    return video, torch.randn(clips, 1, config.audio_frames, config.mel_bins, generator=made)
