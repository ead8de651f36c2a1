"""Several sets of clips in one sequence, and endless sequences of clips, as pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_APART = 8192  # more than any batch, and little beside a window of shards: what is moved stays near its place


def shares(weights: Sequence[float], clips: int) -> NDArray[np.int64]:
    """How many of ``clips`` each data set gets: int64 (D,), its share by weight, rounded so that the sum is right.

    Shares are cut to whole clips, and what is left goes to the largest remainders, so each is within 1 of exact.
    """
    exact = np.asarray(weights, dtype=np.float64) / np.sum(weights) * clips
    counts = np.floor(exact).astype(np.int64)
    missing = clips - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts


def slots(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which data set each place of an epoch takes its clip from: int64 (N,), data set d ``counts[d]`` times.

    The n clips of a data set are spread evenly, at (j + 1/2) / n of the epoch. Any J places in a row hold
    ``J * share`` clips of a data set to within ``1 + D * share``, where D data sets have clips.
    """
    places = np.concatenate([(np.arange(count) + 0.5) / max(1, count) for count in counts])
    return np.repeat(np.arange(len(counts)), counts)[np.argsort(places, kind="stable")]


def most_in(places: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The most clips that any ``places`` places of ``slots(counts)`` in a row hold of each data set: int64 (D,)."""
    share = counts / counts.sum()
    bound = np.floor(places * share + 1 + np.count_nonzero(counts) * share).astype(np.int64)
    return np.minimum(np.minimum(bound, places), counts)


def apart(smallest_block: int) -> int:
    """How far apart a clip's places are at least, in ``joined`` blocks of this size and more."""
    return min(smallest_block // 3, _APART)


def joined(blocks: Iterable[NDArray[np.int64]], *, apart: int) -> Iterator[NDArray[np.int64]]:
    """Blocks that hold each clip at most once, changed so that no clip comes again within ``apart`` places.

    Clips among a block's first ``apart`` places that are among the last ``apart`` of the block before change places
    with others from the block's middle. Its end stays as it is, so a block depends on the one before it alone, and a
    sequence can be had from any block on. Blocks need ``3 * apart`` places or more.
    """
    end: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    for block in blocks:
        again = np.isin(block, end)
        early = np.flatnonzero(again[:apart])
        free = np.flatnonzero(~again[apart : len(block) - apart])[: len(early)] + apart
        end = block[len(block) - apart :]
        changed = block.copy()
        changed[early], changed[free] = block[free], block[early]
        yield changed


def drawn_windows(
    group_sizes: Sequence[int], rng: np.random.Generator, *, shuffle_shards: int
) -> Iterator[NDArray[np.int64]]:
    """Windows of ``shuffle_shards`` shards drawn anew each time, without end; clips are permuted within a window.

    A shard comes at most once in a window and is as likely as any other, and a shard drawn is taken whole. So in the
    long run all clips come equally often, whatever the size of their shard; drawing shards by their size would
    prefer the clips of large ones.
    """
    starts = np.concatenate([[0], np.cumsum(group_sizes)])
    while True:
        shards = rng.choice(len(group_sizes), size=min(shuffle_shards, len(group_sizes)), replace=False)
        yield rng.permutation(np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in shards]))


def taken(blocks: Iterable[NDArray[np.int64]], first: int, count: int) -> NDArray[np.int64]:
    """``count`` places of a sequence of blocks, from place ``first`` on: int64 (count,)."""
    parts: list[NDArray[np.int64]] = []
    held = 0
    for block in blocks:
        parts.append(block)
        held += len(block)
        if held >= first + count:
            break
    return np.concatenate(parts)[first : first + count].astype(np.int64)
