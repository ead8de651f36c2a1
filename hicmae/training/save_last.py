"""A checkpoint of the very end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from hicmae.data.batch import ClipBatch
from hicmae.training.run_directory import last_checkpoint


class SaveLast(Callback):
    """Writes ``checkpoints/last.ckpt`` when training ends.

    A run that a limit of steps or of time ends in the middle of an epoch is saved there, before Lightning closes
    the epoch: from a later checkpoint it would go on with the next epoch, and the rest of this one would be lost.
    """

    def __init__(self) -> None:
        self._in_epoch: Path | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        ending = trainer.should_stop or trainer.global_step == trainer.max_steps
        if ending and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._in_epoch = last_checkpoint(trainer).with_name("stopped.ckpt")
            trainer.save_checkpoint(self._in_epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._in_epoch is None:
            trainer.save_checkpoint(last_checkpoint(trainer))
        elif trainer.is_global_zero:  # only now: the end of the epoch wrote its own last.ckpt
            self._in_epoch.replace(last_checkpoint(trainer))
        self._in_epoch = None
