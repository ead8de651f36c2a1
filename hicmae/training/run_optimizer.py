"""The optimiser of a run: its schedule follows from the trainer's settings and the data's length."""

from __future__ import annotations

import math

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from hicmae.config import ModelConfig
from hicmae.training.optim import OptimizerConfig, build_optimizer, schedule_epochs


def run_optimizer(
    trainer: Trainer, model: nn.Module, settings: OptimizerConfig, config: ModelConfig
) -> OptimizerLRScheduler:
    """AdamW with warm-up and cosine per step, for the global batch and the length of this run.

    The trainer's data module says ``batch_size`` (per device) and ``batches_per_epoch`` (per rank).
    """
    accumulate = trainer.accumulate_grad_batches
    data = trainer.datamodule  # type: ignore[attr-defined]
    steps_per_epoch = max(1, math.ceil(data.batches_per_epoch / accumulate))
    optimizer, schedule = build_optimizer(
        model,
        settings,
        global_batch=data.batch_size * trainer.world_size * accumulate,
        steps_per_epoch=steps_per_epoch,
        epochs=schedule_epochs(trainer.max_epochs, trainer.max_steps, steps_per_epoch),
        depth=config.depth,
        fusion_depth=config.fusion_depth,
        # Lightning refuses to clip gradients in mixed precision for an optimiser that may unscale them in its step.
        fused=not (trainer.gradient_clip_val and "mixed" in str(trainer.precision)),
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
