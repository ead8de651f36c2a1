"""The predictions that a page shows: of one checkpoint on one part of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from hicmae.report.run import NotAvailableError, Run

CHECKPOINTS = {"best": "best on validation", "last": "last epoch", "tested": "tested checkpoint"}
"""Checkpoints of ``metrics.json`` in words; the first that is there is shown."""
PARTS = ("test", "val")
_FILE = "predictions.parquet"


@dataclass(frozen=True, kw_only=True)
class ShownPredictions:
    """A row a clip (or a group of clips that share a prediction)."""

    table: pd.DataFrame
    """clip_id, subject, then label, predicted and probability_CLASS, and / or DIMENSION_target and _prediction."""
    classes: tuple[str, ...]
    dimensions: tuple[str, ...]
    title: str
    """Which checkpoint and part."""
    part: str
    """test or val."""
    label: str
    """The protocol's label; empty without one."""


def shown_predictions(run: Run) -> ShownPredictions:
    """Of the best checkpoint on the test where there are both; of a cross-validation all folds together.

    Raises:
        NotAvailableError: none are there, or the file is damaged.
    """
    if run.kind == "pretrain":
        raise NotAvailableError("pre-training predicts no labels")
    about = about_of(run)
    if run.kind == "folds":
        folders = {fold: run.root / f"fold{fold}" for fold in run.metrics.get("folds", {})}
        table = pd.concat([_read(folder / _FILE).assign(fold=fold) for fold, folder in folders.items()])
        title = "all folds together"
    else:
        table, title = _read(run.root / _FILE), ""
    checkpoint = next((name for name in CHECKPOINTS if (table["checkpoint"] == name).any()), None)
    table = table[table["checkpoint"] == checkpoint]
    part = next((name for name in PARTS if (table["split"] == name).any()), None)
    if checkpoint is None or part is None:
        raise NotAvailableError(f"{_FILE} holds no prediction of a known checkpoint and split")
    table = table[table["split"] == part].reset_index(drop=True)
    said = f"{part}, {checkpoint_title(checkpoint, about.get('protocol', ''))}"
    return ShownPredictions(
        table=table,
        classes=tuple(about.get("classes", ())),
        dimensions=tuple(about.get("dimensions", ())),
        title=f"{said}, {title}" if title else said,
        part=part,
        label=about.get("protocol") or "",
    )


def about_of(run: Run) -> dict[str, Any]:
    """The part of ``metrics.json`` or ``folds.json`` that says what the scores are of."""
    about = run.metrics.get("about")
    if not isinstance(about, dict):
        raise NotAvailableError("the scores' file does not say what they are of (it has no 'about')")
    return about


def checkpoint_title(name: str, label: str) -> str:
    """A checkpoint in words; where the test clips chose it, its label says so and not 'validation'."""
    return "best epoch" if name == "best" and label else CHECKPOINTS.get(name, name)


def _read(path: Any) -> pd.DataFrame:
    if not path.is_file():
        raise NotAvailableError(f"there is no {path.name} in {path.parent.name}: the run has not come to it")
    try:
        table = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise NotAvailableError(f"{path.name} is damaged or cannot be read ({error})") from error
    if missing := {"checkpoint", "split", "clip_id", "subject"} - set(table.columns):
        raise NotAvailableError(f"{path.name} lacks the columns {', '.join(sorted(missing))}")
    return table
