"""What a run says of itself while it runs and when it ends: ``run.json``, for people and for ``hicmae report``."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from hicmae import __version__
from hicmae.training.provenance import git_revision
from hicmae.training.run_directory import run_directory

RUN_RECORD = "run.json"


class RunRecord(Callback):
    """Keeps ``run.json`` in the run directory: ``state`` is ``running``, ``finished`` or ``stopped``, with a reason.

    A process that is killed says nothing: its record stays at ``running``.
    """

    def __init__(self) -> None:
        self._about: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        planned = trainer.estimated_stepping_batches
        source = getattr(trainer.datamodule, "source", None)  # type: ignore[attr-defined]
        self._about = {
            "started": _now(),
            "steps_planned": int(planned) if math.isfinite(planned) and planned >= 0 else None,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "processes": trainer.world_size,
            "precision": str(trainer.precision),
            "hicmae": __version__,
            "torch": torch.__version__,
            "revision": git_revision(),
            "data": {"name": source.name, "clips": len(source)} if source is not None else None,
        }
        self._write(trainer, state="running", reason="")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, state="finished", reason="")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not self._about:  # it never came to train
            return
        # The class alone says what a signal did; the message of others names what was wrong.
        text = str(exception)
        said = type(exception).__name__ + (f": {text}" if text and not isinstance(exception, SystemExit) else "")
        self._write(trainer, state="stopped", reason=said)

    def _write(self, trainer: Trainer, *, state: str, reason: str) -> None:
        if not trainer.is_global_zero:
            return
        content = {"state": state, "reason": reason, "changed": _now(), "steps": trainer.global_step} | self._about
        path = run_directory(trainer) / RUN_RECORD
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, json.dumps(content, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _now() -> str:
    return datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
