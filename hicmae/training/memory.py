"""When a training step does not fit the device's memory: the largest batch that does, and what else would help."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from hicmae import distributed
from hicmae.data.batch import ClipBatch
from hicmae.largest_batch import largest_that_fits
from hicmae.speed import SpeedConfig, eagerly

logger = logging.getLogger(__name__)


class MemoryAdvice(Callback):
    """Makes an error of what a device without memory left says, that names the largest batch and the remedies.

    Nothing is tried again with less: another batch is another recipe, and the user's to choose. The rank that ran out
    searches by itself, without any collective, and then fails; the launcher ends the others as after any error.
    """

    def __init__(self) -> None:
        self._batch: ClipBatch | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: ClipBatch, batch_idx: int
    ) -> None:
        self._batch = batch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        self._batch = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        batch, self._batch = self._batch, None
        if batch is None or not isinstance(exception, torch.OutOfMemoryError):
            return
        # What follows takes the place of the allocator's account; callbacks that come later and the trainer see it.
        exception.args = (_advice(trainer, pl_module, batch, exception),)


def _advice(trainer: Trainer, module: LightningModule, batch: ClipBatch, error: BaseException) -> str:
    data = trainer.datamodule  # type: ignore[attr-defined]
    asked = getattr(data, "batch_size", len(batch))
    part: int | None = getattr(module, "micro_batch_size", None)
    unit, tried = "data.batch_size", asked
    if part is not None and part < asked:
        unit, tried = "model.micro_batch_size", part
    found = None
    # Weights that are shared out over ranks cannot be used without the others.
    if type(trainer.strategy) in (SingleDeviceStrategy, DDPStrategy):
        logger.warning("out of memory with %s=%d: looking for the largest that fits", unit, tried)
        found = _search(trainer, module, batch, tried, error)
    remedies = []
    views: int = getattr(data, "views_per_clip", 1)
    if unit != "data.batch_size":
        if found:
            remedies.append(f"set {unit}={found}")
    elif found is None:
        remedies.append("set a smaller data.batch_size")
    elif whole_clips := found // views * views:
        remedies.append(f"set data.batch_size={whole_clips}")
    if unit == "data.batch_size" and asked > 1 and found != 0:
        smaller = found or asked // 2
        why_not_in_parts: Callable[[], str | None] | None = getattr(module, "why_not_in_parts", None)
        if why_not_in_parts is None:
            times = -(-asked // smaller)
            remedies.append(
                f"keep the clips of a step with data.batch_size={asked // times or 1} and "
                f"trainer.accumulate_grad_batches={times * trainer.accumulate_grad_batches}"
            )
        elif why_not_in_parts() is None:
            remedies.append(f"keep the batch and set model.micro_batch_size={smaller}, which changes no result")
    if getattr(module, "speed", SpeedConfig()).recompute != "blocks":
        remedies.append("set model.speed.recompute=blocks, which trades memory for a third more arithmetic")
    if found == 0:
        remedies.append("take a smaller model.preset or a device with more memory")
    first = str(error).partition("\n")[0]
    largest = "" if found is None else f"; the largest that fits is {found}" if found else "; not even 1 fits"
    return (
        f"out of memory on {_name(module.device)} in a step with {unit}={tried}{largest}. "
        f"Nothing was changed and nothing tried again: {', or '.join(remedies)}. ({first})"
    )


def _name(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    gigabytes = torch.cuda.get_device_properties(device).total_memory / 1e9
    return f"{torch.cuda.get_device_name(device)} ({gigabytes:.0f} GB)"


def _search(trainer: Trainer, module: LightningModule, batch: ClipBatch, asked: int, error: BaseException) -> int:
    traceback.clear_frames(error.__traceback__)  # they hold the activations of the step that failed
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.grad = None
    # AdamW makes its two moments at the first step; a batch that leaves no room for them does not fit.
    ready = {parameter for optimizer in trainer.optimizers for parameter, state in optimizer.state.items() if state}
    without_moments = [parameter for parameter in parameters if parameter not in ready]
    reserved: list[torch.Tensor] = []

    def fits(clips: int) -> bool:
        try:
            _try_step(trainer, module, batch.first(clips), parameters)
        except torch.OutOfMemoryError as failure:
            traceback.clear_frames(failure.__traceback__)
            return False
        finally:
            _empty_cache(module.device)
        return True

    gc.collect()
    _empty_cache(module.device)
    try:
        reserved += [torch.zeros_like(parameter) for parameter in without_moments * 2]
        # Uncompiled, for every size would be compiled anew; the graphs need less memory, not more.
        with distributed.alone(), eagerly():
            return largest_that_fits(fits, asked)
    except torch.OutOfMemoryError:
        return 0  # not even the moments fit
    finally:
        del reserved


def _try_step(
    trainer: Trainer, module: LightningModule, batch: ClipBatch, parameters: list[torch.nn.Parameter]
) -> None:
    """Forward and backward pass of a batch whose gradients go nowhere: DDP's hooks, which would wait for others, hang
    on gradients that are accumulated."""
    with trainer.precision_plugin.train_step_context():
        losses: Any = module.training_step(batch, 0)
    torch.autograd.grad(losses["loss"], parameters, allow_unused=True)


def _empty_cache(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
