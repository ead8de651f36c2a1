"""A training process that is killed at random moments and started again by the same command line.

Every start is a process of its own, ended by SIGKILL a random while after its first batch: while it reads, trains, or
writes a checkpoint (one after every optimiser step). ``HICMAE_KILLS=20`` (``make kill-test``) kills each run twenty
times; by default it is a few.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hicmae.data.shard_writer import write_shards
from hicmae.training.checkpoint_io import TEMPORARY
from tests.corpus import make_corpus
from tests.test_pretrain import arguments
from tests.test_resume import assert_same_weights
from tests.tracing import check_same, read_trace

KILLS = int(os.environ.get("HICMAE_KILLS", "0"))
WORKERS = (0, 1, 3)
LONGEST_S = 0.8
"""A process lives at most so long after its first batch."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 clips, one of which cannot be decoded, in shards of about 5: every batch of 3 begins in another place."""
    folder = tmp_path_factory.mktemp("kill")
    write_shards(make_corpus(folder / "corpus", 20, corrupt=[7]), folder / "shards", shard_mb=0.06)
    return folder / "shards"


def start(shards: Path, root: Path, *more: str) -> subprocess.Popen[str]:
    command = arguments(
        shards, root, "--data.batch_size=3", "--data.max_skip_fraction=0.5", "--checkpoint.every_n_train_steps=1",
        "--ckpt_path=auto", *more, "--trainer.callbacks+=tests.tracing.TraceBatches",
        f"--trainer.callbacks.path={root}/trace.jsonl",
    )  # fmt: skip
    root.mkdir(exist_ok=True)
    with (root / "log.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pretrain", *command],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=log, stdout=log, text=True, start_new_session=True,
        )  # fmt: skip


def finish(process: subprocess.Popen[str], root: Path) -> None:
    assert process.wait(timeout=300) == 0, (root / "log.txt").read_text()[-3000:]


def wait_for_a_batch(process: subprocess.Popen[str], root: Path, known: int) -> bool:
    """Wait until the process has trained a batch; False if it ended instead."""
    deadline = time.monotonic() + 120
    while len(read_trace(root / "trace.jsonl")) <= known:
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "no batch in two minutes"
        time.sleep(0.01)
    return True


def kill_until_done(shards: Path, root: Path, kills: int, *more: str, workers: tuple[int, ...]) -> tuple[int, int]:
    """Run to the end through so many kills, with another number of workers each time.

    Returns:
        How many kills there were, and how many of them came while a checkpoint was written.
    """
    rng = random.Random(3)
    while_writing = 0
    for number in range(kills):
        known = len(read_trace(root / "trace.jsonl"))
        process = start(shards, root, *more, f"--data.num_workers={workers[number % len(workers)]}")
        if not wait_for_a_batch(process, root, known):
            assert process.returncode == 0, (root / "log.txt").read_text()[-3000:]
            return number, while_writing
        time.sleep(rng.uniform(0, LONGEST_S))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while_writing += any((root / "checkpoints").glob(TEMPORARY))
    finish(start(shards, root, *more, f"--data.num_workers={workers[kills % len(workers)]}"), root)
    return kills, while_writing


def epochs(kills: int) -> str:
    """Long enough that a run is still going after so many lives: 6 batches an epoch, up to 40 a second."""
    return f"--trainer.max_epochs={4 * kills}"


@pytest.mark.slow
def test_killed_at_random_a_run_becomes_the_undisturbed_one(shards: Path, tmp_path: Path) -> None:
    """With windows of two batches, and 0, 1 and 3 workers in turn."""
    kills = KILLS or 3
    common = (epochs(kills), "--trainer.accumulate_grad_batches=2")
    undisturbed = start(shards, tmp_path / "undisturbed", *common)
    done, while_writing = kill_until_done(shards, tmp_path / "killed", kills, *common, workers=WORKERS)
    finish(undisturbed, tmp_path / "undisturbed")
    repeated = check_same(tmp_path / "killed" / "trace.jsonl", tmp_path / "undisturbed" / "trace.jsonl")
    assert_same_weights(tmp_path / "killed", tmp_path / "undisturbed")
    report(tmp_path / "killed", "one process, 0, 1 and 3 workers, windows of two", done, while_writing, repeated)
    assert done == kills, f"the run ended before kill {done + 1}; make it longer"


@pytest.mark.slow
def test_two_killed_processes_become_the_undisturbed_two(shards: Path, tmp_path: Path) -> None:
    kills = KILLS or 2
    common = (epochs(kills), "--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=1")
    undisturbed = start(shards, tmp_path / "undisturbed", *common)
    done, while_writing = kill_until_done(shards, tmp_path / "killed", kills, *common, workers=(0, 1))
    finish(undisturbed, tmp_path / "undisturbed")
    repeated = check_same(tmp_path / "killed" / "trace.jsonl", tmp_path / "undisturbed" / "trace.jsonl")
    assert_same_weights(tmp_path / "killed", tmp_path / "undisturbed")
    report(tmp_path / "killed", "two processes", done, while_writing, repeated)
    assert done == kills, f"the run ended before kill {done + 1}; make it longer"


def test_workers_end_with_a_killed_job(shards: Path, tmp_path: Path) -> None:
    process = start(shards, tmp_path / "run", "--trainer.max_epochs=500", "--data.num_workers=2")
    try:
        assert wait_for_a_batch(process, tmp_path / "run", 0)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 20
        while left := group(process.pid):
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
    finally:
        if group(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def group(leader: int) -> list[str]:
    """Living processes of a group."""
    done = subprocess.run(["ps", "-e", "-o", "pgid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = (line.split(None, 2) for line in done.stdout.splitlines())
    return [" ".join(row) for row in rows if row[0] == str(leader) and not row[1].startswith("Z")]


def report(root: Path, what: str, kills: int, while_writing: int, repeated: int) -> None:
    records = len(read_trace(root / "trace.jsonl"))
    sys.stderr.write(
        f"\n{what}: {kills} kills, {while_writing} of them while a checkpoint was written; {records} batches traced, "
        f"{repeated} of them repeated, all equal to the undisturbed run's, bit for bit\n"
    )
