"""Stochastic depth (Huang et al., 2016): in training, some clips skip a residual branch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Sets a residual branch of some clips to 0 while training, and scales up the others: (B, N, D) -> (B, N, D).

    The chance is held as a tensor, not a number: layers that differ in it alone then share one compiled graph.

    Args:
        p: chance that a clip skips the branch; may be set later (0: none does).
    """

    kept: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.register_buffer("kept", torch.tensor(0.0), persistent=False)
        self.p = p

    @property
    def p(self) -> float:
        """Chance that a clip skips the branch."""
        return self._p

    @p.setter
    def p(self, value: float) -> None:
        if not 0 <= value < 1:
            raise ValueError(f"drop_path={value} must be at least 0 and below 1")
        self._p = value
        self.kept.fill_(1 - value)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        drawn = torch.bernoulli(self.kept.expand(len(x), *(1 for _ in x.shape[1:])))
        return x * (drawn / self.kept).to(x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}"
