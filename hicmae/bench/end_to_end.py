"""The real pre-training job on stored clips: how fast it is once it runs, and how long it stands still for data.

The job is a process of its own, started as users start it, and its own log is read: the library does not import jobs.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hicmae.bench.settings import BenchSettings
from hicmae.speed import SpeedConfig

_TIMEOUT_S = 3600


@dataclass(frozen=True, kw_only=True)
class JobLine:
    """A line of the job's log."""

    clips_per_s: float
    data_wait_percent: float
    queue_depth: float


def run_job(settings: BenchSettings, shards: Path, folder: Path, *, steps: int) -> list[JobLine]:
    """Train for ``steps`` steps; the lines of the log, four in all, but the first, in which the job warms up.

    Args:
        settings: model, device, precision, batch and decoding processes.
        shards: the clips.
        folder: where the run is written.
        steps: a multiple of four.

    Raises:
        ValueError: the job failed; holds the last of what it said.
    """
    if importlib.util.find_spec("pretrain") is None:
        raise ValueError("end-to-end needs the pre-training job, which is not installed: pip install 'hicmae[train]'")
    device = settings.torch_device
    every = steps // 4
    options = {
        "model.preset": settings.preset,
        "model.speed.compile": settings.compile,
        "model.speed.recompute": settings.recompute or SpeedConfig().recompute,
        "model.optimizer.warmup_epochs": "0",
        "data.shards": json.dumps([str(shards)]),
        "data.batch_size": str(settings.batch),
        "data.num_workers": str(settings.workers),
        "data.weights": "[1.0]",  # with which an epoch may be longer than the clips
        "data.epoch_clips": str(settings.batch * steps),
        "trainer.default_root_dir": str(folder),
        "trainer.max_steps": str(steps),
        "trainer.log_every_n_steps": str(every),
        "trainer.accelerator": "gpu" if settings.on_gpu else "cpu",
        "trainer.devices": f"[{device.index or 0}]" if settings.on_gpu else "1",
        "trainer.precision": "bf16-mixed" if settings.precision == "bf16" else "32-true",
        "trainer.enable_progress_bar": "false",
        "wandb": "off",
    }
    command = [sys.executable, "-m", "pretrain", "fit"]
    command += [part for name, value in options.items() for part in (f"--{name}", value)]
    environment = os.environ | {"OMP_NUM_THREADS": str(settings.threads)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise ValueError(f"the pre-training job failed: {last}")
    with next(folder.glob("logs/*/metrics.csv")).open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line.get("clips_per_s")]
    return [
        JobLine(
            clips_per_s=float(line["clips_per_s"]),
            data_wait_percent=float(line["data_wait_percent"]),
            queue_depth=float(line["queue_depth"]),
        )
        for line in lines
        if int(line["step"]) > every
    ]
