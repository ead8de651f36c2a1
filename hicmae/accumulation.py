"""A batch in parts: losses and gradients of the whole batch, with the memory of a part.

Adding up the gradients of small batches is not the same: the contrast compares every clip with all others of its batch,
and a smaller batch has fewer of them. So the features that are contrasted are computed first, for the whole batch and
without gradient; the contrast of all of them says which way each has to move; then every part goes through the model
with gradients and is told that direction (GradCache: Gao et al., 2021, section 3.3).

The encoders run once more, which for the base model is 8% of a step's multiply-adds (24% of a forward pass, of which a
step has three).

Without contrast there is nothing to compute first.

Shapes: B clips, D width, L contrasted layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hicmae.pretraining import HiCMAE, PretrainInput, PretrainLosses


def losses_in_parts(model: HiCMAE, clips: PretrainInput, part_clips: int) -> PretrainLosses:
    """The losses of ``model(...)`` for the whole batch, computed part by part.

    ``backward`` on ``loss`` gives every parameter the gradient of the whole batch, once. All gradients are taken here
    already, of the loss as it is: whatever ``backward`` multiplies it by comes too late for float16.

    With global negatives all ranks must call this together.

    Args:
        model: has no randomness of its own, since the encoders run twice and must agree.
        clips: the whole batch.
        part_clips: clips that go through the model at a time; the last part may be smaller.

    Raises:
        ValueError: fewer than one clip at a time; or float16, in which gradients vanish that nothing has scaled.
    """
    device = clips.video.device.type
    if part_clips < 1:
        raise ValueError(f"{part_clips} clips at a time are too few; give 1 or more")
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16:
        raise ValueError("a batch in parts does not work in float16, whose gradients need scaling; use bfloat16")

    with torch.no_grad():
        parts = clips.parts(part_clips)
        if model.contrasts == "none":
            features = model.image_mean.new_zeros(2, 0, len(clips), model.config.width)
        else:
            features = torch.cat([model.features(part) for part in parts], dim=2)  # (2, L, B, D)
    contrastive_loss, pull = _contrast(model, features, clips)

    sums = _Sums(model)
    for part, part_pull in zip(parts, pull.split(part_clips, dim=2), strict=True):
        sums.add(part, part_pull, clips)

    loss = model.objective.total(sums.video_loss, sums.audio_loss, contrastive_loss)
    if torch.is_grad_enabled():
        loss = _KnownGradients.apply(loss, sums.gradients, *sums.parameters)
    return PretrainLosses(
        loss=loss, video_loss=sums.video_loss, audio_loss=sums.audio_loss, contrastive_loss=contrastive_loss
    )


def _contrast(model: HiCMAE, features: Tensor, clips: PretrainInput) -> tuple[Tensor, Tensor]:
    """The whole batch's contrastive loss and the gradient of its weighted value with respect to the features.

    The latter is zero where nobody asks for gradients, as in validation: inference mode could not take it.
    """
    wanted = torch.is_grad_enabled() and model.contrasts != "none"
    leaves = features.float().requires_grad_(wanted)
    loss, _ = model.contrast(leaves, clips)
    if not wanted:
        return loss, torch.zeros_like(leaves)
    (pull,) = torch.autograd.grad(model.objective.contrastive_weight * loss, leaves)
    return loss.detach(), pull


def _share(part: Tensor | None, whole: Tensor | None, size: float) -> Tensor | float:
    """Share of a part in the whole batch's mean: of the clips that have the modality, where some may not."""
    if part is None or whole is None:
        return size
    return part.sum() / whole.sum().clamp(min=1)


class _Sums:
    """Losses and gradients of the parts so far."""

    def __init__(self, model: HiCMAE) -> None:
        self.model = model
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.gradients: list[Tensor] = []
        self.video_loss = self.audio_loss = torch.zeros((), device=model.image_mean.device)

    def add(self, part: PretrainInput, pull: Tensor, whole: PretrainInput) -> None:
        """Send a part through the model; nothing of it is kept but its share of the losses and gradients."""
        found, size = self.model.reconstruct(part), len(part) / len(whole)
        video_loss = found.video_loss * _share(part.has_video, whole.has_video, size)
        audio_loss = found.audio_loss * _share(part.has_audio, whole.has_audio, size)
        self.video_loss = self.video_loss + video_loss.detach()
        self.audio_loss = self.audio_loss + audio_loss.detach()
        if not torch.is_grad_enabled():
            return
        # A number whose gradient with respect to the features is the contrast's.
        contrast = (found.prediction.features.float() * pull).sum()
        # Past the parameters' ``grad``: what waits for it there, such as the exchange between ranks, is to see the sum.
        gradients = list(torch.autograd.grad(video_loss + audio_loss + contrast, self.parameters))
        if self.gradients:
            torch._foreach_add_(self.gradients, gradients)
        else:
            self.gradients = gradients


class _KnownGradients(torch.autograd.Function):
    """A loss whose gradients with respect to the parameters have been taken before."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None  # given away, so that they are kept in one place
        if gradients is None:
            raise RuntimeError("the gradients of a batch in parts were handed on already; call backward once")
        torch._foreach_mul_(gradients, incoming)
        return None, None, *gradients
