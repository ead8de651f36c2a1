"""The scores of a cross-validation: of each fold, their mean and deviation, and of all test clips together."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from finetune.evaluation import Evaluation, is_score, table_intervals
from hicmae.data.splits import TEST
from hicmae.metrics import categorical_scores, dimensional_scores

logger = logging.getLogger(__name__)

CHECKPOINTS = ("best", "last")
# What the folds of one configuration share, and a report of all of them says once.
_SHARED = (
    "protocol", "benchmark", "data", "other_classes_left_out", "init", "modalities", "columns", "classes", "dimensions",
    "segments", "test_without", "seed", "selected_on",
)  # fmt: skip


def collect_folds(folders: Mapping[int, Path], missing: Mapping[int, str]) -> dict[str, Any]:
    """Everything that the folds' runs say, as plain values for JSON; no times, no paths.

    Args:
        folders: run directory of each finished fold.
        missing: why each other fold is not there.

    Returns:
        ``about``; ``complete``; ``missing`` by fold; ``folds``: test scores by fold and checkpoint; ``mean``, ``sd``
        (sample deviation over the folds) and ``pooled`` (of the test clips of all folds together, with intervals over
        their speakers), each by checkpoint and score, and with the protocol's label, where it has one.

    Raises:
        ValueError: no fold is finished, or a clip was tested in two.
    """
    if not folders:
        raise ValueError("no fold is finished: there is nothing to report")
    contents = {fold: json.loads((folder / "metrics.json").read_text()) for fold, folder in sorted(folders.items())}
    first = next(iter(contents.values()))["about"]
    names = [name for name in CHECKPOINTS if all(name in content for content in contents.values())]
    for name in set(CHECKPOINTS) - set(names):
        if there := [str(fold) for fold, content in contents.items() if name in content]:
            logger.warning(
                "the report leaves out the %s checkpoint: of %d folds only %s had one (a training that ends before its "
                "first validation has no best)", name, len(contents), ", ".join(there),
            )  # fmt: skip
    tables = {fold: pd.read_parquet(folder / "predictions.parquet") for fold, folder in sorted(folders.items())}
    folds: dict[str, Any] = {}
    for fold, content in contents.items():
        folds[str(fold)] = {
            "validation": content["about"]["validation"],
            "splits": content["about"]["splits"],
            **{name: {"step": content[name]["step"]} | content[name][TEST] for name in names},
        }
    classes, dimensions = tuple(first["classes"]), tuple(first["dimensions"])
    label = {"protocol": first["protocol"]} if first["protocol"] else {}
    each = {name: {fold: one[name] for fold, one in folds.items()} for name in names}
    return {
        "about": {name: first.get(name) for name in _SHARED}
        | _teachers({fold: content["about"] for fold, content in contents.items()})
        | {"folds": len(folders) + len(missing)},
        "complete": not missing,
        "missing": {str(fold): why for fold, why in sorted(missing.items())},
        "folds": folds,
        "mean": {name: label | _over_folds(scores, np.mean) for name, scores in each.items()},
        "sd": {name: label | _over_folds(scores, _sample_deviation) for name, scores in each.items()},
        "pooled": {name: label | pooled_scores(_pool(tables, name), classes, dimensions) for name in names},
    }


def _teachers(about: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Who taught the folds, each maybe by another; ``None`` where nobody did."""
    taught = {fold: one["distillation"] for fold, one in about.items() if one.get("distillation")}
    if not taught:
        return {"teacher": None, "distillation": None}
    names = dict.fromkeys(about[fold]["teacher"] for fold in taught)
    shared = {name: value for name, value in next(iter(taught.values())).items() if name != "teacher"}
    teachers = {str(fold): one["teacher"] for fold, one in taught.items()}
    return {"teacher": ", ".join(names), "distillation": shared | {"teachers": teachers}}


def pooled_scores(table: pd.DataFrame, classes: tuple[str, ...], dimensions: tuple[str, ...]) -> dict[str, Any]:
    """Scores and intervals of predictions of several folds taken together.

    Raises:
        ValueError: a clip is there twice.
    """
    if twice := table["clip_id"][table["clip_id"].duplicated()].unique().tolist():
        raise ValueError(
            f"clips were tested in two folds: {', '.join(map(str, twice[:10]))}; the folds' runs are of different "
            "data, remove their folders and run them again"
        )
    number = {name: i for i, name in enumerate(classes)}
    evaluation = Evaluation(
        table=table,
        categorical=(
            categorical_scores(table["label"].map(number), table["predicted"].map(number), classes) if classes else None
        ),
        dimensional={
            name: dimensional_scores(table[f"{name}_target"], table[f"{name}_prediction"]) for name in dimensions
        },
        classes=classes,
        clips=len(table),
        decoded=len(table),
    )
    values = evaluation.to_dict()
    for name in ("clips", "clips_not_decoded"):  # of the table alone; the folds' own counts are beside them
        del values[name]
    subjects = len(set(table["subject"]) - {""})
    intervals = table_intervals(table, classes, dimensions).to_dict()
    return values | {"predictions": len(table), "subjects": subjects, "intervals": intervals}


def _pool(tables: Mapping[int, pd.DataFrame], checkpoint: str) -> pd.DataFrame:
    chosen = [table[(table["checkpoint"] == checkpoint) & (table["split"] == TEST)] for table in tables.values()]
    return pd.concat(chosen, ignore_index=True)


def _over_folds(scores: Mapping[str, Mapping[str, Any]], combine: Any) -> dict[str, Any]:
    """Of each score that is a number in every fold; ``None`` where it is undefined in one."""
    rows = list(scores.values())
    names = [name for name in rows[0] if is_score(name)]
    return {name: _combined([row[name] for row in rows], combine) for name in names}


def _combined(values: Sequence[float | None], combine: Any) -> float | None:
    if any(value is None for value in values):
        return None
    result = float(combine(values))
    return None if math.isnan(result) else result


def _sample_deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
