"""Going on with another joint batch: the trainer's count of batches, and the schedule, in the new unit."""

from __future__ import annotations

import logging
import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from hicmae.data.plan import joint_batch_of, resumed_cut

logger = logging.getLogger(__name__)


class EpochLength(Callback):
    """Keeps a run right that goes on with other numbers of ranks, clips a batch or accumulated batches.

    The rest of the epoch is cut into the new joint batches (``plan.resumed_cut``), numbered so that the last one has
    the number that the last one of an epoch always has. The trainer's count within the epoch is moved there, so the
    epoch ends when the stream does, and those after it have the new length.

    The schedule follows the epochs: it goes on at the step at which a run that always had the new size would be at
    this place, and ends when the last epoch does. Learning rates scale with the clips of a step, as they do at the
    start of a run. A run without ``max_epochs`` has a schedule in steps, which goes on where it was. ``global_step``
    counts on either way.

    The data module says ``loader`` (``LoaderSettings``) and ``batches_per_epoch``.
    """

    def __init__(self) -> None:
        self._size: dict[str, int] = {}
        self._saved: dict[str, int] = {}
        self._epoch = self._batch = 0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Move the count of batches within the epoch, before the trainer reads it."""
        loop = checkpoint.get("loops", {}).get("fit_loop", {})
        streams = loop.get("state_dict", {}).get("combined_loader", [])
        if trainer.state.fn != TrainerFn.FITTING or not streams or "windows_per_clip" not in streams[0]:
            return  # nothing to go on from; of an older version's stream, the stream itself says so
        state, progress = streams[0], loop["epoch_loop.batch_progress"]
        joint_batch = trainer.datamodule.loader.joint_batch  # type: ignore[attr-defined]
        cut = resumed_cut(state, joint_batch=joint_batch)
        self._epoch, self._batch = state["epoch"], cut.batch * state["windows_per_clip"] + cut.window
        if joint_batch != joint_batch_of(state) and progress["current"]["ready"] == state["batch"]:
            for name in progress["current"]:
                progress["current"][name] += self._batch - state["batch"]
            batches = state["epoch_clips"] // joint_batch * state["windows_per_clip"]
            progress["is_last_batch"] = self._batch == batches

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._size = {
            "clips_per_step": data.loader.joint_batch * trainer.accumulate_grad_batches,
            "steps_per_epoch": math.ceil(data.batches_per_epoch / trainer.accumulate_grad_batches),
        }
        if self._saved and self._saved != self._size:
            self._move_schedule(trainer)
        self._saved = {}

    def _move_schedule(self, trainer: Trainer) -> None:
        ratio = self._size["clips_per_step"] / self._saved["clips_per_step"]
        for config in trainer.lr_scheduler_configs:
            schedule: Any = config.scheduler
            schedule.base_lrs = [lr * ratio for lr in schedule.base_lrs]
            for group in schedule.optimizer.param_groups:
                group["initial_lr"] *= ratio
            if trainer.max_epochs is not None and trainer.max_epochs > 0:
                done = math.ceil(self._batch / trainer.accumulate_grad_batches)
                schedule.last_epoch = self._epoch * self._size["steps_per_epoch"] + done
            schedule.last_epoch -= 1
            schedule.step()  # sets the rates of that step
            if trainer.is_global_zero:
                logger.warning(
                    "a step has %d clips now, and an epoch %d steps; the saved run had %d and %d: the schedule goes on "
                    "at step %d of the new size, with a learning rate of %.3g",
                    *self._size.values(), *self._saved.values(), schedule.last_epoch, max(schedule.get_last_lr()),
                )  # fmt: skip

    def state_dict(self) -> dict[str, int]:
        return dict(self._size)

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._saved = dict(state_dict)
