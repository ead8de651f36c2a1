"""How worker processes start, and end."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.context import BaseContext


def worker_context() -> BaseContext:
    """A start method that copies no threads: ``forkserver``, or ``spawn`` where there is none.

    Plain ``fork`` deadlocks when the parent holds threads of audio libraries, loggers or CUDA. The fork server is
    asked to import the library once, so that each worker does not spend seconds on importing torch.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hicmae.data.pipeline"])
    return context


def end_with_parent(worker: int = 0) -> None:
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
