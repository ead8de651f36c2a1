"""Asking for remote shards before they are needed, in the order in which training will need them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hicmae.data.epoch import EpochOrder
from hicmae.data.plan import PlannedBatch
from hicmae.data.source import ClipSource

_REQUESTS = 8  # while two windows are used: often enough that a window begins to come soon after its place is free


@dataclass(kw_only=True)
class FetchAhead:
    """A stage between the plan of batches and their reading: passes plans on, and requests the shards of two windows.

    They are the shards in use and those that come next, across the end of the epoch too. All workers of all ranks of a
    machine ask for the same, as they share its cache.
    """

    source: ClipSource
    order: EpochOrder

    def __call__(self, plans: Iterable[PlannedBatch]) -> Iterator[PlannedBatch]:
        ends = np.cumsum(self.source.group_sizes)
        ask_at = -1
        for plan in plans:
            if plan.batch >= ask_at:
                limit = 2 * self.order.window_shards
                rest = plan.joint[plan.batch :].reshape(-1)
                groups, clips = next_groups(rest, ends, limit)
                if len(groups) < limit:
                    groups, clips = next_groups(np.concatenate([rest, self.order(plan.epoch + 1)]), ends, limit)
                self.source.prefetch(groups)
                ask_at = plan.batch + max(1, clips // plan.joint[0].size // _REQUESTS)
            yield plan


def next_groups(clips: NDArray[np.int64], ends: NDArray[np.int64], limit: int) -> tuple[list[int], int]:
    """The first ``limit`` groups that a sequence of clips touches, in order, and how many clips lie in them alone.

    Args:
        clips: clip numbers, int64 (N,).
        ends: end of each group's clip numbers, ascending.
    """
    length = 1024
    while True:
        groups, first = np.unique(np.searchsorted(ends, clips[:length], side="right"), return_index=True)
        if len(groups) > limit or length >= len(clips):
            break
        length *= 4  # an epoch may have millions of clips, and its first shards lie near its start
    by_use = np.argsort(first)
    covered = int(first[by_use[limit]]) if len(groups) > limit else len(clips)
    return groups[by_use[:limit]].tolist(), covered
