"""An exponential moving average of the weights, which is validated, saved as the run's weights, and exported."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
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
        self._move = get_ema_multi_avg_fn(decay)
        super().__init__(use_buffers=False, multi_avg_fn=self._move)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the weights to their device: Lightning copies them before they go there, and would have them brought
        back at every step."""
        average = self._average_model
        assert average is not None
        count = average.n_averaged.cpu()
        average.to(pl_module.device)
        average.n_averaged = count  # stays with the host, which asks for it at every step
        for mine, its in zip(average.module.buffers(), pl_module.buffers(), strict=True):
            mine.copy_(its)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the average after an optimiser step; torch's own way reads the count of steps from the device, twice."""
        if trainer.global_step <= self._latest_update_step:
            return
        average = self._average_model
        assert average is not None
        mine: list[Tensor] = list(average.module.parameters())
        its: list[Tensor] = list(pl_module.parameters())
        if average.n_averaged == 0:
            torch._foreach_copy_(mine, its)
        else:
            self._move(mine, its, average.n_averaged)
        average.n_averaged += 1
        self._latest_update_step = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights: the last checkpoint is written after this, and a longer run goes on from it."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A test takes the average, which is the checkpoint's ``state_dict``; Lightning would warn of that."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
