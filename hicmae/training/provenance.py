"""How a model came about, in plain JSON values: in every checkpoint of a run, and in its export."""

from __future__ import annotations

import datetime
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from hicmae import __version__
from hicmae.checkpoint import CHECKPOINT_PROVENANCE, read_export, read_provenance
from hicmae.data.urls import is_url, shown
from hicmae.file_digest import sha256_of

_PLACES = frozenset(["cache_dir", "init", "manifest", "shards", "teacher", "val_shards"])
"""Settings that say where something lies. A recipe keeps their last part: folders of one machine say nothing elsewhere,
and more of their owner than is to be published."""
_TRAINER = ("max_epochs", "max_steps", "precision", "accumulate_grad_batches", "gradient_clip_val",
            "gradient_clip_algorithm", "check_val_every_n_epoch")  # fmt: skip


class RunProvenance(Callback):
    """Notes at the start of a run what it is made of, and writes it into every checkpoint.

    At the start: what ``model.init`` points to may be replaced while the run goes on.
    """

    def __init__(self) -> None:
        self._start: dict[str, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:  # which alone writes
            return
        source = trainer.datamodule.source  # type: ignore[attr-defined]
        init: Path | None = getattr(pl_module, "init", None)
        teacher: Path | None = getattr(pl_module, "teacher_path", None)
        self._start = {
            "data": {
                "name": ", ".join(map(_last_part, source.name.split(", "))),
                "index": source.fingerprint,
                "clips": len(source),
            },
            "init": None if init is None else weights_origin(init),
            **({} if teacher is None else {"teacher": weights_origin(teacher)}),
            "recipe": run_recipe(trainer),
            "processes": trainer.world_size,
            "precision": str(trainer.precision),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "hicmae": __version__,
            "torch": str(torch.__version__),  # a class of torch's own, which a checkpoint must not hold
            "revision": git_revision(),
        }
        protocol = getattr(trainer.datamodule, "protocol", None)  # type: ignore[attr-defined]
        if (
            protocol is not None
        ):  # what was tested on, and must not have been learnt: an export of a checkpoint needs it
            self._start["protocol"] = protocol.to_dict()
        of_teacher = getattr(pl_module, "distilled_from", None)  # of fine-tuning
        if of_teacher is not None and (distilled := of_teacher()) is not None:
            self._start["distillation"] = distilled

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._start:
            checkpoint[CHECKPOINT_PROVENANCE] = self.now(trainer)

    def now(self, trainer: Trainer) -> dict[str, Any]:
        """What is known by now."""
        return {
            **self._start,
            "steps": trainer.global_step,
            "epochs": trainer.current_epoch,
            "date": datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d"),
        }


def run_provenance(trainer: Trainer, *, job: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    """What a finished run's export says of its making: job, data, init, recipe, steps, versions, device, date, metrics.

    On rank 0, of a trainer that has a ``RunProvenance``.
    """
    noted = next(c for c in trainer.callbacks if isinstance(c, RunProvenance))  # type: ignore[attr-defined]
    return {"job": job, **noted.now(trainer), "metrics": dict(metrics)}


def weights_origin(path: Path) -> dict[str, Any]:
    """What a run started from: the name, the sha256 of the weights, and their own provenance (not of authors' files).

    Raises:
        FileNotFoundError, ValueError: nothing there, or an exported folder that is damaged.
    """
    if path.is_dir():
        export = read_export(path)
        return {"name": path.name, "sha256": export.sha256["model.safetensors"], "provenance": export.provenance}
    known = {"name": path.name, "sha256": sha256_of(path)}
    return known | ({"provenance": read_provenance(path)} if path.suffix == ".ckpt" else {})


def run_recipe(trainer: Trainer) -> dict[str, Any]:
    """The settings of the run that are not empty, by the names of its YAML file; none without a command line."""
    given = next((c for c in trainer.callbacks if isinstance(c, SaveConfigCallback)), None)  # type: ignore[attr-defined]
    if given is None:
        return {}
    settings = json.loads(given.parser.dump(given.config, format="json"))
    parts = {name: settings[name] for name in ("seed_everything", "benchmark", "model", "data") if name in settings}
    recipe: dict[str, Any] = _without_folders(parts)
    trainer_settings = settings["trainer"]
    return recipe | {"trainer": {name: trainer_settings[name] for name in _TRAINER if name in trainer_settings}}


def git_revision() -> str | None:
    """Revision of the source tree this library runs from; ``None`` for an installed package."""
    here = Path(__file__)
    tracked = ["git", "ls-files", "--error-unmatch", here.name]  # an environment may lie in a tree of someone else's
    try:
        for command in (tracked, ["git", "describe", "--always", "--dirty"]):
            done = subprocess.run(command, cwd=here.parent, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _without_folders(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one, name) for one in value]
    return _last_part(value) if isinstance(value, str) and name in _PLACES else value


def _last_part(place: str) -> str:
    """Of a path or a URL, whose password and query are nobody's business."""
    return Path(shown(place)).name if is_url(place) else Path(place).name
