from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hicmae.data.epoch import EpochOrder, OrderSettings
from hicmae.data.fetch_ahead import FetchAhead, next_groups
from hicmae.data.plan import PlannedBatch

SHARD_CLIPS = 500
SHARDS = 12
WINDOW = 2


class Told:
    """A source that notes what it is asked for."""

    group_sizes = (SHARD_CLIPS,) * SHARDS

    def __init__(self) -> None:
        self.requests: list[list[int]] = []

    def prefetch(self, groups: Sequence[int]) -> None:
        self.requests.append(list(groups))


def order_of(**settings: Any) -> EpochOrder:
    return EpochOrder(
        OrderSettings(shuffle_shards=WINDOW, **settings), group_sizes=Told.group_sizes,
        dataset_sizes=(SHARD_CLIPS * SHARDS,), seed=3,
    )  # fmt: skip


def plans(order: EpochOrder, first: int = 0, *, step: int = 1) -> Iterator[PlannedBatch]:
    joint = order(0).reshape(-1, 2, 5)
    for batch in range(first, len(joint), step):
        yield PlannedBatch(epoch=0, batch=batch, clips=joint[batch, 0], joint=joint)


def shards_of(clips: np.ndarray) -> list[int]:
    return list(dict.fromkeys((clips // SHARD_CLIPS).reshape(-1).tolist()))


def first_four(shards: list[int]) -> list[int]:
    """Two windows: shards that both epochs need count once."""
    return list(dict.fromkeys(shards))[: 2 * WINDOW]


def test_groups_come_in_the_order_of_their_use() -> None:
    ends = np.array([10, 20, 30, 40])
    clips = np.array([35, 12, 36, 5, 13, 25])
    assert next_groups(clips, ends, 2) == ([3, 1], 3)
    assert next_groups(clips, ends, 3) == ([3, 1, 0], 5)
    assert next_groups(clips, ends, 9) == ([3, 1, 0, 2], 6)
    many = np.repeat(np.arange(4) * 10, 3000)  # further away than the first look
    assert next_groups(many, ends, 3) == ([0, 1, 2], 9000)


def test_two_windows_are_asked_for_before_they_are_needed() -> None:
    order, source = order_of(), Told()
    expected = shards_of(order(0))
    wanted: set[int] = set()
    for plan in FetchAhead(source=source, order=order)(plans(order)):  # type: ignore[arg-type]
        assert set(shards_of(plan.clips)) <= set(source.requests[-1])
        window = plan.batch * 10 // (SHARD_CLIPS * WINDOW)
        late = plan.batch * 10 % (SHARD_CLIPS * WINDOW) >= SHARD_CLIPS * WINDOW // 2
        wanted = set(source.requests[-1])
        assert len(wanted) == 2 * WINDOW
        if late:  # half of a window is used: all of the next one is on its way
            assert wanted >= set((expected + shards_of(order(1)))[(window + 1) * WINDOW : (window + 2) * WINDOW])
    assert 12 <= len(source.requests) <= 60  # of 600 batches: now and then


def test_the_next_epoch_is_asked_for_before_this_one_ends() -> None:
    order, source = order_of(), Told()
    list(FetchAhead(source=source, order=order)(plans(order)))  # type: ignore[arg-type]
    assert set(source.requests[-1]) == set(first_four(shards_of(order(0))[-WINDOW:] + shards_of(order(1))))


def test_a_worker_and_a_resumed_run_ask_from_their_own_place() -> None:
    order, source = order_of(), Told()
    list(FetchAhead(source=source, order=order)(plans(order, 33, step=4)))  # type: ignore[arg-type]
    assert set(source.requests[0][:WINDOW]) == set(shards_of(order(0)[330:])[:WINDOW])


def test_a_window_of_every_data_set_is_in_use() -> None:
    sizes = (SHARD_CLIPS,) * SHARDS
    half = SHARD_CLIPS * SHARDS // 2
    mixed = EpochOrder(
        OrderSettings(shuffle_shards=WINDOW, weights=(1.0, 3.0)), group_sizes=sizes, dataset_sizes=(half, half), seed=0
    )
    assert (order_of().window_shards, mixed.window_shards) == (WINDOW, 2 * WINDOW)
    small = EpochOrder(OrderSettings(shuffle_shards=8), group_sizes=(5, 5), dataset_sizes=(10,), seed=0)
    assert small.window_shards == 2
