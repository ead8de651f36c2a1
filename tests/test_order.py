from __future__ import annotations

import itertools
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from hicmae.data import plan
from hicmae.data.epoch import EpochOrder, OrderSettings
from hicmae.data.order import batches_per_rank, clip_generator, epoch_order, shuffled
from hicmae.data.plan import PlanBatches

SIZES = (40, 7, 60, 33, 1, 59)
LAYOUTS = [((50,) * 40, 8), ((50,) * 40, 40), ((50,) * 20, 1), (SIZES * 4, 5), ((200,), 8)]
"""Clips of each shard, and shards in a window."""


def places(order: np.ndarray) -> np.ndarray:
    """Where each clip is."""
    return np.argsort(order)


def windows_of(sizes: tuple[int, ...], order: np.ndarray, shuffle_shards: int) -> list[np.ndarray]:
    """The order's windows, found by which shards come together."""
    shard_of = np.repeat(np.arange(len(sizes)), sizes)[order]
    count = -(-len(sizes) // shuffle_shards)
    shards = [len(part) for part in np.array_split(np.arange(len(sizes)), count)]
    found, start = [], 0
    for number in shards:
        members = list(dict.fromkeys(shard_of[start:].tolist()))[:number]
        end = start + sum(sizes[shard] for shard in members)
        assert set(shard_of[start:end].tolist()) == set(members), "a window holds whole shards"
        found.append(order[start:end])
        start = end
    assert start == len(order)
    return found


@pytest.mark.parametrize("window", [1, 2, 6, 100])
def test_every_clip_once(window: int) -> None:
    order = epoch_order(SIZES, seed=0, epoch=3, shuffle_shards=window)
    assert sorted(order.tolist()) == list(range(sum(SIZES)))
    assert order.dtype == np.int64


# ---------------------------------------------------------------- every clip once, over ranks and workers


@pytest.mark.parametrize(("sizes", "window"), LAYOUTS)
@pytest.mark.parametrize(("ranks", "workers", "batch_size"), [(1, 0, 8), (2, 3, 8), (3, 1, 5), (7, 2, 4)])
def test_every_clip_once_an_epoch_over_all_ranks_and_workers(
    sizes: tuple[int, ...], window: int, ranks: int, workers: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = sum(sizes)
    order = EpochOrder(OrderSettings(shuffle_shards=window), group_sizes=sizes, dataset_sizes=(clips,), seed=5)
    seen: Counter[int] = Counter()
    counts = set()
    for rank in range(ranks):
        stage = PlanBatches(
            order=order, batch_size=batch_size, rank=rank, world_size=ranks, position=torch.tensor([2, 0, 0, 0])
        )
        planned = []
        for worker in range(max(1, workers)):
            info = SimpleNamespace(id=worker, num_workers=workers) if workers else None
            monkeypatch.setattr(plan, "get_worker_info", lambda info=info: info)
            planned += list(stage())
        assert sorted(batch.batch for batch in planned) == list(range(clips // (ranks * batch_size)))
        counts.add(len(planned))
        seen.update(clip for batch in planned for clip in batch.clips.tolist())
    assert len(counts) == 1
    assert set(seen.values()) == {1}
    left_out = clips - len(seen)
    assert left_out == clips % (ranks * batch_size)
    remainder = order(2)[clips - left_out :]
    assert not set(remainder.tolist()) & set(seen)


def test_steps_depend_on_the_joint_batch_alone() -> None:
    order = EpochOrder(OrderSettings(shuffle_shards=2), group_sizes=(50, 70, 80), dataset_sizes=(200,), seed=3)
    steps = []
    for ranks, batch_size in [(1, 24), (2, 12), (3, 8), (24, 1)]:
        stage = PlanBatches(
            order=order, batch_size=batch_size, rank=0, world_size=ranks, position=torch.tensor([1, 0, 0, 0])
        )
        steps.append(next(stage()).joint.reshape(-1, 24))
    assert all((step == steps[0]).all() for step in steps)


# ---------------------------------------------------------------- how good the shuffle is


@pytest.mark.parametrize(("sizes", "window"), LAYOUTS)
@pytest.mark.parametrize("apart", ["epochs", "seeds"])
def test_orders_are_uncorrelated(sizes: tuple[int, ...], window: int, apart: str) -> None:
    # Under the null hypothesis (independent orders) Spearman's rho has mean 0 and variance 1 / (clips - 1) within
    # windows, and of the S shards' windows, which move together, 1 / (S - 1).
    shards, clips = len(sizes), sum(sizes)
    several = -(-shards // window) > 1
    spread = math.sqrt(several / (shards - 1 + (not several)) + 1 / (clips - 1))
    found = [
        places(epoch_order(sizes, seed=i * (apart == "seeds"), epoch=i * (apart == "epochs"), shuffle_shards=window))
        for i in range(121)
    ]
    rho = np.array([np.corrcoef(left, right)[0, 1] for left, right in itertools.pairwise(found)])
    assert abs(rho.mean()) < 4 * spread / math.sqrt(len(rho))
    assert np.abs(rho).max() < 5 * spread
    assert 0.5 * spread < rho.std() < 1.4 * spread  # the bounds above are those of these orders, not loose ones


WINDOWS = [((20,) * 6, 3), ((20,) * 9, 8), ((20, 30, 10, 40), 4)]


@pytest.mark.parametrize(("sizes", "window"), WINDOWS)
def test_a_clip_travels_a_third_of_its_window(sizes: tuple[int, ...], window: int) -> None:
    travels = []
    for epoch in range(300):
        for clips in windows_of(sizes, epoch_order(sizes, seed=1, epoch=epoch, shuffle_shards=window), window):
            before = np.searchsorted(np.sort(clips), clips)  # as they lie in the shards
            travelled = np.abs(before - np.arange(len(clips)))
            assert travelled.max() <= len(clips) - 1
            travels.append(travelled.mean() / ((len(clips) - 1 / len(clips)) / 3))
    assert np.mean(travels) == pytest.approx(1, abs=4 * np.std(travels) / math.sqrt(len(travels)))


@pytest.mark.parametrize(("sizes", "window"), WINDOWS)
def test_a_clip_may_be_anywhere_in_its_window(sizes: tuple[int, ...], window: int) -> None:
    # Two independent uniform places are t of the window apart at most with probability 1 - (1 - t)**2.
    rng = np.random.default_rng(0)
    found = []
    for epoch in range(400):
        own = np.empty(sum(sizes))
        for clips in windows_of(sizes, epoch_order(sizes, seed=2, epoch=epoch, shuffle_shards=window), window):
            own[clips] = (np.arange(len(clips)) + rng.random(len(clips))) / len(clips)
        found.append(own)
    distance = np.sort(np.abs(np.diff(np.array(found), axis=0))[::2].ravel())
    gap = np.abs(1 - (1 - distance) ** 2 - (np.arange(len(distance)) + 0.5) / len(distance)).max()
    assert gap < 2 / math.sqrt(len(distance))  # Kolmogorov and Smirnov: 1.95 is exceeded once in 1,000


@pytest.mark.parametrize(
    ("sizes", "window", "batch"), [((50,) * 40, 8, 40), ((50,) * 40, 40, 40), ((50,) * 20, 1, 40), (SIZES, 6, 40)]
)
def test_a_batch_mixes_as_many_shards_as_stated(sizes: tuple[int, ...], window: int, batch: int) -> None:
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    found, expected = [], []
    for epoch in range(60):
        for clips in windows_of(sizes, epoch_order(sizes, seed=0, epoch=epoch, shuffle_shards=window), window):
            own = np.unique(shard_of[clips])
            for start in range(0, len(clips) - batch + 1, batch):
                found.append(len(set(shard_of[clips[start : start + batch]].tolist())))
                expected.append(
                    sum(1 - math.comb(len(clips) - sizes[s], batch) / math.comb(len(clips), batch) for s in own)
                )
    assert np.mean(found) == pytest.approx(np.mean(expected), abs=4 * np.std(found) / math.sqrt(len(found)) + 1e-9)
    if len(set(sizes)) == 1:  # the docstring's formula
        assert np.mean(expected) == pytest.approx(window * (1 - (1 - 1 / window) ** batch), rel=0.01)


def test_windows_are_as_equal_as_can_be() -> None:
    # nine shards by eight would leave one to itself, and its batches unmixed
    sizes = (10,) * 9
    order = epoch_order(sizes, seed=0, epoch=0, shuffle_shards=8)
    assert sorted(len(window) for window in windows_of(sizes, order, 8)) == [40, 50]


def test_one_window_gives_every_order_equally_often() -> None:
    counts = Counter(
        tuple(epoch_order((1, 1, 2), seed=0, epoch=epoch, shuffle_shards=3).tolist()) for epoch in range(4800)
    )
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_a_shard_is_equally_likely_in_every_window() -> None:
    sizes = (5,) * 6
    counts = np.zeros((6, 3))
    for epoch in range(2000):
        order = shuffled(sizes, np.random.default_rng(epoch), shuffle_shards=2)
        for number, window in enumerate(windows_of(sizes, order, 2)):
            counts[np.unique(window // 5), number] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


# ---------------------------------------------------------------- numbers and keys


def test_too_few_clips() -> None:
    assert batches_per_rank(200, world_size=2, batch_size=100) == 1
    with pytest.raises(ValueError, match=r"199 clips are too few: 2 ranks with batches of 100 need at least 200"):
        batches_per_rank(199, world_size=2, batch_size=100)


def test_generators_belong_to_their_key() -> None:
    assert clip_generator(1, 2, "a").random() == clip_generator(1, 2, "a").random()
    values = [
        clip_generator(*key).random()
        for key in (
            (1, 2, "a"), (2, 1, "a"), (1, 2, "b"), (12, 0, "a"), (1, 20, "a"), (1, 2, "a", 1), (1, 2, "a", 0, 1),
            (1, 2, "a", 1, 1), (1, 2, "a", 1, 2), (1, 2, "a", 11, 0),
        )
    ]  # fmt: skip
    assert len(set(values)) == 10
    assert clip_generator(1, 2, "a", 0, 0).random() == values[0]
