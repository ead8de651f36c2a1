"""The scores of the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from hicmae.figures.canvas import save_figure

_STYLES = (("o", "#4477aa", True), ("s", "#cc6677", False))  # marker, colour, filled
_COLUMNS = 4


def draw_folds(
    scores: Mapping[str, Mapping[str, Sequence[float | None]]],
    folds: Sequence[str],
    path: str | Path,
    *,
    title: str = "",
) -> Path:
    """Draw a panel a score: a mark a fold and kind of checkpoint, with their mean and sample deviation as a band.

    Args:
        scores: by score's title, then by kind of checkpoint (two at most): one value a fold, ``None`` where undefined.
        folds: names of the folds.
        path: the PNG to write.
        title: a line above the picture.
    """
    columns = min(len(scores), _COLUMNS)
    rows = -(-len(scores) // columns)
    size = (max(2.6, 0.45 * len(folds) + 1.6) * columns, 2.6 * rows + 0.4)
    figure, all_axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axes in all_axes.flat[len(scores) :]:
        axes.set_axis_off()
    places = np.arange(len(folds))
    for axes, (score, kinds) in zip(all_axes.flat, scores.items(), strict=False):
        for (kind, given), (marker, colour, filled), shift in zip(kinds.items(), _STYLES, (-0.1, 0.1), strict=False):
            values = np.array([np.nan if value is None else value for value in given])
            axes.plot(places + shift, values, marker, color=colour, mfc=colour if filled else "white", ms=6, label=kind)
            defined = values[~np.isnan(values)]
            if len(defined) > 1:
                mean, deviation = defined.mean(), defined.std(ddof=1)
                axes.axhline(mean, color=colour, lw=1)
                axes.axhspan(mean - deviation, mean + deviation, color=colour, alpha=0.12, lw=0)
        axes.set_xticks(places, folds, fontsize=8)
        axes.set_xlim(-0.5, len(folds) - 0.5)
        axes.tick_params(axis="y", labelsize=8)
        axes.set_title(score, fontsize=9)
        axes.grid(axis="y", alpha=0.3)
        axes.set_xlabel("test fold", fontsize=8)
    all_axes[0, 0].legend(fontsize=7)
    if title:
        figure.suptitle(title, fontsize=9)
    return save_figure(figure, path)
