"""Speed of the stages of training, and how close each comes to what the device can."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt

from hicmae.figures.canvas import save_figure

_COLOUR, _LIMIT = "#4477aa", "#cc6677"


def draw_bench(
    clips_per_s: Mapping[str, tuple[float, float, float]],
    shares: Mapping[str, tuple[float, float, float]],
    path: str | Path,
    *,
    title: str = "",
) -> Path:
    """Draw bars of clips a second (a logarithmic axis) and of the share of the matrix product's speed.

    Args:
        clips_per_s: by stage: median, lowest, highest.
        shares: by stage with a model: the same, 0..1.
        path: the PNG to write.
        title: a line above the picture.
    """
    rows = max(len(clips_per_s), 2)
    figure, (speed, share) = plt.subplots(
        1, 2, figsize=(10, 0.42 * rows + 1.5), layout="constrained", width_ratios=(3, 2)
    )
    _bars(speed, clips_per_s, lambda value: f"{value:.3g}")
    speed.set_xscale("log")
    low = min(entry[1] for entry in clips_per_s.values())
    high = max(entry[2] for entry in clips_per_s.values())
    speed.set_xlim(low / 3, high * 4)
    speed.set_xlabel("clips per second", fontsize=8)
    _bars(share, {name: tuple(100 * v for v in values) for name, values in shares.items()}, lambda v: f"{v:.0f}%")
    share.axvline(100, color=_LIMIT, lw=1, ls="--")
    share.set_xlim(0, max([118.0, *(115 * values[2] for values in shares.values())]))
    share.set_xlabel("% of the speed of a large matrix product", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=9)
    return save_figure(figure, path)


def _bars(axes: plt.Axes, values: Mapping[str, tuple[float, ...]], text: object) -> None:
    assert callable(text)
    names = list(values)[::-1]
    middles = [values[name][0] for name in names]
    errors = [
        [values[name][0] - values[name][1] for name in names],
        [values[name][2] - values[name][0] for name in names],
    ]
    axes.barh(names, middles, xerr=errors, color=_COLOUR, height=0.62, error_kw={"lw": 1, "ecolor": "#333333"})
    for place, name in enumerate(names):
        axes.annotate(
            text(values[name][0]), (values[name][2], place), xytext=(4, 0), textcoords="offset points", va="center",
            fontsize=8,
        )  # fmt: skip
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
