"""Where the processes of a job compute."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

_MOST = 8
"""Processes that are started unasked on processors: each holds the model, a gigabyte with the base size."""
_MOST_ON_A_GPU = 4
"""The same on a CUDA device. Each decodes with one core, 0.02 s a window: one alone would keep the device waiting."""


def job_devices(device: str, workers: int | None) -> list[str]:
    """The device of each process.

    Args:
        device: ``auto`` (all CUDA devices, else the processor), ``cpu``, ``cuda`` (all of them), ``cuda:1``, ...
        workers: processes; None for one a core, at most 8 on processors, and 4 a CUDA device (at least one each).

    Raises:
        ValueError: a device that is not there, or no worker.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} must be at least 1 process")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        kind = torch.device("cuda" if device == "auto" and count else "cpu" if device == "auto" else device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device} is none that PyTorch knows ({error}); give auto, cpu, cuda or cuda:1"
        ) from None
    if kind.type == "cuda" and (not count or (kind.index or 0) >= count):
        raise ValueError(
            f"device={device}: this machine has {count} CUDA devices that PyTorch can use; give cpu or auto"
        )
    cores = len(os.sched_getaffinity(0))
    if kind.type != "cuda":
        return [str(kind)] * (workers or min(_MOST, cores))
    there = [f"cuda:{kind.index}"] if kind.index is not None else [f"cuda:{number}" for number in range(count)]
    each = max(1, min(_MOST_ON_A_GPU, cores // len(there)))
    return [there[number % len(there)] for number in range(workers or each * len(there))]


def kinds_of(devices: Sequence[str]) -> str:
    """What kinds of devices these are, ``cpu`` or ``cuda``: the last digits of what they compute depend on it."""
    return ",".join(sorted({torch.device(device).type for device in devices}))
