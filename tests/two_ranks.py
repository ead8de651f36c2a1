"""Runs ``python -m finetune`` on two ranks, as torchrun would start them: ``python -m tests.two_ranks fit ...``.

What both import takes far longer than what they do, so it is imported once, and both are forked from here. Figures are
left out; they are tested elsewhere.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Sequence
from multiprocessing.connection import wait

import finetune.callbacks
import finetune.finish
from finetune.__main__ import main

RANKS = 2


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_rank(rank: int, arguments: Sequence[str]) -> None:
    """The job, as this rank."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(RANKS)}
    for module, name in (("finish", "draw_confusion"), ("finish", "draw_scatter"), ("callbacks", "draw_curves")):
        setattr(getattr(finetune, module), name, lambda *args, **more: None)
    sys.exit(main(arguments))


if __name__ == "__main__":
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=run_rank, args=(rank, sys.argv[1:])) for rank in range(RANKS)]
    for process in both:
        process.start()
    waiting = {process.sentinel: process for process in both}
    while waiting:
        for ended in wait(list(waiting)):
            if waiting.pop(ended).exitcode:  # type: ignore[call-overload]
                for other in waiting.values():  # would wait for it for half an hour
                    other.kill()
    sys.exit(max(abs(process.exitcode or 0) for process in both))
