"""Which tokens the encoders see: tube masks for video, random masks for audio (paper, section 3.1).

Masks are ascending integer indices of the *visible* tokens: no boolean indexing, hence no wait for the device.
They are drawn in the data workers from a generator that belongs to the clip, so a resumed run repeats them.

Shapes: B clips, N tokens, V visible tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def visible_count(tokens: int, ratio: float) -> int:
    """Tokens left visible when ``int(ratio * tokens)`` are masked; at least one of each kind must remain."""
    visible = tokens - int(ratio * tokens)
    if not 0 < visible < tokens:
        raise ValueError(
            f"mask ratio {ratio} leaves {visible} of {tokens} tokens visible; choose a ratio that masks at least one "
            "token and leaves at least one"
        )
    return visible


def random_mask(rng: np.random.Generator, tokens: int, ratio: float) -> NDArray[np.int64]:
    """Visible tokens of a random mask.

    Args:
        rng: the clip's generator.
        tokens: number of tokens N.
        ratio: share of tokens to mask, 0..1; ``int(ratio * N)`` are masked (paper: 0.8 for audio).

    Returns:
        int64 (V,), ascending.
    """
    chosen = rng.permutation(tokens)[: visible_count(tokens, ratio)]
    return np.sort(chosen).astype(np.int64)


def tube_mask(rng: np.random.Generator, grid: tuple[int, int, int], ratio: float) -> NDArray[np.int64]:
    """Visible tokens of a tube mask: one random spatial mask, repeated in every time slot (paper: 0.9 for video).

    Args:
        rng: the clip's generator.
        grid: tokens as (time, rows, columns).
        ratio: share of spatial positions to mask, 0..1.

    Returns:
        int64 (V,), ascending over the flattened (time, row, column) index.
    """
    time, rows, columns = grid
    spatial = random_mask(rng, rows * columns, ratio)
    return (np.arange(time, dtype=np.int64)[:, None] * (rows * columns) + spatial).reshape(-1)


def complement(visible: Tensor, tokens: int) -> Tensor:
    """The masked tokens that belong to ``visible``: int64 (B, V) -> int64 (B, N - V), ascending."""
    masked = torch.ones(visible.shape[0], tokens, dtype=torch.uint8, device=visible.device)
    masked.scatter_(1, visible, 0)
    order = masked.argsort(dim=1, descending=True, stable=True)
    return order[:, : tokens - visible.shape[1]]


def take_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Select tokens: (B, N, D) at int64 (B, V) -> (B, V, D)."""
    # Whole rows of one long table: a gather would look up every value for itself, and take four times as long.
    clips, count = tokens.shape[:2]
    first = count * torch.arange(clips, device=index.device)
    return tokens.flatten(0, 1)[first[:, None] + index]
