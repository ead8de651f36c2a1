"""What finished runs scored: one tidy table of a study, holes included."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from finetune.study.grid import Row
from finetune.study.spec import Study
from finetune.study.store import Store
from hicmae.data.splits import TEST, VAL

CHECKPOINTS = ("best", "frozen", "last")
"""Kinds of scores of a row; the first one there is the one that is compared."""
_ERRORS = ("mae", "rmse")
DONE, NOT_RUN = "finished", "not run"
COLUMNS = (
    "pretraining", "finetuning", "seed", "fold", "checkpoint", "metric", "value", "status", "detail", "protocol", "run",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What one row scored on the test clips."""

    checkpoint: str
    """best (on validation) or last of a training; frozen for a probe."""
    values: Mapping[str, float | None]
    predictions: pd.DataFrame
    """As ``Evaluation.table``, sorted by clip."""
    classes: tuple[str, ...]
    dimensions: tuple[str, ...]
    protocol: str
    """The label of its numbers; empty where the test clips played no part in the choice."""
    detail: str = ""
    """Of a probe: what was chosen on validation."""


def read_scores(study: Study, row: Row, store: Store) -> list[Scores]:
    """The scores of a finished row, the ones to compare first.

    Raises:
        ValueError: a metric of the study that the run does not have.
    """
    folder = store.folder(row.run)
    if row.run.kind == "probe":
        found = [_probe(study, row, folder / "probe")]
    else:
        root = folder / "test" if row.run.kind == "test" else folder
        found = _training(root)
    for one in found:
        if lacking := [name for name in study.metrics if name not in one.values]:
            raise ValueError(f"{row.run.name} has no score {lacking[0]}; it has {', '.join(one.values)}: see metrics")
    return sorted(found, key=lambda one: CHECKPOINTS.index(one.checkpoint))


def _training(root: Path) -> list[Scores]:
    content: dict[str, Any] = json.loads((root / "metrics.json").read_text())
    table = pd.read_parquet(root / "predictions.parquet")
    about = content.pop("about")
    if any(TEST not in one for one in content.values()):
        raise ValueError(f"{root} has no scores on the test: the corpus has no split test")
    return [
        Scores(
            checkpoint="best" if name == "tested" else name,  # what is tested again is the export: the best one
            values=_scores(one[TEST]),
            predictions=_sorted(table[(table["checkpoint"] == name) & (table["split"] == TEST)]),
            classes=tuple(about["classes"]),
            dimensions=tuple(about["dimensions"]),
            protocol=about["protocol"],
        )
        for name, one in content.items()
    ]


def _probe(study: Study, row: Row, root: Path) -> Scores:
    content: dict[str, Any] = json.loads((root / "probe.json").read_text())
    variant, metric = study.finetunings[row.finetuning], study.metrics[0]
    if any(TEST not in one for one in content["rows"]):
        raise ValueError(f"{root} has no scores on the test: the corpus has no split test")
    rows = [
        one
        for one in content["rows"]
        if one[TEST].get(metric) is not None
        and variant.feature in (None, one["feature"])
        and variant.method in (None, one["method"])
    ]
    if not rows:
        features = dict.fromkeys(one["feature"] for one in content["rows"])
        raise ValueError(
            f"{row.run.name}: no {metric} of the feature {variant.feature}; there are {', '.join(features)}"
        )
    best = max(rows, key=lambda one: _merit(metric, one[VAL][metric]))  # the first of equals
    table = pd.read_parquet(root / "predictions.parquet")
    chosen = (
        (table["feature"] == best["feature"]) & (table["method"] == best["method"]) & (table["task"] == best["task"])
    )
    labels = content["about"]["labels"]
    return Scores(
        checkpoint="frozen",
        values=_scores(best[TEST]),
        predictions=_sorted(table[chosen & (table["split"] == TEST)]),
        classes=tuple(next(iter(labels["classes"].values()), ())) if best["task"] in labels["classes"] else (),
        dimensions=() if best["task"] in labels["classes"] else tuple(labels["dimensions"]),
        protocol=content["about"]["label"],
        detail=f"{best['feature']}, {best['method']} ({best['setting']})",
    )


def _merit(metric: str, value: float | None) -> float:
    """The higher, the better; an undefined score is worse than any."""
    if value is None:
        return -math.inf
    return -value if metric.split("_")[0] in _ERRORS else value


def _scores(found: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: value for name, value in found.items() if value is None or isinstance(value, float)}


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values("clip_id", ignore_index=True)


def tidy_table(
    study: Study, rows: Sequence[Row], scores: Mapping[int, Sequence[Scores]], status: Mapping[int, str], store: Store
) -> pd.DataFrame:
    """One line a row, checkpoint and metric; of a row that is not finished, one a metric, without a value.

    Args:
        study, rows: of the plan.
        scores: by the number of each finished row.
        status: of each row, by its number: finished, failed and why, or not run and why.
        store: names the runs' folders.
    """
    lines = []
    for number, row in enumerate(rows):
        shared = {"pretraining": row.pretraining, "finetuning": row.finetuning, "seed": row.seed, "fold": row.fold,
                  "status": status[number], "run": store.folder(row.run).name}  # fmt: skip
        for metric in study.metrics:
            hole: dict[str, Any] = {"checkpoint": "", "metric": metric, "value": None, "detail": "", "protocol": ""}
            scored: list[dict[str, Any]] = [
                {"checkpoint": one.checkpoint, "metric": metric, "value": one.values[metric], "detail": one.detail,
                 "protocol": one.protocol}
                for one in scores.get(number, ())
            ]  # fmt: skip
            lines += [shared | line for line in scored or [hole]]
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    return table.astype({"fold": "Int64", "value": "float64"})
