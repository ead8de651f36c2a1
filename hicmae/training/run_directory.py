"""Where a run keeps its files: ``checkpoints/``, ``export/``, ``figures/``, ``logs/``, below one directory."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer


def run_directory(trainer: Trainer) -> Path:
    """The run's directory (``trainer.default_root_dir``)."""
    return Path(trainer.default_root_dir)


def checkpoint_directory(root: str | Path) -> Path:
    """Where a run's checkpoints are."""
    return Path(root) / "checkpoints"


def export_directory(root: str | Path) -> Path:
    """Where a run leaves the model that others load; a job writes it last."""
    return Path(root) / "export"


def last_checkpoint(trainer: Trainer) -> Path:
    """The name under which the newest checkpoint is found."""
    return checkpoint_directory(run_directory(trainer)) / "last.ckpt"
