"""Learning curves of several runs, overlaid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hicmae.figures.canvas import save_figure
from hicmae.figures.palette import COLOURS

_STYLES = ("-", "--", ":", "-.")
_FEW = 25  # values up to this number are marked as points


@dataclass(frozen=True, kw_only=True)
class OverlaySettings:
    """How curves are drawn."""

    log: bool = False
    """Logarithmic values."""
    smooth: int = 1
    """Moving mean over so many values, behind which the values themselves stay visible; 1: none."""
    unit: str = "step"
    """What the curves run over."""

    def __post_init__(self) -> None:
        if self.smooth < 1:
            raise ValueError(f"--smooth {self.smooth} must be 1 (none) or more values")


Course = tuple[Sequence[float], Sequence[float]]
"""Where and what: two sequences of one length."""


def draw_overlay(
    courses: Mapping[str, Mapping[str, Course]],
    path: str | Path,
    *,
    settings: OverlaySettings = OverlaySettings(),
    title: str = "",
) -> Path:
    """A panel a metric, a colour a run, which stays the same in all panels.

    Args:
        courses: by metric, then by run.
        path: the PNG to write.
        settings: scale and smoothing.
        title: above all.

    Raises:
        ValueError: a logarithmic scale for values that are not positive.
    """
    runs = list(dict.fromkeys(run for by_run in courses.values() for run in by_run))
    looks = {run: (COLOURS[i % len(COLOURS)], _STYLES[i // len(COLOURS) % len(_STYLES)]) for i, run in enumerate(runs)}
    columns = min(3, len(courses))
    rows = -(-len(courses) // columns)
    legend_rows = -(-len(runs) // 4)
    size = (max(4.6, 4.0 * columns), 2.9 * rows + 0.3 + 0.22 * legend_rows)
    figure = Figure(figsize=size, layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False)
    for axes, (metric, by_run) in zip(all_axes.flat, courses.items(), strict=False):
        for run, (places, values) in by_run.items():
            colour, style = looks[run]
            if settings.log and not np.min(values) > 0:
                raise ValueError(
                    f"{metric} of {run} is {np.min(values):g} somewhere, which has no place on a logarithmic scale; "
                    "leave --log out, or leave this metric out with --metric"
                )
            few = len(values) == 1 or (settings.smooth == 1 and len(values) <= _FEW)  # one value alone is no line
            marker = "o" if few else None
            smooth = moving_mean(values, settings.smooth)
            if settings.smooth > 1:
                axes.plot(places, values, color=colour, lw=0.7, alpha=0.25)
            axes.plot(places, smooth, color=colour, ls=style, lw=1.6, marker=marker, ms=3.5)
        if settings.log:
            axes.set_yscale("log")
        how = f" (mean of {settings.smooth})" if settings.smooth > 1 else ""
        axes.set_title(f"{metric}{how}", fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(settings.unit, fontsize=8)
        axes.tick_params(labelsize=8, which="both")
        axes.grid(alpha=0.3)
    for axes in all_axes.flat[len(courses) :]:
        axes.axis("off")
    handles = [
        all_axes.flat[0].plot([], [], color=colour, ls=style, lw=2, label=run)[0]
        for run, (colour, style) in looks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(runs)), fontsize=8, frameon=False)
    if title:
        figure.suptitle(title, fontsize=10)
    return save_figure(figure, path)


def moving_mean(values: Sequence[float], width: int) -> NDArray[np.float64]:
    """The mean of the ``width`` values around each, of fewer at the ends; (N,) -> (N,)."""
    numbers = np.asarray(values, dtype=np.float64)
    if width <= 1 or not len(numbers):
        return numbers
    sums = np.concatenate([[0.0], np.cumsum(numbers)])
    places = np.arange(len(numbers))
    low = np.maximum(0, places - (width - 1) // 2)
    high = np.minimum(len(numbers), places + width // 2 + 1)
    mean: NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)
    return mean
