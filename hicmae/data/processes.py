"""How worker processes start."""

from __future__ import annotations

import multiprocessing
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
