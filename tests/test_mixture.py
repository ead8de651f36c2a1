from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from hicmae.data import mixture
from hicmae.data.order import generator

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("weights", [(1, 1), (0.7, 0.2, 0.1), (1, 1, 1), (1e-3, 5)])
@pytest.mark.parametrize("clips", [1, 10, 997, 100_000])
def test_shares_add_up_and_are_within_one(weights: tuple[float, ...], clips: int) -> None:
    counts = mixture.shares(weights, clips)
    assert counts.sum() == clips
    assert (np.abs(counts - np.array(weights) / sum(weights) * clips) < 1).all()


@pytest.mark.parametrize("counts", [(5,), (50, 50), (70, 20, 10), (997, 3), (100, 100, 100, 1), (400, 90, 7, 2, 1)])
def test_any_places_in_a_row_hold_about_the_mixture(counts: tuple[int, ...]) -> None:
    slots = mixture.slots(np.array(counts))
    assert np.bincount(slots).tolist() == list(counts)
    share = np.array(counts) / sum(counts)
    for places in {1, 2, 7, 40, len(slots) // 2, len(slots)} & set(range(1, len(slots) + 1)):
        held = np.stack([
            np.convolve(slots == number, np.ones(places, dtype=int), "valid") for number in range(len(counts))
        ])  # fmt: skip
        assert (np.abs(held - places * share[:, None]) <= 1 + len(counts) * share[:, None] + 1e-9).all()
        assert (held.max(axis=1) <= mixture.most_in(places, np.array(counts))).all()


def test_the_bound_holds_for_random_mixtures() -> None:
    for _ in range(200):
        counts = RNG.integers(1, 60, size=RNG.integers(1, 7))
        places = int(RNG.integers(1, counts.sum() + 1))
        slots = mixture.slots(counts)
        for number, most in enumerate(mixture.most_in(places, counts)):
            assert np.convolve(slots == number, np.ones(places, dtype=int), "valid").max() <= most


def blocks(count: int, size: int) -> list[np.ndarray]:
    return [np.random.default_rng(number).permutation(size) for number in range(count)]


@pytest.mark.parametrize(("size", "apart"), [(30, 10), (30, 3), (31, 10), (100, 33), (3, 1), (30, 0)])
def test_joined_blocks_keep_clips_apart(size: int, apart: int) -> None:
    raw = blocks(40, size)
    joined = list(mixture.joined(raw, apart=apart))
    last: dict[int, int] = {}
    for place, clip in enumerate(np.concatenate(joined).tolist()):
        assert place - last.get(clip, -size) > apart
        last[clip] = place
    for before, after in zip(raw, joined, strict=True):
        assert sorted(before) == sorted(after)
        assert (before[size - apart :] == after[size - apart :]).all()
        assert (before != after).sum() <= 2 * apart
    if apart == 10:
        assert any((before != after).any() for before, after in zip(raw, joined, strict=True))


def test_joined_blocks_depend_on_the_one_before_alone() -> None:
    raw = blocks(8, 30)
    joined = list(mixture.joined(raw, apart=10))
    for first in range(7):
        later = list(mixture.joined(raw[first:], apart=10))
        assert all((left == right).all() for left, right in zip(later[1:], joined[first + 1 :], strict=True))


def test_joined_blocks_are_not_changed_in_place() -> None:
    raw = blocks(2, 30)
    copies = [block.copy() for block in raw]
    list(mixture.joined(raw, apart=10))
    assert all((left == right).all() for left, right in zip(raw, copies, strict=True))


@pytest.mark.parametrize(("sizes", "window"), [((1, 5, 10), 1), ((4, 1, 7, 2, 6), 2), ((3, 3, 3), 9)])
def test_drawn_windows_prefer_no_clip(sizes: tuple[int, ...], window: int) -> None:
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    drawn = list(itertools.islice(mixture.drawn_windows(sizes, generator("x"), shuffle_shards=window), 6000))
    for clips in drawn[:50]:
        assert len(set(clips.tolist())) == len(clips)
        shards = set(shard_of[clips].tolist())
        assert len(shards) == min(window, len(sizes))
        assert len(clips) == sum(sizes[shard] for shard in shards)
    shards_drawn = np.bincount([shard for clips in drawn for shard in set(shard_of[clips].tolist())])
    assert (np.bincount(np.concatenate(drawn)) == shards_drawn[shard_of]).all()
    if window < len(sizes):
        assert stats.chisquare(shards_drawn).pvalue > 1e-3
        together = len([1 for left, right in itertools.pairwise(drawn) if set(left) & set(right)])
        assert together > 0  # drawn with replacement from one window to the next


def test_taken_crosses_blocks() -> None:
    assert mixture.taken([np.arange(5), np.arange(5, 9), np.arange(9, 20)], 3, 4).tolist() == [3, 4, 5, 6]
