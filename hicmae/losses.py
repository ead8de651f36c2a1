"""Losses of pre-training and fine-tuning: pure functions, computed in float32 whatever autocast says.

Shapes: B clips, M masked tokens, P values per token, C classes, K dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Literal, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hicmae import distributed
from hicmae.config import ModelConfig

Negatives = Literal["local", "global"]


P = ParamSpec("P")
R = TypeVar("R")


def _device_type(arguments: Iterable[object]) -> str:
    """Where the first tensor lives, looking into lists and tuples too."""
    for argument in arguments:
        if isinstance(argument, Tensor):
            return argument.device.type
        if isinstance(argument, list | tuple) and argument:
            return _device_type(argument)
    raise TypeError("a loss needs a tensor or a list of tensors")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function outside autocast; it casts its own inputs to float32."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast(device_type=_device_type([*args, *kwargs.values()]), enabled=False):
            return function(*args, **kwargs)

    return wrapper


# ---------------------------------------------------------------- masked reconstruction


def _standardize(patches: Tensor) -> Tensor:
    """Zero mean and unit variance over axis -2 (unbiased variance; 1e-6 is added to the deviation)."""
    # On a processor Tensor.var takes ten times as long as these; squares of what is centred lose no digits either.
    centred = patches - patches.mean(dim=-2, keepdim=True)
    variance = centred.square().sum(dim=-2, keepdim=True) / (patches.shape[-2] - 1)
    return centred.div_(variance.sqrt_().add_(1e-6))


@torch.no_grad()
@full_precision
def video_target(patches: Tensor, config: ModelConfig, *, frame_difference: bool = True) -> Tensor:
    """What the video decoder has to predict (paper, section 3.1).

    Each tubelet is standardised per colour channel over its frames and pixels; then every frame of a tubelet but the
    first is replaced by its difference to the frame before.

    Args:
        patches: (B, M, P) pixels on the scale 0..1, flattened as (frame, row, column, channel).
        frame_difference: predict changes between the frames of a tubelet rather than the frames.

    Returns:
        float32 (B, M, P), without gradient.
    """
    pixels = _standardize(patches.float().unflatten(-1, (-1, 3))).flatten(-2)
    if frame_difference:
        frames = pixels.unflatten(-1, (config.tubelet_size, -1))
        for frame in reversed(range(1, config.tubelet_size)):  # the last first: each still finds the frame before
            frames[..., frame, :].sub_(frames[..., frame - 1, :])
    return pixels


@torch.no_grad()
@full_precision
def audio_target(patches: Tensor) -> Tensor:
    """What the audio decoder has to predict: each patch standardised. (B, M, P) -> float32 (B, M, P), no gradient."""
    return _standardize(patches.float().unsqueeze(-1)).squeeze(-1)


@full_precision
def masked_mse(prediction: Tensor, target: Tensor, present: Tensor | None = None) -> Tensor:
    """Mean squared error of the masked tokens (paper, equation 8).

    Args:
        prediction: (B, M, P).
        target: (B, M, P).
        present: bool (B,), clips that have this modality; the others do not count. ``None``: all do.

    Returns:
        float32 scalar; 0 where no clip has the modality.
    """
    error = F.mse_loss(prediction.float(), target.float(), reduction="none")
    if present is None:
        return error.mean()
    weight = present.float()
    return (error.flatten(1).mean(dim=1) * weight).sum() / weight.sum().clamp(min=1)


# ---------------------------------------------------------------- cross-modal contrast


@full_precision
def contrastive(
    video: Sequence[Tensor],
    audio: Sequence[Tensor],
    *,
    temperature: float = 0.07,
    negatives: Negatives = "local",
    present: Tensor | None = None,
    clip_of: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Symmetric InfoNCE between the modalities at every tap, summed over taps (paper, equations 9-11).

    Args:
        video, audio: for each tap, (B, D) mean-pooled features, not normalised.
        temperature: divisor of the cosine similarities.
        negatives: ``local``: the other clips of this rank's batch (the paper's); ``global``: those of all ranks,
            collected with one gather for all taps.
        present: bool (B,), clips that have both modalities. The others are neither anchors nor negatives.
        clip_of: int64 (B,), rows that show the same clip have the same number: they are no negatives of one another.
            Numbers count within a rank alone. ``None``: each row is another clip.

    Returns:
        The loss, float32 scalar, and for each tap the video-to-audio logits, float32 (B, B) or (B, R * B).
    """
    mine = F.normalize(
        torch.stack([torch.stack(list(video)), torch.stack(list(audio))]).float(), dim=-1
    )  # (2, L, B, D)
    batch = mine.shape[2]
    keep = torch.ones(batch, device=mine.device) if present is None else present.float()
    everyone, keep_everyone, offset = mine, keep, 0
    if negatives == "global" and distributed.world_size() > 1:
        everyone = distributed.gather(mine).permute(1, 2, 0, 3, 4).flatten(2, 3)  # (2, L, R * B, D)
        keep_everyone = distributed.gather(keep).flatten()
        offset = torch.distributed.get_rank() * batch
    own = torch.arange(batch, device=mine.device) + offset
    absent = torch.zeros(batch, everyone.shape[2], device=mine.device)
    absent = absent.masked_fill(keep_everyone[None, :] == 0, float("-inf"))
    if clip_of is not None:  # a rank's batch holds all views of its clips, so there is nothing to gather
        same_clip = clip_of[:, None] == clip_of[None, :]
        rest = everyone.shape[2] - offset - batch
        absent = absent.masked_fill(F.pad(same_clip, (offset, rest)), float("-inf"))
    absent = absent.scatter(1, own[:, None], 0.0)  # a clip stays its own candidate, so that no row is empty
    # A rank's mean runs over its own anchors; with global negatives ranks hold equal shares of the joint mean.
    share = keep / keep.sum().clamp(min=1)
    if negatives == "global" and distributed.world_size() > 1:
        share = keep * distributed.world_size() / keep_everyone.sum().clamp(min=1)
    loss = mine.new_zeros(())
    all_logits: list[Tensor] = []
    for tap in range(mine.shape[1]):
        to_audio = mine[0, tap] @ everyone[1, tap].T / temperature + absent
        to_video = mine[1, tap] @ everyone[0, tap].T / temperature + absent
        both = F.cross_entropy(to_audio, own, reduction="none") + F.cross_entropy(to_video, own, reduction="none")
        loss = loss + (both * share).sum() / 2
        all_logits.append(to_audio)
    return loss, all_logits


# ---------------------------------------------------------------- recognition


@full_precision
def soft_cross_entropy(
    logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, weight: Tensor | None = None
) -> Tensor:
    """Cross-entropy with class numbers or with class shares (mixup).

    Always the mean over the B clips, weighted or not, so that mixed and unmixed batches, and ranks with different
    classes, count alike. (PyTorch divides by the sum of the targets' weights, but only where targets are numbers.)

    Args:
        logits: (B, C).
        target: int64 (B,) or float (B, C) whose rows sum to 1.
        label_smoothing: share of every target spread evenly over all classes, 0..1.
        weight: float (C,), factor of each class's term, or ``None``; weights that average 1 over the training clips
            (``balanced_weights``) keep the loss's size.
    """
    if weight is not None and not target.is_floating_point():
        target = F.one_hot(target, logits.shape[1]).float()
    return F.cross_entropy(logits.float(), target, weight=weight, label_smoothing=label_smoothing)


@full_precision
def distillation_divergence(logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """How far a student's class probabilities are from its teacher's: Kullback-Leibler divergence of the student from
    the teacher, both at a temperature, mean over the B clips (Hinton et al., 2015, section 2).

    Times ``temperature ** 2``, by which the size of the gradients does not depend on the temperature (to first order).

    Args:
        logits: (B, C) of the student.
        teacher_logits: (B, C) in the same order; gets no gradient.
        temperature: divides both; above 0.
    """
    student = F.log_softmax(logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def balanced_weights(counts: Sequence[int]) -> Tensor:
    """Class weights by which all classes count alike: inversely proportional to their clips, 1 on average over all
    clips. A class without any gets 1.

    Args:
        counts: training clips of each of the C classes.

    Returns:
        float32 (C,).

    Raises:
        ValueError: no clips at all.
    """
    present = sum(1 for count in counts if count)
    if not present:
        raise ValueError("no training clips to balance class weights by")
    return torch.tensor([sum(counts) / (present * count) if count else 1.0 for count in counts])


def _moments(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Means, variances and covariance over the batch, each (K,)."""
    mean_p, mean_t = prediction.mean(dim=0), target.mean(dim=0)
    centred_p, centred_t = prediction - mean_p, target - mean_t
    return (mean_p, mean_t, centred_p.square().mean(dim=0), centred_t.square().mean(dim=0),
            (centred_p * centred_t).mean(dim=0))  # fmt: skip


@full_precision
def ccc_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - concordance correlation coefficient over the batch, mean over dimensions (Lin, 1989). (B, K) each."""
    mean_p, mean_t, var_p, var_t, covariance = _moments(prediction.float(), target.float())
    ccc = 2 * covariance / (var_p + var_t + (mean_p - mean_t).square() + 1e-8)
    return (1 - ccc).mean()


@full_precision
def pcc_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - Pearson correlation coefficient over the batch, mean over dimensions. (B, K) each."""
    _, _, var_p, var_t, covariance = _moments(prediction.float(), target.float())
    return (1 - covariance / (var_p * var_t + 1e-12).sqrt()).mean()


@full_precision
def mse_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error. (B, K) each."""
    return F.mse_loss(prediction.float(), target.float())


@full_precision
def l1_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error. (B, K) each."""
    return F.l1_loss(prediction.float(), target.float())


@full_precision
def smooth_l1_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error below a difference of 1, absolute above. (B, K) each."""
    return F.smooth_l1_loss(prediction.float(), target.float())


DIMENSIONAL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse_loss,
    "ccc": ccc_loss,
    "pcc": pcc_loss,
    "l1": l1_loss,
    "smooth_l1": smooth_l1_loss,
}


def dimensional_loss(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of continuous targets by name."""
    if name not in DIMENSIONAL_LOSSES:
        raise ValueError(f"unknown dimensional loss {name!r}; choose one of {', '.join(DIMENSIONAL_LOSSES)}")
    return DIMENSIONAL_LOSSES[name]
