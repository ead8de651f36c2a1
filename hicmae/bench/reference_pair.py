"""Our training step beside the authors' on the same batch, from the same weights; refused where their losses differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hicmae.backbone import Backbone
from hicmae.bench.batch import CLASSES, SyntheticBatch
from hicmae.bench.reference import LABEL_SMOOTHING, Reference, ReferenceSteps
from hicmae.bench.settings import BenchSettings
from hicmae.bench.steps import FINETUNING, TrainingSteps
from hicmae.heads import categorical
from hicmae.losses import soft_cross_entropy
from hicmae.pretraining import HiCMAE
from hicmae.recognition import EmotionRecognizer
from hicmae.training.optim import OptimizerConfig

LOSS_TOLERANCE = 1e-4
"""By how much the first losses may differ, relative to the larger, in float32."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Ours and theirs on the same batch."""

    ours: TrainingSteps
    theirs: ReferenceSteps
    losses: tuple[float, float]
    """Ours and theirs before any step, in float32."""


def pretraining_pair(reference: Reference, settings: BenchSettings, batch: SyntheticBatch, *, seed: int = 0) -> Pair:
    """Pre-training, ours beside theirs; on a GPU theirs in float16, as their step does.

    Args:
        reference: the authors' code, of the preset and on the device of ``settings``.
        settings: precision, compilation and so on of our step.
        batch: for both.
        seed: of the weights.

    Raises:
        ValueError: the first losses differ, so that the two steps do not do the same; or as
            ``Reference.pretraining_steps``.
    """
    torch.manual_seed(seed)
    model = HiCMAE(settings.config).to(settings.torch_device).train()

    def loss() -> Tensor:
        value: Tensor = model(batch.video, batch.log_mel, batch.video_visible, batch.audio_visible).loss
        return value

    return _pair(model, loss, reference.pretraining_steps(model, batch), OptimizerConfig(), settings)


def finetuning_pair(reference: Reference, settings: BenchSettings, batch: SyntheticBatch, *, seed: int = 0) -> Pair:
    """Fine-tuning, ours beside theirs, without mixup and stochastic depth; arguments and errors as above.

    The head's weights are not shrunk as the paper's are at the start: the loss would hardly depend on the rest then.
    """
    torch.manual_seed(seed)
    model = EmotionRecognizer(Backbone(settings.config), categorical(CLASSES)).to(settings.torch_device).train()

    def loss() -> Tensor:
        return soft_cross_entropy(
            model(batch.video, batch.log_mel).logits, batch.labels, label_smoothing=LABEL_SMOOTHING
        )  # fmt: skip

    return _pair(model, loss, reference.finetuning_steps(model, batch), FINETUNING, settings)


def _pair(
    model: Any, loss: Callable[[], Tensor], theirs: ReferenceSteps, recipe: OptimizerConfig, settings: BenchSettings
) -> Pair:
    with torch.no_grad():
        own = float(loss())
    other = theirs.full_precision_loss()
    if not abs(own - other) <= LOSS_TOLERANCE * max(abs(own), abs(other)):
        raise ValueError(
            f"the first losses differ, so the two steps do not do the same: ours is {own:.6f}, the checkout's "
            f"{other:.6f} with the same weights and batch (allowed: {LOSS_TOLERANCE:g} of it). The checkout may have "
            "been changed, or be of a version with another objective"
        )
    depths = dict(depth=model.config.depth, fusion_depth=model.config.fusion_depth)
    return Pair(
        ours=TrainingSteps(model, loss, recipe, settings, **depths), theirs=theirs, losses=(own, other)
    )  # fmt: skip
