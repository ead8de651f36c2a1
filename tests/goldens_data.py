"""The golden files: micro models of the reference, their inputs and what came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from hicmae.config import ModelConfig
from hicmae.pretraining import PretrainOutput

GOLDENS = Path(__file__).parent / "goldens"
PRETRAIN_STATE = GOLDENS / "pretrain_micro.official_state.safetensors"
FINETUNE_STATE = GOLDENS / "finetune_micro.official_state.safetensors"
MICRO = ModelConfig(
    image_size=32, audio_frames=64, mel_bins=32, width=24, heads=2, depth=4, fusion_depth=2,
    decoder_width=16, decoder_heads=2, decoder_depth=3, taps=(1, 2),
)  # fmt: skip


def numbers(name: str) -> dict[str, Any]:
    """``pretrain_micro`` or ``finetune_micro``: losses, gradient norms, trajectory."""
    return json.loads((GOLDENS / f"{name}.json").read_text())


def tensors(name: str) -> dict[str, Tensor]:
    """Inputs and outputs by name."""
    return load_file(GOLDENS / f"{name}.tensors.safetensors")


def visible(mask: Tensor) -> Tensor:
    """Boolean mask (True = masked) to ascending indices of the visible tokens."""
    return torch.stack([(~row).nonzero().flatten() for row in mask])


def pretrain_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """video, log_mel, video_visible, audio_visible of the golden batch."""
    golden = tensors("pretrain_micro")
    return (golden["in.video"], golden["in.audio"], visible(golden["in.video_mask"]), visible(golden["in.audio_mask"]))


def losses(output: PretrainOutput) -> dict[str, float]:
    """The losses under the golden file's names."""
    return {
        "video": output.video_loss.item(),
        "audio": output.audio_loss.item(),
        "contrastive_sum": output.contrastive_loss.item(),
        "total": output.loss.item(),
    }
