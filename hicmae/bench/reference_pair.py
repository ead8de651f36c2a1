"""Our training step beside the authors' on the same batch, from the same weights; refused where their losses differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hicmae.backbone import Backbone
from hicmae.bench.batch import CLASSES, SyntheticBatch
from hicmae.bench.reference import LABEL_SMOOTHING, Reference, ReferenceSteps
from hicmae.bench.settings import BenchSettings
from hicmae.bench.steps import FINETUNING, TrainingSteps
from hicmae.config import ModelConfig
from hicmae.heads import categorical
from hicmae.losses import soft_cross_entropy
from hicmae.pretraining import HiCMAE
from hicmae.recognition import EmotionRecognizer
from hicmae.training.optim import OptimizerConfig

LOSS_TOLERANCE = 1e-4
"""By how much the first losses may differ, relative to the larger, in float32."""
Prepare = Callable[[nn.Module], None]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Ours and theirs on the same batch."""

    ours: TrainingSteps
    theirs: ReferenceSteps
    losses: tuple[float, float]
    """Ours and theirs before any step, in float32."""


def our_pretraining(config: ModelConfig, device: torch.device, *, seed: int = 0) -> HiCMAE:
    """A model of pre-training with random weights."""
    torch.manual_seed(seed)
    return HiCMAE(config).to(device).train()


def our_recognizer(config: ModelConfig, device: torch.device, *, seed: int = 0) -> EmotionRecognizer:
    """A recogniser of classes with random weights, without stochastic depth.

    The head's weights are not shrunk as the paper's are at the start: the loss would hardly depend on the rest then.
    """
    torch.manual_seed(seed)
    return EmotionRecognizer(Backbone(config), categorical(CLASSES)).to(device).train()


def pretraining_pair(reference: Reference, clips: int, *, prepare: Prepare | None = None, seed: int = 0) -> Pair:
    """Pre-training, ours beside theirs: on a GPU ours in bfloat16 and theirs in float16, as their step does.

    Args:
        reference: the authors' code.
        clips: size of the batch.
        prepare: done to our model before its first step, such as compiling it.
        seed: of weights and batch.

    Raises:
        ValueError: the first losses differ, so that the two steps do not do the same; or as
            ``Reference.pretraining_step``.
    """
    batch = SyntheticBatch.make(reference.config, clips, reference.device, seed=seed)
    model = our_pretraining(reference.config, reference.device, seed=seed)

    def loss() -> Tensor:
        value: Tensor = model(batch.video, batch.log_mel, batch.video_visible, batch.audio_visible).loss
        return value

    return _pair(reference, clips, model, loss, reference.pretraining_step(model, batch), OptimizerConfig(), prepare)


def finetuning_pair(reference: Reference, clips: int, *, prepare: Prepare | None = None, seed: int = 0) -> Pair:
    """Fine-tuning, ours beside theirs, without mixup and stochastic depth; arguments and errors as above."""
    batch = SyntheticBatch.make(reference.config, clips, reference.device, seed=seed)
    model = our_recognizer(reference.config, reference.device, seed=seed)

    def loss() -> Tensor:
        logits = model(batch.video, batch.log_mel).logits
        return soft_cross_entropy(logits, batch.labels, label_smoothing=LABEL_SMOOTHING)

    return _pair(reference, clips, model, loss, reference.finetuning_step(model, batch), FINETUNING, prepare)


def _pair(
    reference: Reference,
    clips: int,
    model: HiCMAE | EmotionRecognizer,
    loss: Callable[[], Tensor],
    theirs: ReferenceSteps,
    recipe: OptimizerConfig,
    prepare: Prepare | None,
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
    if prepare is not None:
        prepare(model)
    settings = BenchSettings(
        preset=reference.preset,
        batch=clips,
        device=str(reference.device),
        precision="bf16" if reference.device.type == "cuda" else "fp32",
        compile="off",  # ``prepare`` has done what was wanted
    )
    config = reference.config
    ours = TrainingSteps(model, loss, recipe, settings, depth=config.depth, fusion_depth=config.fusion_depth)
    return Pair(ours=ours, theirs=theirs, losses=(own, other))
