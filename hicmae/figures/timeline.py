"""Truth and prediction over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from hicmae.figures.canvas import save_figure

_COLOURS = ("#cc3311", "#4477aa", "#228833")


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """What is drawn of one video."""

    title: str
    times_s: NDArray[np.float64]
    """float64 (N,), seconds."""
    truth: NDArray[np.floating] | None
    """float (N, K), NaN where there is no label; ``None``: no labels."""
    predictions: Mapping[str, NDArray[np.floating]]
    """float (N, K) by the name of what predicted."""


def draw_timelines(
    timelines: Sequence[Timeline], targets: Sequence[str], path: Path, *, limits: tuple[float, float], title: str
) -> Path:
    """Draw a row a video and a column a target."""
    columns, rows = len(targets), len(timelines)
    figure, all_axes = plt.subplots(
        rows, columns, figsize=(5.2 * columns, 1.7 * rows + 0.8), layout="constrained", squeeze=False, sharey=True
    )
    for line, row_axes in zip(timelines, all_axes, strict=True):
        for k, axes in enumerate(row_axes):
            if line.truth is not None:
                axes.plot(line.times_s, line.truth[:, k], color="0.25", lw=1.6, label="label")
            for number, (name, values) in enumerate(line.predictions.items()):
                colour = _COLOURS[number % len(_COLOURS)]
                axes.plot(line.times_s, values[:, k], color=colour, lw=1.0, label=name)
            axes.set_ylim(limits[0] - 0.05, limits[1] + 0.05)
            axes.axhline(0, color="0.8", lw=0.6, zorder=0)
            axes.tick_params(labelsize=7)
            axes.set_title(f"{line.title}, {targets[k]}", fontsize=8)
    for axes in all_axes[-1]:
        axes.set_xlabel("seconds", fontsize=8)
    all_axes[0, 0].legend(fontsize=7, loc="upper right")
    figure.suptitle(title, fontsize=10)
    return save_figure(figure, path)
