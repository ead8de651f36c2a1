"""Runs commands side by side, each with its own log; signals are passed on, and no two run in one folder."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

logger = logging.getLogger(__name__)

LOG = "log.txt"
_POLL_S = 0.1
_PROGRESS_S = 60.0
_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 4096
_LIBC = ctypes.CDLL(None)  # before any fork: nothing is to be loaded between a fork and its exec


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command to run."""

    name: str
    """For messages."""
    command: Sequence[str]
    folder: Path
    """Takes ``log.txt``, to which output is appended; locked until ``on_end`` has heard of the end."""
    is_done: Callable[[], bool] | None = None
    """Asked when the folder is free: whether another start did the work meanwhile. Then it counts as ended well."""


@dataclass(kw_only=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    lock: int
    slot: int
    started: float
    shown: str = ""


class JobRunner:
    """Runs jobs, as many at a time as there are slots.

    A SIGTERM or SIGINT to this process becomes a SIGTERM to every job, with all the processes it started; a second
    one kills them. If this process is killed, the system sends its jobs a SIGTERM (on Linux). A job whose folder is
    still in use, by a job of another start, waits for it.

    Args:
        slots: environment variables for the jobs of each slot, for instance which devices they see.
    """

    def __init__(self, slots: Sequence[Mapping[str, str]]) -> None:
        self._slots = slots
        self._running: list[_Running] = []
        self._told: set[str] = set()
        self._signals = 0
        self.seconds: dict[str, float] = {}
        """How long each job took that came to an end, by its name."""
        self.stopped_by: int | None = None
        """The signal that ended the run early."""

    def run(self, jobs: Sequence[Job], on_end: Callable[[Job, int], Sequence[Job] | None]) -> None:
        """Run all jobs to their ends; ``on_end`` gets each with its exit status (negative: the signal that ended it).

        Jobs that ``on_end`` returns waited for this one, and come before all others now. After a signal, no further job
        is started, and ``on_end`` hears of those alone that were running.
        """
        pending = deque(jobs)
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        told = time.monotonic()
        try:
            while self._running or (pending and self.stopped_by is None):
                for job in self._start(pending):
                    self.seconds[job.name] = 0.0
                    pending.extendleft(reversed(on_end(job, 0) or ()))
                for one in [one for one in self._running if one.process.poll() is not None]:
                    self._running.remove(one)
                    status = one.process.returncode
                    seconds = self.seconds[one.job.name] = time.monotonic() - one.started
                    logger.info("%s: ended with status %d after %.0f s", one.job.name, status, seconds)
                    try:
                        pending.extendleft(reversed(on_end(one.job, status) or ()))
                    finally:
                        os.close(one.lock)
                if time.monotonic() - told > _PROGRESS_S:
                    self._show_progress()
                    told = time.monotonic()
                time.sleep(_POLL_S)
        finally:
            for one in self._running:  # an error here must not leave them behind
                _signal_group(one.process, signal.SIGKILL)
                one.process.wait()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _start(self, pending: deque[Job]) -> list[Job]:
        """Start what can be started; returns what others have done meanwhile."""
        done: list[Job] = []
        free = sorted(set(range(len(self._slots))) - {one.slot for one in self._running})
        for _ in range(len(pending)):
            if not free or self.stopped_by is not None:
                break
            job = pending.popleft()
            lock = self._lock(job)
            if lock is None:
                pending.append(job)
                continue
            if job.is_done is not None and job.is_done():
                os.close(lock)
                done.append(job)
                continue
            slot = free.pop(0)
            with (job.folder / LOG).open("ab") as log:
                process = subprocess.Popen(
                    job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    env=os.environ | self._slots[slot],
                    start_new_session=True,  # signals of a terminal come through this process, once
                    pass_fds=(lock,),  # locked for as long as the job lives, even if this process does not
                    preexec_fn=_end_with_parent if sys.platform == "linux" else None,
                )  # fmt: skip
            logger.info("%s: started, log in %s", job.name, job.folder / LOG)
            self._running.append(_Running(job=job, process=process, lock=lock, slot=slot, started=time.monotonic()))
            if self.stopped_by is not None:  # the signal came while the process was being made
                _signal_group(process, signal.SIGTERM)
        return done

    def _lock(self, job: Job) -> int | None:
        job.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(job.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            if job.name not in self._told:
                self._told.add(job.name)
                logger.warning("%s: a job of another start still runs in %s; waiting for its end", job.name, job.folder)
            return None
        return lock

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.stopped_by = self.stopped_by or signum
        self._signals += 1
        for one in self._running:
            _signal_group(one.process, signal.SIGTERM if self._signals == 1 else signal.SIGKILL)

    def _show_progress(self) -> None:
        for one in self._running:
            line = last_line(one.job.folder / LOG)
            if line and line != one.shown:
                one.shown = line
                logger.info("%s: %s", one.job.name, line)


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def last_line(path: Path) -> str:
    """The last line of a log that is not empty."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")
