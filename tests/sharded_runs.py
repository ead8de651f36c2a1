"""Pre-training on two ranks, several runs one after the other: ``python -m tests.sharded_runs FOLDER``.

``FOLDER/runs.json`` holds a list of runs, each a list of arguments. What they import takes far longer than what they
do, so it is imported once, and both ranks are forked from here. Each run has its own port. Pictures are not drawn. At
the end the ranks count what single steps send, into ``traffic.json``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch.distributed as dist

import hicmae.training.cli
import pretrain.callbacks
import pretrain.online_probes
from benchmarks.communication import WAYS, steps_of_rank
from pretrain.__main__ import main
from tests.tiny_model import TINY
from tests.two_ranks import RANKS, free_port

BATCH = 3


def run_rank(rank: int, folder: Path, ports: list[int]) -> None:
    """All runs, as this rank; ends with the first that fails."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1"}
    hicmae.training.cli.usable_precision = lambda precision, accelerator: precision  # this processor has bfloat16
    for name in ("draw_curves", "draw_reconstruction"):
        setattr(pretrain.callbacks, name, lambda *args, **more: None)
    pretrain.online_probes.draw_probes = lambda *args, **more: Path()
    for arguments, port in zip(json.loads((folder / "runs.json").read_text()), ports[1:], strict=True):
        os.environ["MASTER_PORT"] = str(port)
        if status := main(arguments):
            sys.exit(status)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{ports[0]}", rank=rank, world_size=RANKS)
    found = steps_of_rank(TINY, list(WAYS), BATCH)
    if rank == 0:
        plain = {way: ([asdict(one) for one in traffic], loss) for way, (traffic, loss) in found.items()}
        (folder / "traffic.json").write_text(json.dumps(plain))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    free = [free_port() for _ in range(1 + len(json.loads((place / "runs.json").read_text())))]
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=run_rank, args=(rank, place, free)) for rank in range(RANKS)]
    for process in both:
        process.start()
    until = time.monotonic() + 220  # the test waits for 240
    for process in both:
        process.join(timeout=max(0.0, until - time.monotonic()))
    for process in both:
        process.kill()
    sys.exit(max(1 if process.exitcode is None else abs(process.exitcode) for process in both))
