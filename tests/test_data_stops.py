"""Data that stops coming: the job says where, and ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hicmae.data.epoch import EpochOrder, OrderSettings
from hicmae.data.loader import DataStoppedError
from hicmae.data.manifest import Manifest
from hicmae.data.source import ManifestSource
from tests.corpus import make_corpus
from tests.silent_source import STUCK, DeadlySource, SilentSource, SlowSource
from tests.test_stream import ids, make_stream


@pytest.mark.slow
def test_data_that_stops_ends_the_job_and_says_where(tmp_path: Path) -> None:
    source = SilentSource(make_corpus(tmp_path, 8))
    whole = [batch.clip_ids[0] for batch in make_stream(ManifestSource(tmp_path / "manifest.csv"), batch_size=1)]
    rank = whole.index(STUCK) % 2
    stream = make_stream(source, num_workers=2, timeout_s=6.0, rank=rank, world_size=2, batch_size=1)
    batch = whole.index(STUCK) // 2
    batches, before = iter(stream), []
    for _ in range(batch):
        before.append(next(batches))
    workers = stream._batches._loader._iterator._workers if before else []
    started = time.monotonic()
    with pytest.raises(
        DataStoppedError,
        match=rf"rank {rank} of 2: the decoding processes gave no batch for 6 s \(timeout_s\). It waited for batch "
        rf"{batch} of epoch 0, whose clips lie in: .*manifest.csv \(1 clip\).* raise data.timeout_s",
    ):
        list(batches)
    assert time.monotonic() - started < 30
    assert stream._batches._loader._iterator is None
    assert before, "choose a clip that does not come first"
    assert not any(is_alive(worker.pid) for worker in workers), "stuck workers were left behind"


def test_a_dead_worker_is_found_before_the_time_out(tmp_path: Path) -> None:
    stream = make_stream(DeadlySource(make_corpus(tmp_path, 8)), num_workers=1, timeout_s=600.0)
    started = time.monotonic()
    with pytest.raises(DataStoppedError, match="a decoding process died, perhaps for want of memory"):
        list(stream)
    assert time.monotonic() - started < 20


def test_slow_data_is_waited_for(tmp_path: Path) -> None:
    source = SlowSource(make_corpus(tmp_path, 6))
    stream = make_stream(source, num_workers=1, timeout_s=12.0)  # longer than the loader's own waits
    assert len(ids(list(stream))) == 6
    assert stream.wait_seconds > 5
    stream.close()


@pytest.mark.slow
def test_a_job_of_two_processes_ends_when_the_data_of_one_stops(tmp_path: Path) -> None:
    """The other rank waits for it in a collective: it must not stay there. Both jobs mostly wait: at the same time."""
    manifest = make_corpus(tmp_path, 8)
    started, jobs = time.monotonic(), []
    for launcher, rank in (("lightning", 0), ("torchrun", 1)):
        seed = next(s for s in range(50) if STUCK in joint_share(manifest, seed=s, rank=rank)[1])
        command = ["-m", "tests.record_stream", str(manifest.path), str(tmp_path / launcher), "--batch_size=1",
                   "--num_workers=1", "--max_epochs=1", "--ranks=2", f"--seed={seed}", "--timeout_s=20",
                   "--stuck"]  # fmt: skip
        if launcher == "torchrun":
            command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", *command]
        log = tmp_path / f"{launcher}.txt"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with log.open("w") as file:
            job = subprocess.Popen([sys.executable, *command], env=environment, stdout=file, stderr=file)
        jobs.append((launcher, rank, job, log))
    for launcher, rank, job, log in jobs:
        assert job.wait(timeout=200) != 0, launcher
        assert f"rank {rank} of 2: the decoding processes gave no batch for 20 s" in log.read_text(), launcher
        for own in (0, 1):  # rank 1 may outlive rank 0, for a moment
            process = int((tmp_path / launcher / f"pid{own}").read_text())
            while is_alive(process):
                assert time.monotonic() - started < 200, f"{launcher}: rank {own} still runs"
                time.sleep(0.5)


def joint_share(manifest: Manifest, *, seed: int, rank: int) -> list[list[str]]:
    """Clips of a rank's batches of one clip, of two ranks."""
    order = EpochOrder.of(ManifestSource(manifest), OrderSettings(), seed=seed)(0)
    return [[manifest.clips[number].clip_id] for number in order[rank::2].tolist()]


def is_alive(process: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False
