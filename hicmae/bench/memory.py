"""Peak memory of a step, each measured in a process of its own: nothing that ran before counts.

``python -m hicmae.bench.memory`` is that process; its arguments are the library's own business.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from hicmae.bench.measure import synchronize
from hicmae.bench.settings import BenchSettings

_STEPS = 2
_TIMEOUT_S = 1800


def peak_memory(stage: str, settings: BenchSettings, *, against: str | None = None) -> int:
    """Bytes that a stage's model, gradients, optimiser and activations take at most, over two steps.

    On a GPU what torch allocated there; on a processor by how much the resident memory of the process grew, libraries
    not counted.

    Args:
        stage: one with a model.
        settings: of the step.
        against: folder of the reference, whose step is measured instead of ours.

    Raises:
        ValueError: the process came to no end; holds the last of what it said.
    """
    command = [sys.executable, "-m", "hicmae.bench.memory", stage, json.dumps(dataclasses.asdict(settings))]
    environment = os.environ | {"OMP_NUM_THREADS": str(settings.threads)}
    done = subprocess.run(
        command + ([against] if against else []), capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise ValueError(f"the memory of {stage} could not be measured: {last}")
    return int(done.stdout.splitlines()[-1])


def measure_growth(device: torch.device, build: Callable[[], Callable[[], object]]) -> int:
    """Bytes by which memory grew at most while ``build`` made a step and this ran twice."""
    torch.mm(torch.ones(256, 256, device=device), torch.ones(256, 256, device=device))  # libraries load themselves
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    else:
        _forget_peak()
        before = resident_bytes()
    step = build()
    for _ in range(_STEPS):
        step()
    synchronize(device)
    return (torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident_bytes()) - before


def resident_bytes() -> int:
    """Memory of this process now; where the system does not tell, the most so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_resident_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_resident_bytes() -> int:
    """The most memory that this process had, since ``_forget_peak`` where the system can forget."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # the peak so far was that of loading libraries, far below a step's


def _main(stage: str, settings: str, against: str | None = None) -> None:
    from hicmae.bench.batch import SyntheticBatch
    from hicmae.bench.steps import stage_step

    chosen = BenchSettings(**json.loads(settings))
    torch.set_num_threads(chosen.threads)
    batch = SyntheticBatch.make(chosen.config, chosen.batch, chosen.torch_device)

    if against is None:
        build = functools.partial(stage_step, stage, chosen, batch)
    else:
        from hicmae.bench.versus import load_reference, reference_step

        # Imported before memory is measured: their libraries do not count, as ours do not.
        build = functools.partial(reference_step, load_reference(against, chosen), stage, chosen, batch)
    sys.stdout.write(f"{measure_growth(chosen.torch_device, build)}\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
