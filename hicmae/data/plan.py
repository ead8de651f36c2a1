"""Which clips each training batch of a worker holds, before any is read; and where in an epoch a run stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from hicmae.data.epoch import EpochOrder


@dataclass(frozen=True, kw_only=True)
class PlannedBatch:
    """Which clips a training batch holds, before any is read."""

    epoch: int
    batch: int
    """Row of ``joint``."""
    clips: NDArray[np.int64]
    """int64 (B,)"""
    joint: NDArray[np.int64]
    """int64 (batches, R, B): the clips of all ranks in this epoch."""
    first_window: int = 0
    """Windows of these clips that have been handed out: the batch goes on with this one."""
    times: NDArray[np.int64] | None = None
    """int64 (B,): how often each of ``clips`` came earlier in the epoch, for draws of its own each time; ``None``: it
    has the same draws throughout the epoch."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where in an epoch a run stands, and how the rest of the epoch's order is cut into joint batches.

    An epoch has ``floor(clips / joint_batch)`` joint batches, and joint batch i holds the places from
    ``i * joint_batch + shift`` on. The shift is 0 but for the rest of an epoch in which the joint batch changed: that
    rest is cut from where it begins, and its batches are numbered so that the last one has the number that the last
    one of an epoch always has.
    """

    batch: int
    """Number of the next joint batch."""
    window: int = 0
    """Windows of that joint batch handed out."""
    shift: int = 0

    def joint_batches(self, order: NDArray[np.int64], *, world_size: int, batch_size: int) -> NDArray[np.int64]:
        """The joint batches of an epoch: int64 (batches, R, B). With a shift, those before ``batch`` never were."""
        batches = len(order) // (world_size * batch_size)
        turned = np.roll(order, -self.shift)
        return turned[: batches * world_size * batch_size].reshape(batches, world_size, batch_size)


def joint_batch_of(state: Mapping[str, Any]) -> int:
    """Clips in a joint batch of the run that saved a stream's state."""
    return int(state["world_size"] * state["batch_size"])


def resumed_cut(state: Mapping[str, Any], *, joint_batch: int) -> Cut:
    """Where a run with joint batches of ``joint_batch`` clips goes on from the saved ``state`` of a stream.

    With the same joint batch, at the very batch and window. With another, at the first clip of the epoch's order that
    the saved run had not handed out: a joint batch of which some windows were handed out is not begun again.
    """
    batch, window = divmod(state["batch"], state["windows_per_clip"])
    old = joint_batch_of(state)
    if joint_batch == old:
        return Cut(batch=batch, window=window, shift=state["place"] - batch * old)
    clips = state["epoch_clips"]
    finished = state["batch"] >= state["batches"]
    done = clips if finished else state["place"] + (old if window else 0)
    batch = clips // joint_batch - (clips - done) // joint_batch
    return Cut(batch=batch, shift=done - batch * joint_batch)


@dataclass(kw_only=True)
class PlanBatches:
    """First stage of training: this worker's batches of the epoch, from where the loader stands.

    A joint batch is the next R * B clips of the epoch's order, whatever R is, and each rank takes its share of it. So
    the steps of a run depend on the size of the joint batch alone.

    ``position`` is a tensor in shared memory, int64 (4,): epoch, next joint batch, shift (see ``Cut``), and windows of
    that joint batch handed out. Persistent workers read there what the next pass is; it changes only between passes.
    """

    order: EpochOrder
    batch_size: int
    rank: int
    world_size: int
    position: Tensor

    def __call__(self) -> Iterator[PlannedBatch]:
        """Every W-th batch for one of W workers, so that the loader, which asks them in turn, gets all in order."""
        epoch, first, shift, window = self.position.tolist()
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        cut = Cut(batch=first, shift=shift)
        order = self.order(epoch)
        joint = cut.joint_batches(order, world_size=self.world_size, batch_size=self.batch_size)
        times = None
        if not self.order.keeps_apart:
            times = cut.joint_batches(times_before(order), world_size=self.world_size, batch_size=self.batch_size)
        for batch in range(first + number, len(joint), workers):
            yield PlannedBatch(
                epoch=epoch,
                batch=batch,
                clips=joint[batch, self.rank],
                joint=joint,
                first_window=window if batch == first else 0,
                times=None if times is None else times[batch, self.rank],
            )


def times_before(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each place of an order, how often its clip came at earlier places: int64 (N,)."""
    by_clip = np.argsort(order, kind="stable")  # places, those of a clip in a row
    clips = order[by_clip]
    starts = np.flatnonzero(np.r_[True, clips[1:] != clips[:-1]])
    counts = np.diff(np.r_[starts, len(order)])
    times = np.empty_like(order)
    times[by_clip] = np.arange(len(order)) - np.repeat(starts, counts)
    return times
