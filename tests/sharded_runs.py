"""Pre-training on two ranks, several runs one after the other: ``python -m tests.sharded_runs FILE``.

``FILE`` holds a JSON list of runs, each a list of arguments. What they import takes far longer than what they do, so it
is imported once, and both ranks are forked from here. Each run has its own port; pictures are left out but for the
reconstruction's numbers.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path

import pretrain.callbacks
from pretrain.__main__ import main
from tests.two_ranks import RANKS, free_port


def run_rank(rank: int, runs: list[list[str]], ports: list[int]) -> None:
    """All runs, as this rank; ends with the first that fails."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1"}
    for name in ("draw_curves", "draw_reconstruction"):
        setattr(pretrain.callbacks, name, lambda *args, **more: None)
    for arguments, port in zip(runs, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        if status := main(arguments):
            sys.exit(status)


if __name__ == "__main__":
    todo = json.loads(Path(sys.argv[1]).read_text())
    ports = [free_port() for _ in todo]
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=run_rank, args=(rank, todo, ports)) for rank in range(RANKS)]
    for process in both:
        process.start()
    for process in both:
        process.join(timeout=120)
    for process in both:
        process.kill()
    sys.exit(max(1 if process.exitcode is None else abs(process.exitcode) for process in both))
