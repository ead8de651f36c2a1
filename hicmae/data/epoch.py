"""What an epoch is, and the order of its clips: a pure function of index, settings, seed and epoch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hicmae.data import mixture
from hicmae.data.order import batches_per_rank, epoch_order, generator, shuffled
from hicmae.data.source import ClipSource

Sampling = Literal["epoch", "resampled"]
"""Ways of sampling for which a joint batch holds no clip twice."""


@dataclass(frozen=True, kw_only=True)
class OrderSettings:
    """Which clips an epoch has, and how they are mixed."""

    shuffle_shards: int = 8
    """Shards whose clips are mixed with one another."""
    sampling: Sampling | Literal["passes"] = "epoch"
    """epoch: every clip once; resampled: shards are drawn anew for every window, without end; passes: passes over all
    clips, one after another, cut into epochs: even of fewer clips than a joint batch has, which may hold one twice."""
    weights: tuple[float, ...] | None = None
    """Share of each data set in an epoch, and about its share in each joint batch; None: as many as it has clips."""
    epoch_clips: int | None = None
    """Clips an epoch, with ``weights``, resampled or in passes; None: as many as there are clips."""

    def __post_init__(self) -> None:
        if self.shuffle_shards < 1:
            raise ValueError(f"shuffle_shards={self.shuffle_shards} must be at least 1")
        if self.sampling not in ("epoch", "resampled", "passes"):
            raise ValueError(f"sampling={self.sampling!r} must be 'epoch', 'resampled' or 'passes'")
        if self.weights is not None and not all(math.isfinite(weight) and weight > 0 for weight in self.weights):
            raise ValueError(f"weights={list(self.weights)} must all be above 0; leave out data sets not wanted")
        if self.epoch_clips is not None:
            if self.epoch_clips < 1:
                raise ValueError(f"epoch_clips={self.epoch_clips} must be at least 1")
            if self.sampling == "epoch" and self.weights is None:
                raise ValueError(
                    f"epoch_clips={self.epoch_clips} contradicts an epoch of every clip once; set weights or "
                    "sampling: resampled, or leave epoch_clips out"
                )


class EpochOrder:
    """The clips of every epoch of a run, in order: ``order(epoch)`` is int64 (``clips``,).

    - Plain: every clip once (``order.epoch_order``).
    - With ``weights``: data set d has its share of ``epoch_clips``, spread evenly over the epoch (``mixture.slots``).
      They are the next ones of its own endless sequence of passes, each pass over all its clips in another order. So
      at any time its clips have come equally often to within one.
    - Resampled: shards are drawn for each window, from each data set by itself if there are ``weights``, and from all
      together if not. Each epoch is drawn for itself.
    - In passes: the next ``epoch_clips`` of such an endless sequence, of all clips together if there are no weights.

    Neither ranks nor workers nor batches change it. In a sequence in which clips come again they keep so far apart
    that no joint batch holds one twice: it would be its own negative in the contrast. ``check`` refuses joint batches
    for which that cannot be. In passes, which are for training without a contrast, a clip may come again at once.

    Args:
        settings: how clips are chosen and mixed.
        group_sizes: clips of each shard, all data sets in a row.
        dataset_sizes: clips of each data set.
        seed: decides the order.

    Raises:
        ValueError: weights that do not fit the data sets.
    """

    def __init__(
        self,
        settings: OrderSettings,
        *,
        group_sizes: tuple[int, ...],
        dataset_sizes: tuple[int, ...],
        seed: int,
    ) -> None:
        self.settings = settings
        self.seed = seed
        self._group_sizes = tuple(size for size in group_sizes if size)
        self.clips = sum(group_sizes) if settings.epoch_clips is None else settings.epoch_clips
        """Clips an epoch."""
        self._pools = self._split(dataset_sizes) if settings.weights is not None else [self._group_sizes]
        self._counts = mixture.shares(settings.weights or (1.0,), self.clips)
        if not self._counts.all():
            raise ValueError(
                f"weights={list(settings.weights or ())} give a data set none of {self.clips} clips an epoch; "
                "raise its weight or epoch_clips"
            )

    @classmethod
    def of(cls, source: ClipSource, settings: OrderSettings, *, seed: int) -> EpochOrder:
        """The order of a source's clips."""
        return cls(settings, group_sizes=source.group_sizes, dataset_sizes=source.dataset_sizes, seed=seed)

    def _split(self, dataset_sizes: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shards' sizes by data set."""
        weights = self.settings.weights or ()
        if len(weights) != len(dataset_sizes):
            raise ValueError(
                f"weights has {len(weights)} numbers and there are {len(dataset_sizes)} data sets; give one for each "
                "folder of shards, in their order"
            )
        if not all(dataset_sizes):
            raise ValueError(
                f"weights={list(weights)}: data set {dataset_sizes.index(0) + 1} has no clips; leave it out"
            )
        edges = np.searchsorted(np.cumsum(self._group_sizes), np.cumsum(dataset_sizes)) + 1
        return [self._group_sizes[a:b] for a, b in itertools.pairwise([0, *edges.tolist()])]

    @property
    def window_shards(self) -> int:
        """Shards that are in use at a time, at most: a window of every data set that is mixed in by its weight."""
        return min(len(self._group_sizes), self.settings.shuffle_shards * len(self._pools))

    @property
    def _repeats(self) -> bool:
        return self.settings.weights is not None or self.settings.sampling != "epoch"

    @property
    def keeps_apart(self) -> bool:
        """No joint batch holds a clip twice, in the sizes that ``check`` accepts."""
        return self.settings.sampling != "passes"

    def check(self, joint_batch: int) -> None:
        """Refuse joint batches for which there are too few clips.

        Raises:
            ValueError: a joint batch would have to hold a clip twice.
        """
        if not self._repeats or not self.keeps_apart:
            return
        most = mixture.most_in(joint_batch, self._counts)
        for number, (pool, taken) in enumerate(zip(self._pools, most.tolist(), strict=True)):
            if taken > self._apart(pool) + 1:
                name = f"data set {number + 1} ({sum(pool)} clips)" if self.settings.weights else f"{sum(pool)} clips"
                block = self._smallest_block(pool)
                raise ValueError(
                    f"{name}: up to {taken} of it come in a joint batch of {joint_batch} clips, and for none to come "
                    f"twice there {'a window of its shards' if block < sum(pool) else 'it'} must hold "
                    f"{3 * (taken - 1)}, not {block}; use smaller batches, fewer ranks"
                    f"{', a higher shuffle_shards' if block < sum(pool) else ''}"
                    f"{' or a lower weight' if self.settings.weights else ''}"
                )

    def batches(self, *, world_size: int, batch_size: int) -> int:
        """Joint batches of an epoch; ``ValueError`` with the numbers where there are too few clips."""
        batches = batches_per_rank(self.clips, world_size=world_size, batch_size=batch_size)
        self.check(world_size * batch_size)
        return batches

    def _smallest_block(self, pool: tuple[int, ...]) -> int:
        """Clips in the smallest block of a sequence: a pass, or a window of shards drawn."""
        return sum(sorted(pool)[: self.settings.shuffle_shards] if self.settings.sampling == "resampled" else pool)

    def _apart(self, pool: tuple[int, ...]) -> int:
        return mixture.apart(self._smallest_block(pool)) if self.keeps_apart else 0

    def __call__(self, epoch: int) -> NDArray[np.int64]:
        """Numbers of the epoch's clips, in order: int64 (``clips``,)."""
        if not self._repeats:
            return epoch_order(
                self._group_sizes, seed=self.seed, epoch=epoch, shuffle_shards=self.settings.shuffle_shards
            )
        places = mixture.slots(self._counts)
        order = np.empty(self.clips, dtype=np.int64)
        first_clip = 0
        for number, pool in enumerate(self._pools):
            order[places == number] = first_clip + self._next_clips(number, epoch)
            first_clip += sum(pool)
        return order

    def _next_clips(self, number: int, epoch: int) -> NDArray[np.int64]:
        """The clips that a data set gives to an epoch, by their numbers within it: int64 (its share,)."""
        pool, count = self._pools[number], int(self._counts[number])
        if self.settings.sampling == "resampled":
            blocks = mixture.drawn_windows(
                pool, generator("drawn", self.seed, epoch, number), shuffle_shards=self.settings.shuffle_shards
            )
            skipped = 0
        else:
            first_pass = max(0, epoch * count // sum(pool) - 1)  # the one before decides where a pass's clips may be
            blocks = self._passes(number, first_pass)
            skipped = epoch * count - first_pass * sum(pool)
        return mixture.taken(mixture.joined(blocks, apart=self._apart(pool)), skipped, count)

    def _passes(self, number: int, first: int) -> Iterator[NDArray[np.int64]]:
        for own_pass in itertools.count(first):
            rng = generator("pass", self.seed, number, own_pass)
            yield shuffled(self._pools[number], rng, shuffle_shards=self.settings.shuffle_shards)
