"""Predicted against true values of continuous targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from hicmae.figures.canvas import save_figure


def draw_scatter(
    values: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], path: str | Path, *, title: str = ""
) -> Path:
    """Draw one panel a dimension; the dashed line is a perfect prediction.

    Args:
        values: by dimension: true and predicted values, float (N,) each.
        path: the PNG to write.
        title: a line above the picture.
    """
    figure, all_axes = plt.subplots(
        1, len(values), figsize=(3.4 * len(values), 3.5), layout="constrained", squeeze=False
    )
    for axes, (name, (target, predicted)) in zip(all_axes[0], values.items(), strict=True):
        both = np.concatenate([target, predicted])
        low, high = float(both.min()), float(both.max())
        margin = 0.05 * (high - low) or 0.5
        limits = (low - margin, high + margin)
        axes.plot(limits, limits, ls="--", lw=0.8, color="0.5")
        axes.scatter(target, predicted, s=14, alpha=0.6, linewidths=0)
        axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"true {name}", ylabel=f"predicted {name}")
        axes.grid(alpha=0.3)
    if title:
        figure.suptitle(title, fontsize=9)
    return save_figure(figure, path)
