"""An exponential moving average of the weights, which is validated, saved as the run's weights, and exported."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EmaWeights(WeightAveraging):
    """Lightning's averaging of weights, as this repository's checkpoints need it.

    After each optimiser step the average moves by ``1 - decay`` towards the weights; it starts as the weights after
    the first step. Validation sees the average, and a checkpoint's ``state_dict`` is the average, so that the best and
    the last checkpoint, their tests and the export are too. The weights that training goes on from lie beside it.

    Args:
        decay: share of the average that stays at each step, 0 to 1.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay={decay} must lie between 0 and 1; null switches the average off")
        # Interpolating (multi_avg_fn) leaves frozen weights exactly as they are, adding shares of both would not;
        # buffers are constants here, and are copied.
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the weights to their device: Lightning copies them before they go there, and would have them brought
        back at every step."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights: the last checkpoint is written after this, and a longer run goes on from it."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A test takes the average, which is the checkpoint's ``state_dict``; Lightning would warn of that."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
