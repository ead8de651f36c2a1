"""Commands side by side: logs, statuses, signals, and one at a time in a folder."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.jobs import LOG, Job, JobRunner


def shell(name: str, folder: Path, script: str) -> Job:
    return Job(name=name, command=["sh", "-c", script], folder=folder / name)


def when(ready: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """Do something, in another thread, as soon as something is so."""

    def wait() -> None:
        end = time.monotonic() + 20
        while not ready() and time.monotonic() < end:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def says(folder: Path, name: str, word: str) -> Callable[[], bool]:
    path = folder / name / LOG
    return lambda: path.exists() and word in path.read_text()


def test_every_job_runs_and_its_output_and_status_are_kept(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / LOG).write_text("before\n")
    ended: dict[str, int] = {}
    jobs = [shell("a", tmp_path, "echo one; echo two >&2; exit 3"), shell("b", tmp_path, "echo three")]
    runner = JobRunner([{}])
    runner.run(jobs, lambda job, status: ended.update({job.name: status}))
    assert ended == {"a": 3, "b": 0}
    assert runner.stopped_by is None
    assert (tmp_path / "a" / LOG).read_text() == "one\ntwo\n"
    assert (tmp_path / "b" / LOG).read_text() == "before\nthree\n"


def test_jobs_at_once_see_devices_of_their_own(tmp_path: Path) -> None:
    """Each of the first two waits for the other, so they end only if both run; the third takes the place of one."""
    meet = 'touch $0 && while [ ! -e $1 ]; do sleep 0.01; done; echo "$CUDA_VISIBLE_DEVICES"'
    names = {"a": "b", "b": "a"}
    jobs = [
        Job(name=one, command=["sh", "-c", meet, str(tmp_path / one) + "!", str(tmp_path / other) + "!"],
            folder=tmp_path / one)
        for one, other in names.items()
    ]  # fmt: skip
    jobs.append(shell("c", tmp_path, 'echo "$CUDA_VISIBLE_DEVICES"'))
    JobRunner([{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}]).run(jobs, lambda *_: None)
    seen = [(tmp_path / name / LOG).read_text().strip() for name in "abc"]
    assert seen[:2] == ["0,1", "2,3"]
    assert seen[2] in seen[:2]


def test_a_signal_is_passed_on_and_nothing_more_is_started(tmp_path: Path) -> None:
    ended: dict[str, int] = {}
    child = "sh -c 'trap \"echo child; exit\" TERM; echo ready; while :; do sleep 0.02; done' &"
    patient = f"trap 'wait; echo saved; exit 5' TERM; {child} while :; do sleep 0.02; done"
    jobs = [shell("a", tmp_path, patient), shell("b", tmp_path, "echo never")]
    runner = JobRunner([{}])
    thread = when(says(tmp_path, "a", "ready"), lambda: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    runner.run(jobs, lambda job, status: ended.update({job.name: status}))
    thread.join()
    assert ended == {"a": 5}
    assert {"child", "saved"} < set((tmp_path / "a" / LOG).read_text().split())
    assert runner.stopped_by == signal.SIGTERM
    assert not (tmp_path / "b").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_signal_kills(tmp_path: Path) -> None:
    ended: list[int] = []
    stubborn = "trap 'echo heard' TERM; echo ready; while :; do sleep 0.02; done"
    threads = [
        when(says(tmp_path, "a", "ready"), lambda: os.kill(os.getpid(), signal.SIGINT)),
        when(says(tmp_path, "a", "heard"), lambda: os.kill(os.getpid(), signal.SIGINT)),
    ]
    JobRunner([{}]).run([shell("a", tmp_path, stubborn)], lambda job, status: ended.append(status))
    for thread in threads:
        thread.join()
    assert ended == [-signal.SIGKILL]


def test_a_folder_in_use_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And the other job runs in the meantime."""
    (tmp_path / "a").mkdir()
    held = os.open(tmp_path / "a" / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    order: list[str] = []
    thread = when(lambda: "b" in order, lambda: os.close(held))
    with caplog.at_level(logging.INFO):
        JobRunner([{}]).run(
            [shell("a", tmp_path, "true"), shell("b", tmp_path, "true")], lambda job, _: order.append(job.name)
        )
    thread.join()
    assert order == ["b", "a"]
    assert caplog.text.count("a: a job of another start still runs") == 1


def test_an_error_leaves_no_job_behind(tmp_path: Path) -> None:
    def fail(job: Job, status: int) -> None:
        raise RuntimeError(job.name)

    log = tmp_path / "a" / LOG
    jobs = [
        shell("a", tmp_path, "echo $$; exec sleep 60"),
        shell("b", tmp_path, f"while [ ! -s '{log}' ]; do sleep 0.05; done"),
    ]
    with pytest.raises(RuntimeError, match="b"):
        JobRunner([{}, {}]).run(jobs, fail)
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)


def test_jobs_that_waited_for_another_come_next(tmp_path: Path) -> None:
    ended: list[str] = []

    def on_end(job: Job, status: int) -> list[Job]:
        ended.append(job.name)
        return [shell("a2", tmp_path, "true"), shell("a3", tmp_path, "true")] if job.name == "a" else []

    runner = JobRunner([{}])
    runner.run([shell("a", tmp_path, "true"), shell("b", tmp_path, "true")], on_end)
    assert ended == ["a", "a2", "a3", "b"]
    assert set(runner.seconds) == set(ended)


def test_what_another_start_has_done_is_not_run(tmp_path: Path) -> None:
    ended: list[tuple[str, int]] = []
    jobs = [
        replace(shell(name, tmp_path, f"touch '{tmp_path}/{name}.ran'; exit 3"), is_done=lambda done=done: done)
        for name, done in (("a", True), ("b", False))
    ]
    JobRunner([{}]).run(jobs, lambda job, status: ended.append((job.name, status)))
    assert ended == [("a", 0), ("b", 3)]
    assert [path.name for path in tmp_path.glob("*.ran")] == ["b.ran"]


def test_a_folder_is_kept_from_others_until_its_end_was_heard_of(tmp_path: Path) -> None:
    free: list[bool] = []

    def on_end(job: Job, status: int) -> None:
        lock = os.open(job.folder / ".lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free.append(True)
        except BlockingIOError:
            free.append(False)
        os.close(lock)

    JobRunner([{}]).run([shell("a", tmp_path, "true")], on_end)
    assert free == [False]
