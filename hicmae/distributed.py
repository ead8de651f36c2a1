"""The one collective that the model itself needs: a gather that gradients pass through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_alone = False


def world_size() -> int:
    """Processes of the running job; 1 outside a distributed job, and within ``alone()``."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _alone else 1


@contextmanager
def alone() -> Iterator[None]:
    """Within it this process works as if there were no others: what only one of them does waits for nobody."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        pieces = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(pieces, local.contiguous())
        return torch.stack(pieces)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Every rank's loss depends on this rank's features: sum their gradients, each rank those of its own features.
        own = gradient.new_empty(gradient[0].numel())  # flat, because gloo compares the first axes
        dist.reduce_scatter_tensor(own, gradient.flatten())
        return own.view_as(gradient[0])


def gather(local: Tensor) -> Tensor:
    """Stack the same-shaped tensor of every rank: (...) -> (R, ...), in rank order, with gradient.

    The gradient that comes back is the *sum* over ranks; data-parallel training then averages parameter gradients,
    which together is the gradient of the mean of the ranks' losses.
    """
    return local.unsqueeze(0) if world_size() == 1 else _Gather.apply(local)
