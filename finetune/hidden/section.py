"""What a section of the page consists of, and how numbers of several runs are summed up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of ``hidden.md``."""

    lines: list[str]
    """Markdown below the heading."""
    table: pd.DataFrame
    """Everything as tidy rows, for a CSV of its own."""
    values: dict[str, Any]
    """The main numbers, for ``hidden.json``."""


def mean_over_runs(values: Sequence[float], level: float = 0.95) -> tuple[float, tuple[float, float] | None]:
    """Mean of one number a run and Student's t interval of it; no interval for fewer than two runs.

    The interval takes runs for independent: those of other seeds are given the data, folds of one corpus nearly.
    """
    found = np.array([value for value in values if not math.isnan(value)])
    if not len(found):
        return math.nan, None
    mean = float(found.mean())
    if len(found) < 2:
        return mean, None
    half = float(stats.t.ppf((1 + level) / 2, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found)))
    return mean, (mean - half, mean + half)


def plain(value: float | None) -> float | None:
    """For JSON: ``None`` for NaN."""
    return None if value is None or math.isnan(value) else float(value)
