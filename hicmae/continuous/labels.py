"""Labels of every frame of a video, from text files.

Shapes: N frames, K targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hicmae.continuous.sequences import Reject

UNLABELLED = -5.0
"""What Aff-Wild2 writes where a frame has no label; a label like any other where the limits allow it."""
MAX_MISMATCH = 0.05
"""Largest difference between rows and frames that is taken, as a share of the frames."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of an annotation file."""

    values: NDArray[np.float32]
    """float32 (rows, K); NaN where there is no label."""
    numbered: bool = False
    """Whether the file says which frame each row is of; else there is a row for every frame."""


@dataclass(frozen=True, kw_only=True)
class FrameLabels:
    """The labels of a video."""

    values: NDArray[np.float32]
    """float32 (N, K); NaN where a frame has no label."""
    note: str = ""
    """What had to be mended, in words."""

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """bool (N, K)."""
        there: NDArray[np.bool_] = np.isfinite(self.values)
        return there


def read_rows(path: Path, targets: Sequence[str], *, limits: tuple[float, float] = (-1.0, 1.0)) -> Rows:
    """The rows of an annotation file; empty cells and -5 (unless it lies within the limits) are no labels.

    The file has a header that names the targets, comma-separated, and a row a frame from the first on (Aff-Wild2:
    ``valence,arousal``). A column ``frame`` (from 1) puts rows where they say, in any order, and the frames between
    have no label.

    Raises:
        FileNotFoundError, ValueError: no such file or column, or a value that is no label; the line is named.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no annotation {path}")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no table of labels ({str(error).strip()})") from error
    table.columns = table.columns.str.strip()
    if missing := [name for name in targets if name not in table.columns]:
        raise ValueError(
            f"{path} has no column {', '.join(missing)}; its first line must name them, and is "
            f"{','.join(map(str, table.columns))!r}"
        )
    values = np.empty((len(table), len(targets)), dtype=np.float32)
    for k, name in enumerate(targets):
        text = table[name].str.strip()
        column = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, copy=True)
        bad = np.isnan(column) & ~text.str.lower().isin(["", "nan"]).to_numpy()
        if not limits[0] <= UNLABELLED <= limits[1]:
            column[column == UNLABELLED] = np.nan
        bad |= (column < limits[0]) | (column > limits[1])
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"{path}, line {row + 2}: {name} is {text.iloc[row]!r}; expected a number from {limits[0]:g} to "
                f"{limits[1]:g}, or {'' if limits[0] <= UNLABELLED <= limits[1] else '-5 or '}nothing for a frame "
                "without a label"
            )
        values[:, k] = column
    if "frame" not in table.columns:
        return Rows(values=values)
    frames = pd.to_numeric(table["frame"], errors="coerce").to_numpy(dtype=np.float64)
    if not (frames >= 1).all() or (frames % 1 != 0).any() or len(np.unique(frames)) != len(frames):
        raise ValueError(f"{path}: the column frame must hold whole numbers from 1 on, each once")
    placed = np.full((int(frames.max()) if len(frames) else 0, len(targets)), np.nan, dtype=np.float32)
    placed[frames.astype(np.int64) - 1] = values
    return Rows(values=placed, numbered=True)


def fit_to_frames(name: str, rows: Rows, frames: int) -> FrameLabels | Reject:
    """Labels of N frames from the rows of a file, which need not be as many.

    Decoders do not always agree about the last frames of a video: rows too many are dropped, frames too many have no
    label, and both are told. More than ``MAX_MISMATCH`` of the frames is another video, or another frame rate.
    """
    surplus = len(rows.values) - frames
    if abs(surplus) > max(1, MAX_MISMATCH * frames) and not (rows.numbered and surplus < 0):
        return Reject(
            name=name,
            reason="rows",
            detail=f"{len(rows.values)} rows of labels for {frames} frames; check that both are of the same video at "
            "the same frame rate, or number the rows (column frame)",
        )
    values = np.full((frames, rows.values.shape[1]), np.nan, dtype=np.float32)
    kept = min(frames, len(rows.values))
    values[:kept] = rows.values[:kept]
    note = ""
    if surplus > 0:
        note = f"{surplus} rows beyond the last of {frames} frames dropped"
    elif surplus < 0 and not rows.numbered:
        note = f"the last {-surplus} of {frames} frames have no row, so no label"
    if not np.isfinite(values).any():
        return Reject(name=name, reason="unlabelled", detail=f"none of its {frames} frames has a label")
    return FrameLabels(values=values, note=note)
