"""How many folds run at once, and which devices each sees."""

from __future__ import annotations

import os
from typing import Any

import torch


def device_slots(parallel: int | None, *, accelerator: str, devices: Any) -> list[dict[str, str]]:
    """Environment variables for each of the jobs that run side by side.

    On GPUs, each job gets as many as ``trainer.devices`` says; ``auto`` (and -1) is all of them, or an equal share
    with ``parallel``. On a processor jobs run one after another unless ``parallel`` says otherwise.

    Args:
        parallel: jobs at once; ``None``: as many as there are devices for.
        accelerator, devices: of the trainer.

    Raises:
        ValueError: not enough GPUs, or devices chosen by number for several jobs.
    """
    if parallel is not None and parallel < 1:
        raise ValueError(f"--parallel {parallel} must be at least 1")
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return [{} for _ in range(parallel or 1)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    everything = str(devices) in ("auto", "-1")
    if not everything and not str(devices).isdecimal():  # a list of devices, for one job
        if parallel not in (None, 1):
            raise ValueError(
                f"--parallel {parallel}: trainer.devices={devices} chooses devices by number, so every fold would use "
                "the same; give the number of devices a fold needs"
            )
        return [{}]
    each = len(there) // (parallel or 1) if everything else int(devices)
    jobs = parallel or max(1, len(there) // each)
    if each < 1 or jobs * each > len(there):
        raise ValueError(
            f"{jobs} folds at once with {max(each, 1)} GPUs each need {jobs * max(each, 1)}, and {len(there)} are "
            "there; lower --parallel or trainer.devices"
        )
    return [{"CUDA_VISIBLE_DEVICES": ",".join(there[i * each : (i + 1) * each])} for i in range(jobs)]
