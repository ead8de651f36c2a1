from __future__ import annotations

import numpy as np
import pytest

from hicmae.data.order import batches_per_rank, clip_generator, epoch_order

SIZES = (40, 7, 60, 33, 1, 59)


@pytest.mark.parametrize("window", [1, 2, 6, 100])
def test_every_clip_once(window: int) -> None:
    order = epoch_order(SIZES, seed=0, epoch=3, shuffle_shards=window)
    assert sorted(order.tolist()) == list(range(sum(SIZES)))
    assert order.dtype == np.int64


def test_a_window_holds_whole_shards() -> None:
    shard_of = np.repeat(np.arange(len(SIZES)), SIZES)
    order = epoch_order(SIZES, seed=0, epoch=0, shuffle_shards=2)
    runs = shard_of[order]
    place = 0
    while place < len(runs):
        pair = set(runs[place:].tolist()[:1])
        for other in range(len(SIZES)):
            size = sum(SIZES[s] for s in pair | {other})
            if set(runs[place : place + size].tolist()) == pair | {other}:
                break
        else:
            pytest.fail(f"no two shards fill the window at {place}")
        place += size


def test_epochs_and_seeds_are_uncorrelated() -> None:
    sizes = (50,) * 40

    def places(seed: int, epoch: int) -> np.ndarray:
        return np.argsort(epoch_order(sizes, seed=seed, epoch=epoch, shuffle_shards=8))

    base = places(0, 0)
    assert (places(0, 0) == base).all()
    # shards move together, so one correlation scatters by about 1 / sqrt(40)
    for others in ([places(0, epoch) for epoch in range(1, 41)], [places(seed, 0) for seed in range(1, 41)]):
        correlations = [np.corrcoef(base, other)[0, 1] for other in others]
        assert abs(np.mean(correlations)) < 0.08
        assert np.max(np.abs(correlations)) < 0.6
    # clips that are neighbours in a shard are spread over its window
    within = base.reshape(40, 50)
    steps = np.abs(np.diff(within, axis=1))
    assert np.median(steps) > 80  # a window holds 400 clips; two random places are 133 apart on average


def test_too_few_clips() -> None:
    assert batches_per_rank(200, world_size=2, batch_size=100) == 1
    with pytest.raises(ValueError, match=r"199 clips are too few: 2 ranks with batches of 100 need at least 200"):
        batches_per_rank(199, world_size=2, batch_size=100)


def test_generators_belong_to_their_key() -> None:
    assert clip_generator(1, 2, "a").random() == clip_generator(1, 2, "a").random()
    values = [
        clip_generator(*key).random() for key in ((1, 2, "a"), (2, 1, "a"), (1, 2, "b"), (12, 0, "a"), (1, 20, "a"))
    ]
    assert len(set(values)) == 5
