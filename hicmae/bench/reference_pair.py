"""Our training step beside the authors' on the same batch, from the same weights; refused where their losses differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hicmae.backbone import Backbone
from hicmae.bench.batches import CLASSES, LABEL_SMOOTHING, PretrainingBatch, RecognitionBatch
from hicmae.bench.reference import Reference
from hicmae.config import ModelConfig
from hicmae.heads import categorical
from hicmae.pretraining import HiCMAE
from hicmae.recognition import EmotionRecognizer
from hicmae.training.optim import OptimizerConfig, build_optimizer

LOSS_TOLERANCE = 1e-4
"""By how much the first losses may differ, relative to the larger, in float32."""


class Step(Protocol):
    """One training step on one batch; each call returns the loss before it."""

    def whole(self) -> Tensor | float:
        """Clear gradients, forward, backward, optimiser."""

    def forward_backward(self, *, keep_gradients: bool = False, full_precision: bool = False) -> Tensor | float:
        """Forward and backward alone; gradients are added to those that are there with ``keep_gradients``."""


class OurStep:
    """One training step of ours on one batch.

    Args:
        model: what is trained.
        loss: the loss of ``model`` on the batch.
        recipe: settings of AdamW.
        clips: size of the batch.
        dtype: computed in it under autocast; float32: none.
    """

    def __init__(
        self,
        *,
        model: HiCMAE | EmotionRecognizer,
        loss: Callable[[], Tensor],
        recipe: OptimizerConfig,
        clips: int,
        dtype: torch.dtype,
    ) -> None:
        self.model = model.train()
        self._loss = loss
        self._dtype = dtype
        self._device_type = next(model.parameters()).device.type
        config = model.config
        self._optimizer, self._schedule = build_optimizer(
            model,
            recipe,
            global_batch=clips,
            steps_per_epoch=1000,
            epochs=100,
            depth=config.depth,
            fusion_depth=config.fusion_depth,
        )

    def whole(self) -> Tensor:
        """The whole step, weights changed; the loss stays on the device."""
        loss = self.forward_backward()
        self._optimizer.step()
        self._schedule.step()
        return loss

    __call__ = whole

    def forward_backward(self, *, keep_gradients: bool = False, full_precision: bool = False) -> Tensor:
        """Forward and backward alone.

        Args:
            keep_gradients: add to the gradients that are there instead of clearing them first.
            full_precision: without autocast.
        """
        if not keep_gradients:
            self.model.zero_grad(set_to_none=True)
        enabled = self._dtype != torch.float32 and not full_precision
        with torch.autocast(self._device_type, self._dtype, enabled=enabled):
            loss = self._loss()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Ours and theirs on the same batch."""

    ours: Step
    theirs: Step
    losses: tuple[float, float]
    """Of both on the batch before any step, in float32."""


def our_pretraining(config: ModelConfig, device: torch.device, *, seed: int = 0) -> HiCMAE:
    """A model of pre-training with random weights."""
    torch.manual_seed(seed)
    return HiCMAE(config).to(device)


def our_recognizer(config: ModelConfig, device: torch.device, *, seed: int = 0) -> EmotionRecognizer:
    """A recogniser of classes with random weights, its head not shrunk: its loss then depends on all of them."""
    torch.manual_seed(seed)
    return EmotionRecognizer(Backbone(config), categorical(CLASSES)).to(device)


def our_pretraining_step(model: HiCMAE, batch: PretrainingBatch, *, dtype: torch.dtype) -> OurStep:
    """Our step of pre-training; ``dtype`` as in ``OurStep``."""

    def loss() -> Tensor:
        return model(batch.video, batch.log_mel, batch.video_visible, batch.audio_visible).loss  # type: ignore[no-any-return]

    return OurStep(model=model, loss=loss, recipe=batch.RECIPE, clips=len(batch.video), dtype=dtype)


def our_finetuning_step(model: EmotionRecognizer, batch: RecognitionBatch, *, dtype: torch.dtype) -> OurStep:
    """Our step of fine-tuning; ``dtype`` as in ``OurStep``."""

    def loss() -> Tensor:
        return F.cross_entropy(
            model(batch.video, batch.log_mel).logits.float(), batch.labels, label_smoothing=LABEL_SMOOTHING
        )

    return OurStep(model=model, loss=loss, recipe=batch.RECIPE, clips=len(batch.labels), dtype=dtype)


def pretraining_pair(
    reference: Reference, clips: int, *, prepare: Callable[[nn.Module], None] | None = None, seed: int = 0
) -> Pair:
    """Pre-training, ours beside theirs: on a GPU ours in bfloat16 and theirs in float16, as they do.

    Args:
        reference: the authors' code.
        clips: size of the batch.
        prepare: done to our model before its first step, such as compiling it.
        seed: of weights and batch.

    Raises:
        ValueError: the first losses differ, so that the two steps do not do the same; or as
            ``Reference.pretraining_step``.
    """
    config, device = reference.config, reference.device
    batch = PretrainingBatch.random(config, clips, device, seed=seed)
    model = our_pretraining(config, device, seed=seed)
    theirs = reference.pretraining_step(model, batch)
    return _pair(our_pretraining_step(model, batch, dtype=_dtype(device)), theirs, model, prepare)


def finetuning_pair(
    reference: Reference, clips: int, *, prepare: Callable[[nn.Module], None] | None = None, seed: int = 0
) -> Pair:
    """Fine-tuning, ours beside theirs, without mixup and stochastic depth; arguments and errors as above."""
    config, device = reference.config, reference.device
    batch = RecognitionBatch.random(config, clips, device, seed=seed)
    model = our_recognizer(config, device, seed=seed)
    theirs = reference.finetuning_step(model, batch)
    return _pair(our_finetuning_step(model, batch, dtype=_dtype(device)), theirs, model, prepare)


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _pair(ours: Step, theirs: Step, model: nn.Module, prepare: Callable[[nn.Module], None] | None) -> Pair:
    if prepare is not None:
        prepare(model)
    losses = tuple(float(step.forward_backward(full_precision=True)) for step in (ours, theirs))
    if not abs(losses[0] - losses[1]) <= LOSS_TOLERANCE * max(map(abs, losses)):
        raise ValueError(
            f"the first losses differ, so the two do not compute the same: ours is {losses[0]:.6f}, the checkout's "
            f"{losses[1]:.6f} with the same weights and batch (allowed: {LOSS_TOLERANCE:g} of it). The checkout may "
            "have been changed, or be of a version with another objective"
        )
    return Pair(ours=ours, theirs=theirs, losses=(losses[0], losses[1]))
