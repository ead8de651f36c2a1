"""Confusion matrix of a classification."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from hicmae.figures.canvas import save_figure

_COUNTS_UP_TO = 15  # classes; beyond it, numbers no longer fit the cells


def draw_confusion(confusion: NDArray[np.int64], classes: Sequence[str], path: str | Path, *, title: str = "") -> Path:
    """Draw shares of each true class as shades, and shares and counts as numbers.

    Args:
        confusion: int (C, C), rows are the true classes, columns the predicted ones.
        classes: their names.
        path: the PNG to write.
        title: a line above the picture.
    """
    support = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(support, 1)
    side = max(3.2, 0.62 * len(classes) + 1.6)
    figure, axes = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    if len(classes) <= _COUNTS_UP_TO:
        for (row, column), share in np.ndenumerate(shares):
            axes.text(
                column, row, f"{share:.0%}\n{confusion[row, column]}",
                ha="center", va="center", fontsize=7, color="white" if share > 0.55 else "black",
            )  # fmt: skip
    places = range(len(classes))
    axes.set_xticks(places, classes, rotation=45, ha="right", fontsize=8)
    labels = [f"{name} ({count})" for name, count in zip(classes, support[:, 0], strict=True)]
    axes.set_yticks(places, labels, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true (clips)")
    if title:
        axes.set_title(title, fontsize=9)
    return save_figure(figure, path)
