"""Scores on validation and test, epoch by epoch, and the epochs that could be chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt

from hicmae.figures.canvas import save_figure

_COLUMNS = 4
_MARKS = {
    "validation": ("o", "#4477aa", "chosen on validation"),
    "last": ("s", "#999999", "last epoch"),
    "test": ("*", "#cc6677", "chosen on the test (optimistic)"),
}


@dataclass(frozen=True, kw_only=True)
class SelectionLines:
    """A run's course."""

    epochs: Sequence[int]
    val: Sequence[float]
    test: Sequence[float]
    chosen: Mapping[str, int]
    """Epoch by what it was chosen on: validation, last, test."""


def draw_selection(runs: Mapping[str, SelectionLines], path: str | Path, *, score: str) -> Path:
    """Draw a panel a run: the score on validation (dashed) and on the test, with the three choices marked.

    Args:
        runs: by name.
        path: the PNG to write.
        score: what is drawn, for the axis.
    """
    columns = min(_COLUMNS, len(runs))
    rows = -(-len(runs) // columns)
    figure, all_axes = plt.subplots(
        rows, columns, figsize=(max(3.4 * columns, 4.6), 2.6 * rows + 0.6), layout="constrained", squeeze=False,
        sharey=True,
    )  # fmt: skip
    for axes in all_axes.flat[len(runs) :]:
        axes.set_axis_off()
    for axes, (name, lines) in zip(all_axes.flat, runs.items(), strict=False):
        axes.plot(lines.epochs, lines.val, ls="--", lw=1, color="#bbbbbb", label="validation")
        axes.plot(lines.epochs, lines.test, lw=1.2, color="#222222", label="test")
        for choice, epoch in lines.chosen.items():
            marker, colour, label = _MARKS[choice]
            value = lines.test[list(lines.epochs).index(epoch)]
            axes.plot([epoch], [value], marker, color=colour, ms=11 if marker == "*" else 7, ls="", label=label)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("epoch", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    for axes in all_axes[:, 0]:
        axes.set_ylabel(score, fontsize=8)
    handles, labels = all_axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, ncols=len(labels), loc="outside lower center")
    return save_figure(figure, path)
