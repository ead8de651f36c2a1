from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from hicmae.data.batch import Skip
from hicmae.data.seen import Seen
from tests.test_batch import make_batch


def test_batches_add_up() -> None:
    batch = replace(
        make_batch(3), index=torch.tensor([4, 9, -1]), bytes_read=1000, video_seconds=5.12, audio_seconds=2.6,
        shard_costs={2: (1, 0.5, 0.25), 7: (1, 0.1, 0.1)},
        skipped=[Skip(clip_id="a", reason="truncated", detail=""), Skip(clip_id="b", reason="truncated", detail="")],
    )  # fmt: skip
    seen = Seen()
    seen.add(batch, wait_seconds=0.5, ready_batches=3)
    seen.add(replace(batch, skipped=[], shard_costs={2: (2, 1.0, 0.0)}), wait_seconds=0.25, ready_batches=0)
    assert seen.clips == 4  # padding is no clip
    assert seen.bytes_read == 2000
    assert (seen.video_seconds, seen.audio_seconds) == (pytest.approx(10.24), pytest.approx(5.2))
    assert seen.wait_seconds == 0.75
    assert seen.queue_depth == 1.5
    assert seen.skipped == Counter(truncated=2)
    assert (seen.shards[2].clips, seen.shards[2].read_seconds, seen.shards[2].decode_seconds) == (3, 1.5, 0.25)
    assert seen.shards[2].seconds_per_clip == pytest.approx(1.75 / 3)


def test_parts_add_up_and_stay_as_they_are() -> None:
    left, right = Seen(clips=2, skipped=Counter(a=1)), Seen(clips=3, wait_seconds=1.0, skipped=Counter(a=1, b=2))
    total = left + right
    assert (total.clips, total.wait_seconds, total.skipped) == (5, 1.0, Counter(a=2, b=2))
    assert left.skipped == Counter(a=1)


def test_counts_survive_a_checkpoint() -> None:
    seen = Seen(clips=2, bytes_read=7, video_seconds=0.5, skipped=Counter(a=1))
    values = seen.to_dict()
    assert Seen.from_dict(values) == seen
    assert all(type(value) in (int, float, dict) for value in values.values())
