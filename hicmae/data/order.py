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


def clip_generator(seed: int, epoch: int, clip_id: str, window: int = 0) -> np.random.Generator:
    """The generator of all draws for a clip in an epoch: independent of rank, worker, batch and history.

    Where an epoch shows several windows of a clip, each has draws of its own; the first has those of a single one.
    """
    return generator("clip", seed, epoch, clip_id, window) if window else generator("clip", seed, epoch, clip_id)


def epoch_order(group_sizes: Sequence[int], *, seed: int, epoch: int, shuffle_shards: int) -> NDArray[np.int64]:
    """The order in which an epoch visits the clips: int64 (N,), each clip number once.

    Shards are permuted and taken in windows of ``shuffle_shards``; clips are permuted within a window. So a reader
    has at most a window's shards in hand, and a clip can be anywhere within the window of its shard. With as many
    shards in a window as there are shards, every order of clips is equally likely.

    Args:
        group_sizes: clips of each shard; clips of a shard have consecutive numbers.
        shuffle_shards: shards in a window, 1 or more.
    """
    starts = np.concatenate([[0], np.cumsum(group_sizes)])
    rng = generator("order", seed, epoch)
    shards = rng.permutation(len(group_sizes))
    parts = []
    for first in range(0, len(shards), shuffle_shards):
        window = np.concatenate([np.arange(starts[s], starts[s + 1]) for s in shards[first : first + shuffle_shards]])
        parts.append(rng.permutation(window))
    return np.concatenate(parts).astype(np.int64)


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
            ", or fewer ranks"
        )
    return batches


def joint_batches(order: NDArray[np.int64], *, world_size: int, batch_size: int) -> NDArray[np.int64]:
    """The batches of an epoch over all ranks: int64 (batches, R, B), in order.

    A joint batch is the next R * B clips of the order, whatever R is, and each rank takes its share of it. So the
    steps of a run depend on the size of the joint batch alone, and a run can go on with another number of ranks.
    """
    batches = batches_per_rank(len(order), world_size=world_size, batch_size=batch_size)
    return order[: batches * world_size * batch_size].reshape(batches, world_size, batch_size)
