"""Going on deep in an epoch costs arithmetic: no clip that was seen is read again."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import PretrainingDraws
from hicmae.data.loader import LoaderSettings
from hicmae.data.source import ClipInfo, EncodedClip, ManifestSource
from hicmae.data.stream import TrainStream
from tests.corpus import make_corpus

MODEL = ModelConfig.preset("micro", image_size=32, num_frames=2)
BATCH = 4


class ManyClips:
    """One clip under many names, in shards; notes what is read."""

    def __init__(self, clip: ManifestSource, *, shards: int, clips_per_shard: int) -> None:
        self._clip = clip
        self._shards = shards
        self._clips_per_shard = clips_per_shard
        self.group_sizes = (clips_per_shard,) * shards
        self.dataset_sizes = (len(self),)
        self.numbers_read: list[int] = []

    def __len__(self) -> int:
        return self._shards * self._clips_per_shard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clip, name)

    def shard_of(self, number: int) -> int:
        return number // self._clips_per_shard

    def info(self, number: int) -> ClipInfo:
        return replace(self._clip.info(0), clip_id=f"clip{number}")

    def read(self, number: int) -> EncodedClip:
        self.numbers_read.append(number)
        return replace(self._clip.read(0), clip_id=f"clip{number}")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ManifestSource:
    return ManifestSource(make_corpus(tmp_path_factory.mktemp("positioning"), 1))


def stream(source: ManyClips) -> TrainStream:
    return TrainStream(
        source,
        spec=InputSpec.for_model(MODEL),
        draws=PretrainingDraws(model=MODEL),
        loader=LoaderSettings(batch_size=BATCH, num_workers=0),
    )


def go_on_at(source: ManyClips, batch: int) -> TrainStream:
    resumed = stream(source)
    resumed.load_state_dict(stream(source).state_dict() | {"epoch": 3, "batch": batch, "place": batch * BATCH})
    return resumed


@pytest.mark.parametrize("batch", [0, 7, 24])
def test_only_the_clips_of_the_next_batches_are_read(clip: ManifestSource, batch: int) -> None:
    """An epoch of 25 batches from 10 shards; 7 batches end in the middle of a shard."""
    source = ManyClips(clip, shards=10, clips_per_shard=10)
    whole = [one.clip_ids for one in go_on_at(source, 0)]
    source.numbers_read.clear()
    resumed = iter(go_on_at(source, batch))
    assert source.numbers_read == [], "reads before the first batch is asked for"
    assert [one.clip_ids for one in resumed] == whole[batch:]
    assert [f"clip{number}" for number in source.numbers_read] == [name for ids in whole[batch:] for name in ids]


@pytest.mark.alone
def test_going_on_among_a_million_clips_takes_no_longer_than_beginning(clip: ManifestSource) -> None:
    source = ManyClips(clip, shards=1000, clips_per_shard=1000)
    times_s: dict[int, list[float]] = {0: [], 249_000: []}
    for _ in range(3):
        for batch, times in times_s.items():
            source.numbers_read.clear()
            started = time.perf_counter()
            next(iter(go_on_at(source, batch)))
            times.append(time.perf_counter() - started)
            assert len(source.numbers_read) == BATCH
    begin, resume = min(times_s[0]), min(times_s[249_000])
    assert resume < 2 * begin
    assert resume < 2.0, "seconds to the first batch; a replay of the epoch would be 996,000 reads"
