"""The order of an epoch, as pure functions: no state, so every process computes the same and resume is arithmetic."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def generator(*key: str | int) -> np.random.Generator:
    """A random generator that belongs to ``key`` alone, whichever process asks for it."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode("utf-8"), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def clip_generator(
    seed: int, epoch: int, clip_id: str, window: int = 0, view: int = 0, time: int = 0
) -> np.random.Generator:
    """The generator of all draws for a clip in an epoch: independent of rank, worker, batch and history.

    Where an epoch shows several windows of a clip, several views of a window, or the clip several times, each has draws
    of its own; the first has those of a single one.
    """
    if time:
        return generator("again", seed, epoch, clip_id, window, view, time)
    if view:
        return generator("view", seed, epoch, clip_id, window, view)
    return generator("clip", seed, epoch, clip_id, window) if window else generator("clip", seed, epoch, clip_id)


def shuffled(group_sizes: Sequence[int], rng: np.random.Generator, *, shuffle_shards: int) -> NDArray[np.int64]:
    """Every clip once, in a shuffled order: int64 (N,).

    Shards are permuted and divided into as few windows of at most ``shuffle_shards`` as will do, equal in shards to
    within one; clips are permuted within a window. What that is worth:

    - A reader has at most a window's shards in hand (two windows' where a batch lies across their border).
    - A shard is equally likely in every window. Within its window a clip is equally likely at every place, so of n
      clips in a window it travels (n - 1/n) / 3 places on average, and n - 1 at most.
    - A batch of B clips within a window of k shards comes from k (1 - (1 - 1/k)**B) shards on average if they are of
      one size: 7.96 of 8 for 40 clips.
    - With as many shards in a window as there are shards, every order of the clips is equally likely.

    Args:
        group_sizes: clips of each shard; clips of a shard have consecutive numbers.
        rng: decides the order.
        shuffle_shards: shards in a window, 1 or more.
    """
    starts = np.concatenate([[0], np.cumsum(group_sizes)])
    shards = rng.permutation(len(group_sizes))
    parts = [
        rng.permutation(np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in window]))
        for window in np.array_split(shards, -(-len(shards) // shuffle_shards))
    ]
    return np.concatenate(parts).astype(np.int64)


def epoch_order(group_sizes: Sequence[int], *, seed: int, epoch: int, shuffle_shards: int) -> NDArray[np.int64]:
    """The order in which an epoch visits the clips, each once: ``shuffled`` by (seed, epoch)."""
    return shuffled(group_sizes, generator("order", seed, epoch), shuffle_shards=shuffle_shards)


def batches_per_rank(clips: int, *, world_size: int, batch_size: int) -> int:
    """Batches that every rank gets in an epoch: ``floor(clips / (world_size * batch_size))``.

    The remainder, less than one global batch, is left out; as the order changes, it is another one each epoch.

    Raises:
        ValueError: there are too few clips for one batch on every rank.
    """
    batches = clips // (world_size * batch_size)
    if not batches:
        raise ValueError(
            f"{clips} clips are too few: {world_size} rank{'s' if world_size > 1 else ''} with batches of {batch_size} "
            f"need at least {world_size * batch_size}; use more clips, batches of at most {max(1, clips // world_size)}"
            ", or fewer ranks (the number of shards sets no limit)"
        )
    return batches
