"""Data that stops coming: the job says where, and ends."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from hicmae.data.loader import DataStoppedError
from hicmae.data.source import ManifestSource
from tests.corpus import make_corpus
from tests.test_stream import ids, make_stream


class SilentSource(ManifestSource):
    """Reading one of its clips never ends."""

    blocked = "clip005"

    def read(self, number: int) -> Any:
        if self.info(number).clip_id == self.blocked:
            time.sleep(1000)
        return super().read(number)


class DeadlySource(ManifestSource):
    """Reading one of its clips ends the process."""

    def read(self, number: int) -> Any:
        if self.info(number).clip_id == "clip005":
            os._exit(1)
        return super().read(number)


def test_data_that_stops_ends_the_job_and_says_where(tmp_path: Path) -> None:
    source = SilentSource(make_corpus(tmp_path, 8))
    whole = [batch.clip_ids[0] for batch in make_stream(ManifestSource(tmp_path / "manifest.csv"), batch_size=1)]
    rank = whole.index("clip005") % 2
    stream = make_stream(source, num_workers=2, timeout_s=6.0, rank=rank, world_size=2, batch_size=1)
    batch = whole.index("clip005") // 2
    started = time.monotonic()
    with pytest.raises(
        DataStoppedError,
        match=rf"rank {rank} of 2: the decoding processes gave no batch for 6 s \(timeout_s\). It waited for batch "
        rf"{batch} of epoch 0, whose clips lie in: .*manifest.csv \(1 clip\).* raise data.timeout_s",
    ):
        list(stream)
    assert time.monotonic() - started < 30
    assert stream._batches._loader._iterator is None


def test_a_dead_worker_is_found_before_the_time_out(tmp_path: Path) -> None:
    stream = make_stream(DeadlySource(make_corpus(tmp_path, 8)), num_workers=1, timeout_s=600.0)
    started = time.monotonic()
    with pytest.raises(DataStoppedError, match="a decoding process died, perhaps for want of memory"):
        list(stream)
    assert time.monotonic() - started < 20


def test_slow_data_is_waited_for(tmp_path: Path) -> None:
    source = SlowSource(make_corpus(tmp_path, 4))
    stream = make_stream(source, num_workers=1, timeout_s=8.0)  # longer than the loader's own waits
    assert len(ids(list(stream))) == 4
    assert stream.wait_seconds > 5
    stream.close()


class SlowSource(ManifestSource):
    """The first of its clips takes longer than one of the loader's waits."""

    def read(self, number: int) -> Any:
        if number == 0:
            time.sleep(6)
        return super().read(number)
