"""The paper's optimiser and schedule: AdamW groups, layer-wise decay, warm-up and cosine (section 4.2)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_BLOCK = re.compile(r"\b(?:video|audio)_encoder\.blocks\.(\d+)\.")
_FUSION_BLOCK = re.compile(r"\bfusion\.(?:video|audio)_blocks\.(\d+)\.")
_EMBED = re.compile(r"\b(?:video|audio)_encoder\.embed\.")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its schedule. Learning rates are given per 256 clips of global batch and scaled to the batch used."""

    lr_per_256: float = 3e-4
    """Highest learning rate at a global batch of 256."""
    min_lr_per_256: float = 1e-5
    """Learning rate that the cosine falls towards, at a global batch of 256."""
    scale_min_lr: bool = True
    """Scale the lowest learning rate with the batch too (pre-training does, fine-tuning does not)."""
    warmup_epochs: float = 5.0
    """Epochs of linear warm-up from 0."""
    weight_decay: float = 0.05
    """Decoupled weight decay; parameters of one axis, biases and mask tokens do not decay."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's averaging factors (fine-tuning: 0.9, 0.999)."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer to the one below (fine-tuning: 0.75); 1 is off."""

    def __post_init__(self) -> None:
        for name in ("lr_per_256", "min_lr_per_256", "warmup_epochs", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay={self.layer_decay} must be above 0 and at most 1; 1 switches it off")

    def peak_lr(self, global_batch: int) -> float:
        """Highest learning rate for this global batch."""
        return self.lr_per_256 * global_batch / 256

    def floor_lr(self, global_batch: int) -> float:
        """Lowest learning rate for this global batch."""
        return self.min_lr_per_256 * (global_batch / 256 if self.scale_min_lr else 1.0)


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: not to parameters of one axis, biases and mask tokens."""
    return parameter.ndim > 1 and not name.endswith("bias") and not name.endswith("mask_token")


def layer_scale(name: str, *, depth: int, fusion_depth: int, layer_decay: float) -> float:
    """Learning-rate factor of a parameter under layer-wise decay.

    ``layer_decay ** (L + 1 - i)`` with L = depth + fusion_depth; the patch embeddings are i = 0, encoder block k is
    i = k + 1, fusion block j is i = depth + j + 1. Final norms, head and layer weights keep the full rate.
    """
    layers = depth + fusion_depth
    if _EMBED.search(name):
        layer = 0
    elif found := _BLOCK.search(name):
        layer = int(found[1]) + 1
    elif found := _FUSION_BLOCK.search(name):
        layer = depth + int(found[1]) + 1
    else:
        layer = layers + 1
    return layer_decay ** (layers + 1 - layer)


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    config: OptimizerConfig,
    *,
    lr: float,
    depth: int,
    fusion_depth: int,
) -> list[dict[str, Any]]:
    """AdamW groups by (weight decay, learning-rate factor); frozen parameters are left out.

    Each group holds ``params, weight_decay, lr`` (already scaled), ``lr_scale`` and ``names``.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        decay = config.weight_decay if decays(name, parameter) else 0.0
        scale = layer_scale(name, depth=depth, fusion_depth=fusion_depth, layer_decay=config.layer_decay)
        group = groups.setdefault(
            (decay, scale),
            {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale, "lr": lr * scale},
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def warmup_cosine(step: int, *, peak: float, floor: float, warmup_steps: int, total_steps: int) -> float:
    """Learning rate at a step: linear from 0 to ``peak``, then cosine towards ``floor``.

    The warm-up includes both ends, so ``peak`` occurs at its last step and again at the cosine's first; ``floor``
    is never quite reached, as in the reference.
    """
    if step < warmup_steps:
        return peak * step / max(1, warmup_steps - 1)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return floor + (peak - floor) / 2 * (1 + math.cos(math.pi * progress))


def schedule_epochs(max_epochs: int | None, max_steps: int, steps_per_epoch: int) -> float:
    """Length of the schedule in epochs: the trainer's epochs; without them, its steps.

    A limit of steps beside a number of epochs only ends the run early: the schedule stays that of the whole run.
    """
    if max_epochs is not None and max_epochs > 0:
        return float(max_epochs)
    if max_steps > 0:
        return max_steps / steps_per_epoch
    raise ValueError("the schedule needs an end; set trainer.max_epochs or trainer.max_steps")


def build_optimizer(
    model: nn.Module,
    config: OptimizerConfig,
    *,
    global_batch: int,
    steps_per_epoch: int,
    epochs: float,
    depth: int,
    fusion_depth: int,
    fused: bool = True,
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW over ``model`` with the per-step schedule.

    Args:
        model: its trainable parameters are optimised.
        config: rates and decay.
        global_batch: clips per optimiser step over all devices and accumulated batches.
        steps_per_epoch: optimiser steps per epoch.
        epochs: length of the schedule, warm-up included.
        depth, fusion_depth: of the model, for layer-wise decay.
        fused: take AdamW's fused kernel, which unscales float16's gradients itself.

    Raises:
        ValueError: if warm-up is as long as the training.
    """
    total = max(1, round(steps_per_epoch * epochs))
    warmup = round(steps_per_epoch * config.warmup_epochs)
    if warmup >= total and warmup > 0:
        raise ValueError(
            f"warm-up of {config.warmup_epochs} epochs ({warmup} steps) leaves nothing of {epochs} epochs "
            f"({total} steps); lower warmup_epochs or train longer"
        )
    peak, floor = config.peak_lr(global_batch), config.floor_lr(global_batch)
    groups = parameter_groups(model.named_parameters(), config, lr=peak, depth=depth, fusion_depth=fusion_depth)
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=config.betas, eps=config.eps, fused=fused)

    def factor(step: int) -> float:
        return warmup_cosine(step, peak=peak, floor=floor, warmup_steps=warmup, total_steps=total) / peak

    schedule: Callable[[int], float] = factor if peak > 0 else (lambda step: 1.0)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
