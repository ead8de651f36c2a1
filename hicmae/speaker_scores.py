"""Scores by speaker, from a table of predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from hicmae.metrics import dimensional_scores

_FEW_CLIPS = 3  # a correlation of fewer means nothing


def speaker_scores(table: pd.DataFrame, classes: Sequence[str], dimensions: Sequence[str]) -> pd.DataFrame:
    """A row a speaker, by name; clips without a speaker are left out.

    Args:
        table: subject, and label and predicted where there are classes, DIMENSION_target and DIMENSION_prediction.
        classes: what is predicted of classes; empty for none.
        dimensions: names of the dimensions.

    Returns:
        subject, clips, then war and uar (over the classes that the speaker has), and ccc_DIMENSION, NaN where it is
        undefined or of fewer than three clips.
    """
    rows = []
    for subject, clips in table[table["subject"] != ""].groupby("subject", sort=True):
        row: dict[str, object] = {"subject": str(subject), "clips": len(clips)}
        if classes:
            right = clips["label"] == clips["predicted"]
            row["war"] = float(right.mean())
            row["uar"] = float(right.groupby(clips["label"]).mean().mean())
        for name in dimensions:
            enough = len(clips) >= _FEW_CLIPS
            both = clips[f"{name}_target"], clips[f"{name}_prediction"]
            row[f"ccc_{name}"] = dimensional_scores(*both).ccc if enough else math.nan
        rows.append(row)
    names = ["subject", "clips", *(["war", "uar"] if classes else []), *(f"ccc_{name}" for name in dimensions)]
    return pd.DataFrame(rows, columns=names)


def spread(values: Sequence[float]) -> dict[str, float]:
    """How scores of speakers differ: ``speakers`` (with a defined score), ``mean``, ``sd`` (n - 1), ``lowest``,
    ``lowest_tenth`` (mean of the lowest 10%, at least one speaker), quartiles ``q1``, ``median``, ``q3``, ``highest``.

    Raises:
        ValueError: no defined score.
    """
    found = np.sort([value for value in values if not math.isnan(value)])
    if not len(found):
        raise ValueError("no speaker has a defined score")
    q1, median, q3 = np.quantile(found, (0.25, 0.5, 0.75))
    return {
        "speakers": len(found),
        "mean": float(found.mean()),
        "sd": float(found.std(ddof=1)) if len(found) > 1 else math.nan,
        "lowest": float(found[0]),
        "lowest_tenth": float(found[: math.ceil(len(found) / 10)].mean()),
        "q1": float(q1),
        "median": float(median),
        "q3": float(q3),
        "highest": float(found[-1]),
    }


def sd_of_equals(clips: Sequence[int], accuracy: float) -> float:
    """Standard deviation over speakers that shares of right clips would have if all speakers were equally easy.

    Args:
        clips: of each speaker.
        accuracy: probability with which any clip is right; clips are right independently of one another.
    """
    return float(np.sqrt(np.mean(accuracy * (1 - accuracy) / np.asarray(clips, dtype=np.float64))))
