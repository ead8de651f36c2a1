"""A study's cells and the differences between them, with intervals, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from finetune.study.grid import Row
from finetune.study.intervals import Cell, Estimate, bounds_columns, difference, estimate
from finetune.study.results import Scores
from finetune.study.spec import Study

AXES = ("pretraining", "finetuning")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a study comes to."""

    means: dict[tuple[str, str, str, str], Estimate]
    """By pretraining, finetuning, checkpoint, metric."""
    differences: dict[tuple[str, str, str, str, str], Estimate]
    """By axis, pretraining, finetuning, the variant it is compared with along the axis, metric."""
    headline: dict[tuple[str, str], str]
    """By pair of variants: the checkpoint that is compared."""


def summarise(study: Study, rows: Sequence[Row], scores: Mapping[int, Sequence[Scores]]) -> Summary:
    """Means of all pairs of variants, and their differences from the reference along each axis.

    A pair is compared with the one that differs from it in the pre-training alone, and with the one that differs in
    the fine-tuning alone, where ``compare`` names a reference on that axis.
    """
    cells = {pair: _cell(pair, rows, scores) for pair in study.cells}
    means, headline = {}, {}
    for (pretraining, finetuning), found in cells.items():
        kinds = list(dict.fromkeys(kind for one in found.values() for kind in one))
        if not kinds:
            continue
        headline[pretraining, finetuning] = kinds[0]
        for kind in kinds:
            cell = {key: one[kind] for key, one in found.items() if kind in one}
            for metric in study.metrics:
                found_mean = estimate(cell, metric)
                if found_mean is not None:
                    means[pretraining, finetuning, kind, metric] = found_mean
    shown: dict[tuple[str, str], Cell] = {
        pair: {key: one[headline[pair]] for key, one in found.items() if headline[pair] in one}
        for pair, found in cells.items()
        if pair in headline
    }
    differences = {}
    for (pretraining, finetuning), own_cell in shown.items():
        for axis in AXES:
            against = study.reference[axis]
            own = pretraining if axis == "pretraining" else finetuning
            other = (against, finetuning) if axis == "pretraining" else (pretraining, against)
            if against is None or own == against or other not in shown:
                continue
            for metric in study.metrics:
                found_difference = difference(own_cell, shown[other], metric)
                if found_difference is not None:
                    differences[axis, pretraining, finetuning, against, metric] = found_difference
    return Summary(means=means, differences=differences, headline=headline)


def _cell(
    pair: tuple[str, str], rows: Sequence[Row], scores: Mapping[int, Sequence[Scores]]
) -> dict[tuple[int, int | None], dict[str, Scores]]:
    return {
        (row.seed, row.fold): {one.checkpoint: one for one in scores[number]}
        for number, row in enumerate(rows)
        if (row.pretraining, row.finetuning) == pair and number in scores
    }


def means_table(summary: Summary) -> pd.DataFrame:
    """``summary.csv``."""
    names = ("pretraining", "finetuning", "checkpoint", "metric")
    return _table(names, summary.means)


def differences_table(summary: Summary) -> pd.DataFrame:
    """``differences.csv``."""
    return _table(("axis", "pretraining", "finetuning", "against", "metric"), summary.differences)


def _table(names: Sequence[str], found: Mapping[Any, Estimate]) -> pd.DataFrame:
    plain = ("mean", "sd", "n", "groups")
    columns = [*names, *plain, *(f"{kind}_{end}" for kind in ("seeds", "speakers", "both") for end in ("low", "high"))]
    lines = [
        dict(zip(names, key, strict=True)) | {name: asdict(one)[name] for name in plain} | bounds_columns(one)
        for key, one in found.items()
    ]
    return pd.DataFrame(lines, columns=columns).rename(columns={"groups": "speakers"})
