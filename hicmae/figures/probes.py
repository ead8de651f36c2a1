"""Online probes over the epochs of a pre-training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from hicmae.data.labels import LabelSpec
from hicmae.figures.canvas import save_figure
from hicmae.probe_history import ProbeRow

_COLUMNS = 3


def draw_probes(rows: Sequence[ProbeRow], path: str | Path, labels: LabelSpec, *, title: str = "") -> Path:
    """Draw the first label's scores by layer, retrieval, alignment and effective rank against the epoch.

    Args:
        rows: of all probes so far, at least one.
        path: the PNG to write.
        labels: what was probed.
        title: a line above the picture.
    """
    panels = [panel for panel in _panels(rows, labels) if panel[1]]
    columns = min(_COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(3.6 * columns, 2.7 * lines), layout="constrained", squeeze=False
    )
    for axes, (name, curves) in zip(grid.flat, panels, strict=False):
        _draw(axes, name, curves)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes in grid[-1]:
        axes.set_xlabel("epoch", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return save_figure(figure, path)


Curves = dict[str, list[ProbeRow]]


def _panels(rows: Sequence[ProbeRow], labels: LabelSpec) -> list[tuple[str, Curves]]:
    column = next(iter(labels.classes), None) or next(iter(labels.dimensions))
    score = "uar" if column in labels.classes else "ccc"

    def curves(metric: str, *beginnings: str, name: str = "") -> Curves:
        found: Curves = {}
        for row in rows:
            if row.metric == metric and row.part.startswith(beginnings):
                found.setdefault(name or row.part.replace("_layer", " ").replace("layer", "layer "), []).append(row)
        return found

    panels = []
    for method, called in (("knn", "kNN"), ("linear", "linear")):
        metric = f"{method}_{score}_{column}"
        panels += [
            (f"{called}, {score.upper()} of {column}: {what}", curves(metric, *beginnings))
            for what, beginnings in (
                ("video", ("video_layer",)),
                ("audio", ("audio_layer",)),
                ("together", ("fused", "all")),
            )
        ]
    top = max((row.part for row in rows if row.metric == "alignment"), key=_number, default="-")
    retrieval: Curves = {}
    for way in ("video_to_audio", "audio_to_video"):
        for at in (1, 5, 10):
            name = f"{way.replace('_', ' ')} @{at}"
            retrieval |= curves(f"{way}_recall_at_{at}", top, name=name)
    panels.append((f"retrieval, {top.replace('layer', 'layer ')}", retrieval))
    panels.append(("distance of a clip's video and audio", curves("alignment", "layer")))
    panels.append(("effective rank", curves("effective_rank", "video_layer", "audio_layer", "fused")))
    return panels


def _number(part: str) -> int:
    return int(part.removeprefix("layer"))


def _draw(axes: Any, name: str, curves: Curves) -> None:
    colours = plt.get_cmap("viridis")
    compared = False
    for number, (label, rows) in enumerate(curves.items()):
        colour = colours(0.9 * number / max(1, len(curves) - 1))
        epochs = [row.epoch for row in rows]
        axes.plot(epochs, [row.value for row in rows], lw=1.2, marker=".", color=colour, label=label)
        chance = [row.chance for row in rows]
        if not all(map(math.isnan, chance)):
            axes.plot(epochs, chance, lw=0.8, ls=":", color="grey")
            compared = True
    if compared:
        axes.plot([], [], lw=0.8, ls=":", color="grey", label="chance")
    axes.set_title(name, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    # Above the curves there is room for the legend, which would hide some of them.
    low, high = axes.get_ylim()
    columns = 2 if max(map(len, curves)) > 12 else 3 if len(curves) <= 12 else 4
    lines = math.ceil((len(curves) + compared) / columns)
    axes.set_ylim(low, low + (high - low) / (1 - 0.03 - 0.055 * lines))
    axes.legend(fontsize=5.5, ncols=columns, loc="upper left", frameon=False)
