"""The lines that a run logged, over all its starts."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

logger = logging.getLogger(__name__)


def version_folders(root: Path) -> list[Path]:
    """``logs/version_N``, the oldest first: every start of a run has one."""
    found = [path for path in root.glob("logs/version_*") if path.name.removeprefix("version_").isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("version_")))


def read_history(root: Path) -> pd.DataFrame:
    """One row a logged line, with ``step``; a start that went on from an earlier step replaces what came after it.

    A table that is damaged is left out with a warning; the last line of a run that is being written may be half.
    """
    kept = pd.DataFrame({"step": np.array([], dtype=np.float64)})
    for folder in version_folders(root):
        path = folder / "metrics.csv"
        if not path.is_file():
            continue
        try:
            lines = pd.read_csv(path, on_bad_lines="skip").apply(pd.to_numeric, errors="coerce")
        except (ValueError, OSError) as error:
            logger.warning("%s is left out: %s", path, error)
            continue
        if "step" not in lines or lines["step"].isna().all():
            continue
        lines = lines[lines["step"].notna()]
        earlier = kept[kept["step"] < lines["step"].min()]
        kept = pd.concat([earlier, lines], ignore_index=True) if len(earlier) else lines.reset_index(drop=True)
    return kept


def course(history: pd.DataFrame, name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one column, where it has any."""
    if name not in history:
        return [], []
    there = history[name].notna()
    return history.loc[there, "step"].tolist(), history.loc[there, name].tolist()


def last_value(history: pd.DataFrame, name: str) -> float | None:
    """The latest value of a column."""
    values = course(history, name)[1]
    return values[-1] if values else None
