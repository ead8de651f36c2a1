"""A model of milliseconds for tests, and batches for it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hicmae.config import ModelConfig
from hicmae.masking import random_mask, tube_mask
from hicmae.pretraining import HiCMAE, Objective

TINY = ModelConfig(
    image_size=32, num_frames=4, audio_frames=64, mel_bins=32, width=24, heads=2, depth=4, fusion_depth=2,
    decoder_width=16, decoder_heads=2, decoder_depth=3, taps=(1, 3),
)  # fmt: skip
"""8 video tokens (2 x 2 x 2) and 8 audio tokens (4 x 2)."""


def clips(batch: int, *, seed: int = 0, config: ModelConfig = TINY) -> tuple[Tensor, Tensor]:
    """Normalised video (B, 3, T, H, W) and log-mel (B, 1, frames, bins) of noise."""
    rng = torch.Generator().manual_seed(seed)
    side = config.image_size
    video = torch.randn(batch, 3, config.num_frames, side, side, generator=rng)
    return video, torch.randn(batch, 1, config.audio_frames, config.mel_bins, generator=rng)


def masks(batch: int, *, seed: int = 0, config: ModelConfig = TINY) -> tuple[Tensor, Tensor]:
    """Visible video and audio tokens, int64 (B, V) each: half of them."""
    rng = np.random.default_rng(seed)
    video = np.stack([tube_mask(rng, config.video_grid, 0.5) for _ in range(batch)])
    audio = np.stack([random_mask(rng, config.audio_tokens, 0.5) for _ in range(batch)])
    return torch.from_numpy(video), torch.from_numpy(audio)


def pretraining_batch(batch: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The positional arguments of ``HiCMAE.forward``."""
    return (*clips(batch, seed=seed), *masks(batch, seed=seed))


def pretraining_model(*, seed: int = 0, **objective: object) -> HiCMAE:
    """A ``HiCMAE`` whose zero-initialised parameters are random too, so that every one of them matters."""
    torch.manual_seed(seed)
    model = HiCMAE(TINY, objective=Objective(**objective))  # type: ignore[arg-type]
    shake(model)
    return model


def shake(model: torch.nn.Module) -> None:
    """Move parameters of one axis (biases, norms, layer weights) and mask tokens off their initial constants."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or name.endswith("mask_token"):
                parameter.add_(torch.randn_like(parameter) * 0.2)
