"""The loss of masked sequences. Shapes: B windows, L steps, K targets."""

from __future__ import annotations

from torch import Tensor

from hicmae.losses import full_precision


@full_precision
def masked_ccc_loss(values: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
    """1 - CCC (Lin, 1989) over the labelled steps of the batch, mean over the targets that have any.

    The steps of all windows are taken together, as the score does with the frames of all videos. (Zhang et al. take
    every window for itself, where a window of one mood, with hardly any variance, weighs as much as any other.)

    Args:
        values, target: float (B, L, K); what stands at unlabelled steps does not matter.
        labelled: bool (B, L, K).

    Returns:
        float32 scalar; 0 without a labelled step.
    """
    weight = labelled.float()
    count = weight.sum(dim=(0, 1))  # (K,)
    x = values.float().masked_fill(~labelled, 0.0)
    y = target.float().masked_fill(~labelled, 0.0)
    steps = count.clamp(min=1)
    mean_x, mean_y = x.sum(dim=(0, 1)) / steps, y.sum(dim=(0, 1)) / steps
    x, y = (x - mean_x) * weight, (y - mean_y) * weight
    var_x, var_y, covariance = (part.sum(dim=(0, 1)) / steps for part in (x.square(), y.square(), x * y))
    ccc = 2 * covariance / (var_x + var_y + (mean_x - mean_y).square() + 1e-8)
    there = (count > 0).float()
    return ((1 - ccc) * there).sum() / there.sum().clamp(min=1)
