"""Scores by speaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from hicmae.figures.canvas import save_figure

_NAMED = 40  # more names cannot be read


def draw_speakers(scores: Mapping[str, Sequence[float]], path: str | Path, *, score: str, mean: float) -> Path:
    """Draw a column a speaker, from the lowest mean to the highest: a dot a run, and a bar at their mean.

    Args:
        scores: of each speaker in the runs that tested it.
        path: the PNG to write.
        score: what is drawn, for the axis.
        mean: of the speakers, drawn as a line.
    """
    order = sorted(scores, key=lambda name: (float(np.mean(scores[name])), name))
    figure, axes = plt.subplots(figsize=(min(14, 2.5 + 0.22 * len(order)), 3.2), layout="constrained")
    for place, name in enumerate(order):
        axes.plot([place] * len(scores[name]), scores[name], "o", color="#4477aa", ms=4, alpha=0.6)
        axes.plot([place - 0.35, place + 0.35], [np.mean(scores[name])] * 2, color="#222222", lw=1.5)
    axes.axhline(mean, color="#cc6677", lw=1, ls="--", label="mean of the speakers")
    axes.set_xticks(range(len(order)), order if len(order) <= _NAMED else [""] * len(order), rotation=90, fontsize=7)
    axes.set_xlabel(f"{len(order)} speakers", fontsize=8)
    axes.set_ylabel(score, fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=7)
    return save_figure(figure, path)
