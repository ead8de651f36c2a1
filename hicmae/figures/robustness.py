"""Curves of robustness: how scores fall as damage grows."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from hicmae.corruptions import CORRUPTIONS, corruption
from hicmae.figures.canvas import save_figure

_COLOURS = ("#4477aa", "#cc6677", "#228833", "#aa3377", "#ccbb44", "#66ccee", "#555555")
_MARKERS = "osD^vP*"
_COLUMNS = 4


def draw_robustness(
    table: pd.DataFrame, path: str | Path, *, title: str = "", score: str = "score", chance: float | None = None
) -> Path:
    """Draw a panel a corruption: a curve for each line, clean at the left (in the middle where levels go both ways).

    Levels stand at even distances. Bands are intervals; lines are dodged a little, so that bands can be told apart.

    Args:
        table: a row a point: line, corruption, level, value, low, high (NaN: no interval).
        path: the PNG to write.
        title: a line above the picture.
        score: what the vertical axis shows.
        chance: value of guessing, drawn as a dotted line.
    """
    names = [name for name in CORRUPTIONS if name in set(table["corruption"])]
    columns = min(len(names), _COLUMNS)
    rows = -(-len(names) // columns)
    size = (3.1 * columns, 2.6 * rows + 0.5)
    figure, all_axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, sharey=True)
    for axes in all_axes.flat[len(names) :]:
        axes.set_axis_off()
    lines = list(dict.fromkeys(table["line"]))
    for axes, name in zip(all_axes.flat, names, strict=False):
        kind, panel = corruption(name), table[table["corruption"] == name]
        levels = kind.ordered(panel["level"])
        for number, line in enumerate(lines):
            own = panel[panel["line"] == line].set_index("level").reindex(levels)
            places = np.arange(len(levels)) + 0.06 * (number - (len(lines) - 1) / 2)
            colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
            there = own["value"].notna().to_numpy()  # a model may lack a level that another one has
            axes.plot(places[there], own["value"][there], color=colour, marker=marker, ms=3.5, lw=1.3, label=line)
            axes.fill_between(places[there], own["low"][there], own["high"][there], color=colour, alpha=0.15, lw=0)
        if chance is not None:
            axes.axhline(chance, color="#888888", lw=1, ls=":", label="chance" if axes is all_axes.flat[0] else None)
        axes.set_xticks(range(len(levels)), ["clean" if v == kind.clean else f"{v:g}" for v in levels], fontsize=7)
        axes.set_title(kind.title, fontsize=9)
        axes.set_xlabel(kind.unit, fontsize=8)
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(axis="y", alpha=0.3)
    for row in all_axes:
        row[0].set_ylabel(score, fontsize=8)
    all_axes[0, 0].legend(fontsize=7)
    if title:
        figure.suptitle(textwrap.fill(title, round(16 * size[0])), fontsize=9)
    return save_figure(figure, path)
