"""Maps of features: a row a layer, a column a modality, and beside them those of another model.

Shapes: N clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hicmae.figures.canvas import save_figure
from hicmae.figures.palette import COLOURS, OTHERS

_NAMED = len(COLOURS)
_KINDS = ("video", "audio", "fused")


@dataclass(frozen=True, kw_only=True)
class FeatureMaps:
    """The maps of one model."""

    name: str
    points: Mapping[tuple[str, int], NDArray[np.floating]]
    """(N, 2) by modality (video, audio, fused) and layer from 1; those of fused are of layer 0."""
    notes: Mapping[tuple[str, int], str]
    """What is written under each."""
    recall: Mapping[str, Sequence[float]]
    """By modality, of every layer: how well neighbours tell the groups."""


def draw_feature_grid(
    models: Sequence[FeatureMaps],
    groups: NDArray[np.integer],
    names: Sequence[str],
    path: str | Path,
    *,
    title: str,
    said: str,
    chance: float,
) -> Path:
    """Draw the maps as PNG.

    Args:
        models: one, or several side by side, with maps of the same layers.
        groups: (N,): group of each clip; the first few have a colour of their own.
        names: of the groups.
        path: the PNG to write.
        title: above all.
        said: what groups are, for the legend.
        chance: recall of guessing.
    """
    kinds = [kind for kind in _KINDS if any(key[0] == kind for key in models[0].points)]
    layers = sorted({layer for kind, layer in models[0].points if kind != "fused"})
    encoders = [kind for kind in kinds if kind != "fused"]
    rows = max(3, len(layers))
    wide = len(encoders) + 1  # the last column: legend and curve, and fusion where there is one
    figure = Figure(figsize=(2.25 * wide * len(models) + 0.2, 2.35 * rows + 0.7), layout="constrained")
    blocks = figure.subfigures(1, len(models), squeeze=False, wspace=0.03)[0]
    for place, (block, maps) in enumerate(zip(blocks, models, strict=True)):
        grid = block.add_gridspec(rows, wide)
        for column, kind in enumerate(encoders):
            for row, layer in enumerate(layers):
                axes = block.add_subplot(grid[row, column])
                _draw_map(axes, maps, (kind, layer), groups, f"{kind}, layer {layer}")
        if "fused" in kinds:
            _draw_map(block.add_subplot(grid[rows - 1, wide - 1]), maps, ("fused", 0), groups, "fused")
        if place == 0:
            _draw_legend(block.add_subplot(grid[0, wide - 1]), groups, names, said)
        _draw_recall(block.add_subplot(grid[1, wide - 1]), models, place, chance)
        if len(models) > 1:
            block.suptitle(maps.name, fontsize=11, fontweight="bold")
    figure.suptitle(title, fontsize=10)
    return save_figure(figure, path)


def _draw_map(axes: Any, maps: FeatureMaps, key: tuple[str, int], groups: NDArray[np.integer], name: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.set_box_aspect(1)
    axes.set_title(name, fontsize=9, pad=3)
    axes.set_xlabel(maps.notes[key], fontsize=7.5, labelpad=3)
    points = maps.points[key]
    colours = [COLOURS[group] if group < _NAMED else OTHERS for group in groups.tolist()]
    axes.scatter(points[:, 0], points[:, 1], s=14, c=colours, linewidths=0, alpha=0.85)
    for side in axes.spines.values():
        side.set_color("0.8")


def _draw_legend(axes: Any, groups: NDArray[np.integer], names: Sequence[str], said: str) -> None:
    axes.axis("off")
    counts = np.bincount(groups, minlength=len(names))
    shown = list(zip(names[:_NAMED], COLOURS, counts.tolist(), strict=False))
    handles = [_dot(colour, f"{name or 'none'} ({count})") for name, colour, count in shown]
    if (rest := int(counts[_NAMED:].sum())) > 0:
        handles.append(_dot(OTHERS, f"{len(names) - _NAMED} others ({rest})"))
    axes.legend(
        handles=handles, title=said, title_fontsize=8.5, fontsize=7.5, frameon=False, loc="upper left",
        bbox_to_anchor=(-0.05, 1.08), borderaxespad=0, labelspacing=0.3, handletextpad=0.2,
    )  # fmt: skip


def _dot(colour: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, marker="o", ls="", ms=5, label=label)


def _draw_recall(axes: Any, models: Sequence[FeatureMaps], own: int, chance: float) -> None:
    """Recall by layer, all models on the scale of all of them."""
    for number, (kind, values) in enumerate(models[own].recall.items()):
        axes.plot(range(1, len(values) + 1), values, marker="o", ms=3, lw=1.4, color=COLOURS[number], label=kind)
    axes.axhline(chance, color="0.6", lw=0.9, ls="--", label="guessing")
    everything = [value for model in models for values in model.recall.values() for value in values] + [chance]
    margin = 0.08 * (max(everything) - min(everything)) + 0.01
    axes.set_ylim(max(0.0, min(everything) - margin), max(everything) + margin)
    axes.set_title("recall by layer", fontsize=9, pad=3)
    axes.set_xlabel("layer", fontsize=7.5)
    deepest = max(len(values) for values in models[own].recall.values())
    axes.set_xticks(range(1, deepest + 1, max(1, -(-deepest // 6))))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.set_box_aspect(0.8)
    axes.legend(fontsize=7, frameon=False)
