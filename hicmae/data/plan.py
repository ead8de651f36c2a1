"""Which clips each training batch of a worker holds, before any is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from hicmae.data.order import epoch_order, joint_batches


@dataclass(frozen=True, kw_only=True)
class PlannedBatch:
    """Which clips a training batch holds, before any is read."""

    epoch: int
    batch: int
    clips: NDArray[np.int64]
    """int64 (B,)"""
    joint: NDArray[np.int64]
    """int64 (batches, R, B): the clips of all ranks in this epoch."""


@dataclass(kw_only=True)
class PlanBatches:
    """First stage of training: this worker's batches of the epoch, from where the loader stands.

    ``position`` is a tensor in shared memory, int64 (2,): epoch and first batch. Persistent workers read there what
    the next pass is; it changes only between passes.
    """

    group_sizes: tuple[int, ...]
    seed: int
    shuffle_shards: int
    batch_size: int
    rank: int
    world_size: int
    position: Tensor

    def __call__(self) -> Iterator[PlannedBatch]:
        """Every W-th batch for one of W workers, so that the loader, which asks them in turn, gets all in order."""
        epoch, first = self.position.tolist()
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        order = epoch_order(self.group_sizes, seed=self.seed, epoch=epoch, shuffle_shards=self.shuffle_shards)
        joint = joint_batches(order, world_size=self.world_size, batch_size=self.batch_size)
        for batch in range(first + number, len(joint), workers):
            yield PlannedBatch(epoch=epoch, batch=batch, clips=joint[batch, self.rank], joint=joint)
