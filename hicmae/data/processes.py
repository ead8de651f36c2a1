"""How worker processes start, and end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing.context import BaseContext
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
_AHEAD = 3  # tasks in the hands of each process; a million futures at once would take more memory than the work


def worker_context() -> BaseContext:
    """A start method that copies no threads: ``forkserver``, or ``spawn`` where there is none.

    Plain ``fork`` deadlocks when the parent holds threads of audio libraries, loggers or CUDA. The fork server is
    asked to import the library once, so that each worker does not spend seconds on importing torch.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hicmae.data.pipeline", "hicmae.data.fork_server"])
    return context


def in_processes(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int, begin: Callable[[], None] | None = None
) -> Iterator[tuple[Task, Result]]:
    """Each task with what was made of it, as they come; the processes end with this one, killed or not.

    Args:
        work: done to each task; it pickles, and so do task and result. Its first error ends all.
        tasks: taken as they are needed.
        workers: processes.
        begin: called in each process at its start.

    Raises:
        BrokenProcessPool: a process was killed.
    """
    waiting = iter(tasks)
    with ProcessPoolExecutor(
        workers, mp_context=worker_context(), initializer=_begin_in_pool, initargs=(begin,)
    ) as pool:  # fmt: skip
        running: dict[Future[Result], Task] = {}
        try:
            while True:
                for task in islice(waiting, _AHEAD * workers - len(running)):
                    running[pool.submit(work, task)] = task
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin_in_pool(begin: Callable[[], None] | None) -> None:
    end_with_parent()
    obey_signals()
    if begin is not None:
        begin()


def live_as_long_as_the_job(worker: int) -> None:
    """Let this worker end with the process that asked for it, or when that one says so, and no sooner."""
    end_with_parent()
    obey_parent_alone()


def obey_parent_alone() -> None:
    """Let SIGTERM end this process only if it comes from the process that asked for it.

    A cluster sends it to all processes of a job, and the job then has a step to finish, for which it needs its data.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        return
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # here, and in all threads that begin from now on

    def watch() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
            pass
        os._exit(1)

    threading.Thread(target=watch, name="obey-parent-alone", daemon=True).start()


def obey_signals() -> None:
    """Let SIGTERM end this process, as pools that fork from the same server count on: it begins with it blocked."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def end_with_parent() -> None:
    """Let this worker end when the process that asked for it does, killed or not.

    PyTorch's own watch looks at the parent's number, and the parent of a worker is the fork server, which lives on as
    long as its workers do: without this, a killed job leaves all of them behind.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
