"""The checkpoints that a run goes on from: when they are taken, and which place in the run they name."""

from __future__ import annotations

import copy
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from hicmae.data.batch import ClipBatch
from hicmae.training.checkpoint_io import TEMPORARY, CheckpointNotWrittenError, point_to
from hicmae.training.run_directory import checkpoint_directory, last_checkpoint, run_directory
from hicmae.training.status import StepStatus, StopRequestedError

logger = logging.getLogger(__name__)

_NAME = re.compile(r"step(\d{8,})\.ckpt")


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where the loops stood right after a batch that ended an optimiser step."""

    batch: int
    """Batches before that one, over all epochs."""
    loops: dict[str, Any]
    epochs: int
    """Epochs behind it, this batch's included if it was the last of one."""


class ResumePoints(Checkpoint):
    """Writes ``checkpoints/stepNNNNNNNN.ckpt`` and lets ``checkpoints/last.ckpt`` point to the newest.

    One is taken every so many optimiser steps or at the end of every epoch, one when training ends for any reason, and
    one after a SIGTERM or SIGUSR1.

    A point is taken *between* two batches, when everything that follows the first (optimiser step, validation, the end
    of the epoch, the choice of the best checkpoint) is done, and never within a window of accumulated gradients. It
    names the place right after that batch, from which Lightning goes on with the next one in every case. Lightning's
    own places do not all do that: in 2.6 a checkpoint of the end of an epoch adds a batch to it under ``max_steps``;
    one of an epoch that a limit ended early skips the rest of it; one taken after the last batch skips the validation.
    The place is put into what other callbacks save too.

    Args:
        every_n_train_steps: optimiser steps from one checkpoint to the next; empty: at the end of every epoch.
        keep: how many are kept, at least two: should the newest be damaged, there is the one before.
    """

    def __init__(self, every_n_train_steps: int | None = None, keep: int = 2) -> None:
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ValueError(f"checkpoint.every_n_train_steps={every_n_train_steps} must be at least 1, or empty")
        if keep < 2:
            raise ValueError(f"checkpoint.keep={keep} must be at least 2, so that there is one before the newest")
        self.every_n_train_steps = every_n_train_steps
        self.keep = keep
        self._place: _Place | None = None  # none within a window of accumulated gradients
        self._due = self._saving = self._stop_held = False
        self._steps_before = 0
        self._first_step = 0
        self._saved_steps: set[int] = set()

    # ------------------------------------------------------------ when

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            for path in checkpoint_directory(run_directory(trainer)).glob(TEMPORARY):
                path.unlink(missing_ok=True)  # of a process that was killed while it wrote
        own, of_first = trainer.ckpt_path, trainer.strategy.broadcast(trainer.ckpt_path)
        if own != of_first:
            raise RuntimeError(
                f"rank {trainer.global_rank} goes on from {own}, rank 0 from {of_first}: they see other files below "
                f"{run_directory(trainer)}. Give the checkpoint's path as --ckpt_path on all machines"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first_step, self._saved_steps = trainer.global_step, set()
        loop = trainer.fit_loop
        if loop.epoch_loop.restarted_on_train_batch_end and trainer.is_last_batch:
            # Lightning 2.6 has closed that epoch, but takes the next one for the rest of it: it would not count it as
            # begun, and what is saved within it could not be gone on from.
            loop.reset_restart_stage()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: ClipBatch, batch_idx: int
    ) -> None:
        if self._place is not None:
            stop = next(c for c in trainer.callbacks if isinstance(c, StepStatus)).stop_agreed  # type: ignore[attr-defined]
            if stop or self._due:
                self._save(trainer)
            if stop:
                path = last_checkpoint(trainer)
                logger.warning("stopped by a signal at step %d; saved %s; go on with --ckpt_path auto",
                               trainer.global_step, path)  # fmt: skip
                raise StopRequestedError(stop)
        self._steps_before = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        if trainer.global_step == self._steps_before:
            self._place = None
            if trainer.should_stop:  # a limit of time: it would throw the gradients of this window away
                trainer.should_stop, self._stop_held = False, True
            return
        if self._stop_held:
            trainer.should_stop, self._stop_held = True, False
        self._place = _Place(
            batch=trainer.fit_loop.total_batch_idx,
            loops=copy.deepcopy(trainer.fit_loop.state_dict()),
            epochs=trainer.current_epoch + int(trainer.is_last_batch),
        )
        if self.every_n_train_steps is None:
            self._due = trainer.is_last_batch
        else:
            self._due = trainer.global_step % self.every_n_train_steps == 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._place is not None and trainer.global_step not in self._saved_steps:
            self._save(trainer)
        self._place = None

    # ------------------------------------------------------------ what

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Name the place; also in what another callback saves before the next batch is fetched."""
        place = self._place
        if place is not None and (self._saving or place.batch == trainer.fit_loop.total_batch_idx):
            checkpoint["loops"]["fit_loop"] = place.loops
            checkpoint["epochs_done"] = place.epochs

    def _save(self, trainer: Trainer) -> None:
        """Save, point ``last.ckpt`` to it, drop older ones; all ranks fail together."""
        self._due = False
        path = checkpoint_directory(run_directory(trainer)) / f"step{trainer.global_step:08d}.ckpt"
        problem: str | None = None
        self._saving = True
        try:
            trainer.save_checkpoint(path)
        except CheckpointNotWrittenError as error:  # on rank 0; the others wait for it after their part of saving
            problem = str(error)
            trainer.strategy.barrier()
        finally:
            self._saving = False
        self._saved_steps.add(trainer.global_step)
        if trainer.is_global_zero and problem is None:
            try:
                point_to(last_checkpoint(trainer), path)
                self._drop_others(path)
            except OSError as error:
                problem = f"wrote {path}, but not {last_checkpoint(trainer)}: {error}"
        problem = trainer.strategy.broadcast(problem)
        if problem is not None:
            raise CheckpointNotWrittenError(problem)

    def _drop_others(self, newest: Path) -> None:
        """Drop all but the newest few. What lies after the step that this process went on from, and is not its own,
        goes first: it is damaged, or of a run that was gone back on."""
        steps = {int(match[1]): path for path in newest.parent.iterdir() if (match := _NAME.fullmatch(path.name))}
        valid = sorted(step for step in steps if step <= self._first_step or step in self._saved_steps)
        for step, path in steps.items():
            if step not in valid[-self.keep :]:
                path.unlink()
