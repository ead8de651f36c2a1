"""A synthetic batch that lies on the device already: what a training step costs without any data behind it.

Shapes: B clips, T frames, S pixels of a frame's side, V visible tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hicmae.config import InputSpec, ModelConfig
from hicmae.masking import random_mask, tube_mask
from hicmae.media.batch_transform import BatchTransform

CLASSES = 6
"""Emotions that the fine-tuning step tells apart, as many as CREMA-D has."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticBatch:
    """Noise in the shapes of real clips, on one device; the same for the same arguments."""

    config: ModelConfig
    frames: Tensor
    """uint8 (B, T, S, S, 3), as workers ship them."""
    waveform: Tensor
    """int16 (B, samples)."""
    video: Tensor
    """float32 (B, 3, T, S, S), colour-normalised: the model's input."""
    log_mel: Tensor
    """float32 (B, 1, frames, bins), normalised."""
    video_visible: Tensor
    """int64 (B, V), ascending: the paper's tubes, 90% masked."""
    audio_visible: Tensor
    """int64 (B, V'), ascending: 80% masked."""
    labels: Tensor
    """int64 (B,), one of ``CLASSES``."""

    @classmethod
    def make(cls, config: ModelConfig, batch: int, device: torch.device, *, seed: int = 0) -> Self:
        """``batch`` clips, all with picture and sound."""
        if batch < 1:
            raise ValueError(f"batch={batch} must be at least 1 clip")
        spec = InputSpec.for_model(config)
        rng = np.random.default_rng(seed)
        shape = (batch, config.num_frames, config.image_size, config.image_size, 3)
        frames = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8)).to(device)
        sound = rng.integers(-3000, 3000, (batch, spec.audio_samples), dtype=np.int16)
        waveform = torch.from_numpy(sound).to(device)
        video, log_mel = BatchTransform(spec).to(device)(frames, waveform)

        def masks(draw: Callable[[], NDArray[np.int64]]) -> Tensor:
            return torch.from_numpy(np.stack([draw() for _ in range(batch)])).to(device)

        return cls(
            config=config,
            frames=frames,
            waveform=waveform,
            video=video,
            log_mel=log_mel,
            video_visible=masks(lambda: tube_mask(rng, config.video_grid, 0.9)),
            audio_visible=masks(lambda: random_mask(rng, config.audio_tokens, 0.8)),
            labels=torch.from_numpy(rng.integers(0, CLASSES, batch)).to(device),
        )

    def __len__(self) -> int:
        return len(self.video)
