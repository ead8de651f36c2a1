from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from hicmae.data.epoch import EpochOrder, OrderSettings

DATASETS = ((40, 30, 30), (20, 25, 5), (300, 300))
GROUPS = tuple(size for sizes in DATASETS for size in sizes)
SIZES = tuple(map(sum, DATASETS))
FIRST = np.cumsum((0, *SIZES))
DATASET_OF = np.repeat(np.arange(3), SIZES)


def order_of(seed: int = 0, **settings: Any) -> EpochOrder:
    return EpochOrder(OrderSettings(**settings), group_sizes=GROUPS, dataset_sizes=SIZES, seed=seed)


MIXTURES: list[dict[str, Any]] = [
    {"weights": (0.5, 0.3, 0.2)},
    {"weights": (1, 1, 2), "epoch_clips": 333},
    {"weights": (1, 1, 2), "epoch_clips": 3000},
    {"weights": (0.5, 0.3, 0.2), "sampling": "resampled", "shuffle_shards": 2},
    {"weights": (5, 1, 30), "sampling": "resampled", "epoch_clips": 5000},
    {"sampling": "resampled", "shuffle_shards": 3},
    {"sampling": "resampled", "shuffle_shards": 5, "epoch_clips": 4000},
]


@pytest.mark.parametrize("settings", [{}, *MIXTURES])
def test_an_epoch_is_a_pure_function_of_its_number(settings: dict[str, Any]) -> None:
    order = order_of(**settings)
    epochs = [order(epoch) for epoch in range(8)]
    for epoch in (7, 0, 3):
        assert (order_of(**settings)(epoch) == epochs[epoch]).all()
    for clips in epochs:
        assert clips.dtype == np.int64
        assert len(clips) == order.clips == settings.get("epoch_clips", sum(SIZES))
        assert clips.min() >= 0
        assert clips.max() < sum(SIZES)
    assert not (epochs[0] == epochs[1]).all()
    assert not (order_of(seed=1, **settings)(0) == epochs[0]).all()


def test_without_weights_every_clip_comes_once() -> None:
    for epoch in range(3):
        assert sorted(order_of()(epoch).tolist()) == list(range(sum(SIZES)))


@pytest.mark.parametrize("settings", MIXTURES)
@pytest.mark.parametrize("joint", [6, 12])
def test_no_joint_batch_holds_a_clip_twice(settings: dict[str, Any], joint: int) -> None:
    order = order_of(**settings)
    order.check(joint)
    for epoch in range(6):
        clips = order(epoch)
        for start in range(len(clips) - joint + 1):  # wherever the cut begins: a resumed run may cut elsewhere
            assert len(set(clips[start : start + joint].tolist())) == joint


@pytest.mark.parametrize("settings", [each for each in MIXTURES if "weights" in each])
def test_every_batch_has_about_the_mixture(settings: dict[str, Any]) -> None:
    order = order_of(**settings)
    share = np.array(settings["weights"]) / sum(settings["weights"])
    for epoch in range(3):
        own = DATASET_OF[order(epoch)]
        assert (np.abs(np.bincount(own, minlength=3) - share * order.clips) < 1).all()
        for start in range(0, len(own) - 40, 40):
            held = np.bincount(own[start : start + 40], minlength=3)
            assert (np.abs(held - 40 * share) <= 1 + 3 * share + 1e-2).all()


@pytest.mark.parametrize("settings", MIXTURES[:3])
def test_within_a_data_set_clips_come_equally_often(settings: dict[str, Any]) -> None:
    order = order_of(**settings)
    sequence = np.concatenate([order(epoch) for epoch in range(9)])
    for number, size in enumerate(SIZES):
        own = sequence[DATASET_OF[sequence] == number] - FIRST[number]
        seen = np.zeros(size, dtype=int)
        for clip in own.tolist():
            seen[clip] += 1
            if clip == own[0]:
                assert seen.max() - seen.min() <= 1
        assert seen.max() - seen.min() <= 1
        for start in range(0, len(own) - size + 1, size):
            assert len(set(own[start : start + size].tolist())) == size  # whole passes


def test_passes_of_a_data_set_are_shuffled_anew() -> None:
    order = order_of(weights=(1, 1, 1), epoch_clips=3 * SIZES[0])
    own = [epoch[DATASET_OF[epoch] == 0] for epoch in (order(0), order(1))]
    assert sorted(own[0].tolist()) == sorted(own[1].tolist())
    assert abs(stats.spearmanr(np.argsort(own[0]), np.argsort(own[1])).statistic) < 0.5


def test_resampling_prefers_no_clip() -> None:
    groups = (10, 2, 30, 18)
    settings = OrderSettings(sampling="resampled", shuffle_shards=2, epoch_clips=120_000)
    order = EpochOrder(settings, group_sizes=groups, dataset_sizes=(60,), seed=0)
    seen = np.bincount(order(0), minlength=60)
    # 4,000 windows of 2 of 4 shards: a shard is in 2,000 of them, give or take sqrt(4,000 / 4)
    assert np.abs(seen - 2000).max() < 4 * np.sqrt(1000)


def test_resampled_epochs_leave_clips_out_and_take_others_twice() -> None:
    seen = np.bincount(order_of(sampling="resampled", shuffle_shards=2)(0), minlength=sum(SIZES))
    assert (seen == 0).any()
    assert seen.max() > 1


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (1, 2)}, "weights has 2 numbers and there are 3 data sets"),
        ({"weights": (1, 0, 2)}, "must all be above 0"),
        ({"weights": (1, float("nan"), 2)}, "must all be above 0"),
        ({"weights": (1, 1e-9, 1)}, "give a data set none of 750 clips"),
        ({"epoch_clips": 100}, "epoch_clips=100 contradicts an epoch of every clip once"),
        ({"epoch_clips": 0, "sampling": "resampled"}, "epoch_clips=0 must be at least 1"),
        ({"sampling": "twice"}, "must be 'epoch', 'resampled' or 'passes'"),
        ({"shuffle_shards": 0}, "shuffle_shards=0 must be at least 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        order_of(**settings)


@pytest.mark.parametrize(
    ("settings", "joint", "message"),
    [
        ({"weights": (1, 8, 1)}, 40, r"data set 2 \(50 clips\): up to 35 of it .* it must hold 102, not 50"),
        ({"sampling": "resampled", "shuffle_shards": 2}, 40, r"750 clips: up to 40 .* a window .* hold 117, not 25"),
        ({"sampling": "resampled", "shuffle_shards": 8}, 300, r"up to 300 .*must hold 897, not 750"),
    ],
)
def test_joint_batches_in_which_a_clip_would_come_twice(settings: dict[str, Any], joint: int, message: str) -> None:
    order = order_of(**settings)
    with pytest.raises(ValueError, match=message):
        order.batches(world_size=joint // 20, batch_size=20)
    assert order.batches(world_size=2, batch_size=2) > 1


def test_a_data_set_without_clips_has_no_weight() -> None:
    with pytest.raises(ValueError, match="data set 1 has no clips; leave it out"):
        EpochOrder(OrderSettings(weights=(1, 1)), group_sizes=(0, 10), dataset_sizes=(0, 10), seed=0)


def test_empty_shards_do_no_harm() -> None:
    settings = OrderSettings(weights=(1, 1), epoch_clips=40)
    order = EpochOrder(settings, group_sizes=(10, 0, 10, 0, 30, 0), dataset_sizes=(20, 30), seed=0)
    assert np.bincount(order(0) // 20, minlength=3)[:1] == 20
