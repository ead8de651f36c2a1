"""What attention is like, in two numbers a layer: how evenly it is divided, and how far it reaches.

Shapes: B clips, H heads, N tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def attention_entropy(weights: Tensor) -> float:
    """Mean entropy of the rows of attention matrices, as a share of the most there can be: float (B, H, N, N).

    1 where every token attends to all alike, 0 where each attends to one alone.
    """
    entropy = -torch.special.xlogy(weights, weights).sum(dim=-1)
    return float(entropy.mean()) / math.log(weights.shape[-1])


def attention_distance(weights: Tensor, grid: Sequence[int]) -> float:
    """How far tokens look on average: distance on their grid, in tokens, weighted by attention.

    Raghu et al., 2021, section 3, there in pixels and by head.

    Args:
        weights: float (B, H, N, N), rows sum to 1.
        grid: tokens along each axis, which N is the product of: ``config.video_grid``, ``config.audio_grid``.
    """
    between = _between(grid).to(weights.device)
    return float((weights * between).sum(dim=-1).mean())


def distance_of_even_attention(grid: Sequence[int]) -> float:
    """``attention_distance`` where every token attends to all alike."""
    return float(_between(grid).mean())


def _between(grid: Sequence[int]) -> Tensor:
    """Euclidean distance of every token to every other, (N, N), float32."""
    places = torch.cartesian_prod(*(torch.arange(float(size)) for size in grid)).reshape(-1, len(grid))
    return torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")
