"""Many files through one model, in one process or several; what fails is noted, and the rest goes on.

``run_job`` knows nothing of what is made of a file: ``begin`` loads the model in each process and gives the function
that turns a file into bytes, which the journal keeps until the output is written.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol

from hicmae.data.processes import in_processes, worker_context
from hicmae.data.source import ClipUnreadableError
from hicmae.inference.items import MediaItem, as_text
from hicmae.inference.journal import FileFailure, Journal
from hicmae.media.clip import DecodeError

OnWindows = Callable[[int, int], None]
"""Called with (windows done, windows in all) of the file at hand."""
Work = Callable[[MediaItem, OnWindows], bytes]
"""Makes of a file what is kept of it. Raises ``DecodeError`` or ``ClipUnreadableError`` where the file is at fault."""
Begin = Callable[[str], Work]
"""Loads the model on a device, in a process of its own perhaps: picklable."""
_PIPE_BYTES = 512  # POSIX promises no more, Linux 4096
_SUSPECTS = 3  # files in the hands of each process, see in_processes


class Listener(Protocol):
    """Is told how a job goes; from any thread."""

    def begin(self, files: int, done: int) -> None:
        """The job has so many files, of which so many were done before."""

    def windows(self, name: str, done: int, total: int) -> None:
        """So many windows of a file's are done."""

    def finished(self, name: str, failure: FileFailure | None) -> None:
        """A file is done, or has failed."""


@dataclass(frozen=True, kw_only=True)
class JobReport:
    """What became of the files of a job."""

    files: int
    computed: int
    """Files that this run worked on; the others were done before."""
    failures: tuple[FileFailure, ...]
    """In the order of the files, those of earlier runs as well."""

    @property
    def status(self) -> int:
        """The command's exit code: 1 where files failed, else 0."""
        return 1 if self.failures else 0


def run_job(
    journal: Journal, items: Sequence[MediaItem], begin: Begin, *, devices: Sequence[str], listener: Listener
) -> JobReport:
    """Finish all items that the journal does not hold yet; then ``journal.result`` has what was made of each.

    Args:
        journal: of this job's settings.
        items: the files; names are distinct.
        begin: called once in each process.
        devices: one process for each; with one alone, this one does the work.
        listener: hears of progress.

    Raises:
        Exception: what ``begin`` raises, and what is no file's fault.
    """
    to_do = [item for item in items if not journal.done(item)]
    # Taken before the work: a file that changes under it is done again by the next run.
    fingerprints = {item.name: item.fingerprint() for item in to_do}
    listener.begin(len(items), len(items) - len(to_do))
    devices = devices[: len(to_do)]
    run = _here if len(devices) <= 1 else _in_processes
    for item, result in run(to_do, begin, devices, listener) if to_do else ():
        journal.add(item, result, fingerprint=fingerprints[item.name])
        listener.finished(item.name, result if isinstance(result, FileFailure) else None)
    failures = [failure for item in items if (failure := journal.failure(item)) is not None]
    return JobReport(files=len(items), computed=len(to_do), failures=tuple(failures))


Results = Iterator[tuple[MediaItem, bytes | FileFailure]]


def _here(items: Sequence[MediaItem], begin: Begin, devices: Sequence[str], listener: Listener) -> Results:
    work = begin(devices[0])
    for item in items:
        yield item, _attempt(work, item, functools.partial(listener.windows, item.name))


def _attempt(work: Work, item: MediaItem, on_windows: OnWindows) -> bytes | FileFailure:
    try:
        return work(item, on_windows)
    except (DecodeError, ClipUnreadableError) as error:
        return FileFailure(name=item.name, reason=error.reason, message=as_text(str(error)))


def _in_processes(items: Sequence[MediaItem], begin: Begin, devices: Sequence[str], listener: Listener) -> Results:
    """As they come. A file with which a process dies (a decoder that crashes, memory that runs out) fails alone."""
    waiting = {item.name: item for item in items}
    with _hear_workers(listener) as heard:
        pool = functools.partial(_pool, begin, devices, heard)
        while waiting:
            try:
                for item, result in pool(list(waiting.values())):
                    del waiting[item.name]
                    yield item, result
            except BrokenProcessPool:
                for item in list(waiting.values())[: _SUSPECTS * len(devices)]:
                    del waiting[item.name]
                    yield item, _alone(pool, item)


def _alone(pool: Callable[[list[MediaItem]], Results], item: MediaItem) -> bytes | FileFailure:
    try:
        ((_, result),) = pool([item])
        return result
    except BrokenProcessPool:
        message = f"{item.name}: the process died that worked on it (memory, or a fault of the decoder); re-encode it"
        return FileFailure(name=item.name, reason="crashed", message=message)


def _pool(begin: Begin, devices: Sequence[str], heard: Any, items: list[MediaItem]) -> Results:
    context = worker_context()
    numbers = context.SimpleQueue()
    for number in range(len(devices)):
        numbers.put(number)
    workers = min(len(devices), len(items))
    start = functools.partial(_begin_worker, begin, tuple(devices), numbers, heard)
    yield from in_processes(_work_on, items, workers=workers, begin=start)


_worker: tuple[Work, Any] | Exception | None = None


def _begin_worker(begin: Begin, devices: tuple[str, ...], numbers: Any, heard: Any) -> None:
    global _worker
    try:
        _worker = begin(devices[numbers.get()]), heard
    except Exception as error:
        # A process that fails to start looks like one that a file has killed; so its first file tells.
        _worker = error


def _work_on(item: MediaItem) -> bytes | FileFailure:
    if isinstance(_worker, Exception):
        raise _worker
    assert _worker is not None
    work, heard = _worker
    return _attempt(work, item, lambda done, total: _say(heard, (item.name, done, total)))


class _hear_workers:
    """A pipe of (name, done, total) from the processes; a thread tells the listener.

    Not a queue, whose lock a process that is killed would take with it: what is written into a pipe at once, up to
    ``_PIPE_BYTES``, arrives whole and unmixed.
    """

    def __init__(self, listener: Listener) -> None:
        self._reader, self._writer = worker_context().Pipe(duplex=False)
        self._thread = threading.Thread(target=self._run, args=(listener,), name="hear-workers", daemon=True)

    def _run(self, listener: Listener) -> None:
        with open(self._reader.fileno(), "rb", closefd=False) as lines:
            for line in lines:
                if (message := json.loads(line)) is None:
                    return
                listener.windows(*message)

    def __enter__(self) -> Any:
        self._thread.start()
        return self._writer

    def __exit__(self, *_: object) -> None:
        _say(self._writer, None)
        self._thread.join()
        self._writer.close()
        self._reader.close()


def _say(writer: Any, message: tuple[str, int, int] | None) -> None:
    line = json.dumps(message).encode() + b"\n"
    if len(line) <= _PIPE_BYTES:  # progress is shown of names of any sensible length
        os.write(writer.fileno(), line)
