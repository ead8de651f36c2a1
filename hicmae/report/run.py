"""What a run left behind, read as far as it is there: a page about it needs none of its files in particular."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hicmae.report.history import read_history, version_folders

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["pretrain", "finetune", "folds"]
_LOOKED_FOR = "logs/version_N/config.yaml, export/config.json, metrics.json or folds.json"


class NotAvailableError(Exception):
    """Why something of a page cannot be made from this run; the text goes into the page."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run directory; what is asked for is read when it is asked for."""

    root: Path
    kind: Kind

    @cached_property
    def config(self) -> dict[str, Any]:
        """The run's full configuration, of a cross-validation that of its first fold; empty where it was not kept."""
        if self.kind == "folds":
            folds = sorted(path for path in self.root.glob("fold*") if path.is_dir())
            return next((own for fold in folds if (own := Run(root=fold, kind="finetune").config)), {})
        text = self.config_text
        if not text:
            return {}
        import yaml

        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise NotAvailableError(f"the run's config.yaml is damaged ({error})") from error
        return content if isinstance(content, dict) else {}

    @cached_property
    def config_text(self) -> str:
        """``config.yaml`` of the latest start; of a cross-validation ``settings.json``."""
        places = [folder / "config.yaml" for folder in reversed(version_folders(self.root))]
        places += [self.root / "config.yaml", self.root / "settings.json"]
        return next((place.read_text("utf-8", errors="replace") for place in places if place.is_file()), "")

    @cached_property
    def history(self) -> pd.DataFrame:
        """Logged lines of all starts, by step; empty without a log."""
        return read_history(self.root)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """``metrics.json``, or ``folds.json`` of a cross-validation.

        Raises:
            NotAvailableError: it is not there, or damaged.
        """
        return read_json(self.root / ("folds.json" if self.kind == "folds" else "metrics.json"))

    @cached_property
    def record(self) -> dict[str, Any]:
        """``run.json``; empty for runs of versions that did not write it."""
        return read_json(self.root / "run.json") if (self.root / "run.json").is_file() else {}

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What the export says of its making; empty without an export."""
        path = self.root / "export" / "config.json"
        found = read_json(path).get("provenance") if path.is_file() else None
        return found if isinstance(found, dict) else {}

    @property
    def model(self) -> dict[str, Any]:
        """The configuration's part about the model."""
        return _part(self.config, "model")

    @property
    def data(self) -> dict[str, Any]:
        """The configuration's part about the data."""
        return _part(self.config, "data")

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest training checkpoint."""
        path = self.root / "checkpoints" / "last.ckpt"
        if path.is_file():
            return path
        found = sorted(self.root.glob("checkpoints/step*.ckpt"))
        return found[-1] if found else None


def open_run(root: str | Path) -> Run:
    """Recognise a run directory.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it is no run of pre-training, fine-tuning or cross-validation.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"no folder {root}; give the run directory, the trainer.default_root_dir of the training"
        )
    if (root / "folds.json").is_file():
        return Run(root=root, kind="folds")
    kind = _kind_of(root)
    if kind is None:
        raise ValueError(
            f"{root} is no run of pretrain, finetune or finetune folds: looked for {_LOOKED_FOR}; give the folder that "
            "was the training's trainer.default_root_dir, or the --out of folds"
        )
    return Run(root=root, kind=kind)


def _kind_of(root: Path) -> Kind | None:
    unread = Run(root=root, kind="finetune")
    try:
        if unread.model:
            return "finetune" if "labels" in unread.model else "pretrain"
        job = unread.provenance.get("job")
    except NotAvailableError:
        job = None
    if job in ("pretrain", "finetune"):
        return "pretrain" if job == "pretrain" else "finetune"
    if (root / "metrics.json").is_file():
        try:
            about = unread.metrics.get("about")
        except NotAvailableError:
            return "finetune"  # alone pre-training leaves no such file; the sections say that it is damaged
        return "finetune" if isinstance(about, dict) and {"modalities", "columns"} <= set(about) else None
    if unread.last_checkpoint is not None or version_folders(root):
        return "pretrain"
    return None


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds a JSON object.

    Raises:
        NotAvailableError: it is not there, or holds something else.
    """
    if not path.is_file():
        raise NotAvailableError(f"there is no {path.name}: the run has not come to it")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise NotAvailableError(f"{path.name} is damaged or cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise NotAvailableError(f"{path.name} holds no JSON object")
    return content


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    part = config.get(name)
    return part if isinstance(part, dict) else {}
