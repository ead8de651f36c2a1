"""How a model came about, in plain JSON values."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from hicmae import __version__


def git_revision() -> str | None:
    """Revision of the source tree this library runs from; ``None`` for an installed package."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def run_provenance(
    trainer: Trainer, *, job: str, data: Mapping[str, Any], metrics: Mapping[str, float]
) -> dict[str, Any]:
    """What a run's export says of its making: job, data, steps, metrics, versions, device, date."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "job": job,
        "data": dict(data),
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        "device": device,
        "hicmae": __version__,
        "torch": torch.__version__,
        "revision": git_revision(),
        "date": datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d"),
        "metrics": dict(metrics),
    }
