"""The picture of a study: bars with intervals, or lines with bands."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from finetune.study.intervals import Bounds, Estimate
from finetune.study.plan import Plan, is_number
from finetune.study.summary import Summary
from hicmae.figures.canvas import save_figure
from hicmae.score_text import score_title

_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#000000")
_PERCENT = "(%)"


def draw_study(plan: Plan, summary: Summary, path: Path) -> Path | None:
    """Draw the first metric of a study; nothing (``None``) where no row is finished.

    Bars and bands are the interval over speakers and seeds, over speakers alone where there is one seed.
    """
    study = plan.study
    metric = study.metrics[0]
    found: dict[tuple[str, str], Estimate] = {}
    for pair, kind in summary.headline.items():
        one = summary.means.get((*pair, kind, metric))
        if one is not None and one.mean == one.mean:
            found[pair] = one
    if not found:
        path.unlink(missing_ok=True)  # of an earlier state of the runs
        return None
    scale = 100.0 if score_title(metric).endswith(_PERCENT) else 1.0
    figure, axes = plt.subplots(figsize=(max(5.0, 1.5 + 0.5 * len(found)), 3.8), layout="constrained")
    if study.figure.kind == "lines":
        _lines(axes, plan, found, scale)
    else:
        _bars(axes, found, scale, study.cells)
    axes.set_ylabel(f"{score_title(metric)} on the test")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    synthetic = "synthetic corpus, " if study.corpus.synthetic is not None else ""
    few, many = min(one.n for one in found.values()), max(one.n for one in found.values())
    who = "speakers" if all(one.over == "subjects" for one in found.values()) else "clips"
    over = f"{who} and seeds" if many > 1 else who
    seeds = f"{many} seed{'s' if many > 1 else ''}" if few == many else f"{few} to {many} seeds"
    axes.set_title(f"{study.title}\n{synthetic}{seeds}, 95% intervals over {over}", fontsize=9)
    return save_figure(figure, path)


def interval_of(one: Estimate) -> Bounds:
    """The one that is drawn."""
    return one.both or one.speakers


def _bars(
    axes: Any, found: Mapping[tuple[str, str], Estimate], scale: float, cells: Collection[tuple[str, str]]
) -> None:
    groups = list(dict.fromkeys(finetuning for _, finetuning in found))
    kinds = list(dict.fromkeys(pretraining for pretraining, _ in found))
    if len(groups) == 1:  # one group: names under the bars
        groups, kinds = kinds, groups
        cells = [(finetuning, pretraining) for pretraining, finetuning in cells]
        found = {(finetuning, pretraining): one for (pretraining, finetuning), one in found.items()}
    width = 0.8 / len(kinds)
    lowest = min(0.0, *(one.mean for one in found.values()))
    for number, kind in enumerate(kinds):
        there = [place for place, group in enumerate(groups) if (kind, group) in found]
        ones = [found[kind, groups[place]] for place in there]
        xs = np.array(there) + (number - (len(kinds) - 1) / 2) * width
        colour = _COLOURS[number % len(_COLOURS)]
        axes.bar(xs, [scale * one.mean for one in ones], width * 0.92, color=colour, label=kind, alpha=0.85)
        for x, one in zip(xs, ones, strict=True):
            bounds = interval_of(one)
            if bounds is not None:
                axes.plot([x, x], [scale * bounds[0], scale * bounds[1]], color="black", lw=1.2)
                lowest = min(lowest, bounds[0])
    axes.set_xticks(
        range(len(groups)), groups, rotation=0 if len(groups) <= 4 else 20, ha="center" if len(groups) <= 4 else "right"
    )
    if lowest < 0:
        axes.axhline(0, color="black", lw=0.8)
    if len({kind for kind, _ in cells}) > 1:  # of those that are not drawn yet, too: which one this is
        axes.legend(fontsize=7)


def _lines(axes: Any, plan: Plan, found: Mapping[tuple[str, str], Estimate], scale: float) -> None:
    assert plan.study.figure.x is not None
    axis, option = plan.study.figure.x.split(".", 1)
    values = plan.values[axis]
    place = 0 if axis == "pretraining" else 1
    for number, other in enumerate(dict.fromkeys(pair[1 - place] for pair in found)):
        own = {pair[place]: one for pair, one in found.items() if pair[1 - place] == other}
        colour = _COLOURS[number % len(_COLOURS)]
        points = sorted((float(values[name][option]), one) for name, one in own.items() if _on_axis(plan, name))
        axes.plot(
            [x for x, _ in points], [scale * one.mean for _, one in points], "o-", ms=4, color=colour, label=other
        )
        banded = [(x, interval_of(one)) for x, one in points]
        xs = [x for x, bounds in banded if bounds is not None]
        lows = [scale * bounds[0] for _, bounds in banded if bounds is not None]
        highs = [scale * bounds[1] for _, bounds in banded if bounds is not None]
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.15, lw=0)
        for name, one in own.items():
            if not _on_axis(plan, name):
                axes.axhline(scale * one.mean, color=colour, ls="--", lw=1, label=f"{other}, {name}")
    if plan.study.figure.log:
        axes.set_xscale("log")
    axes.set_xlabel(option)
    axes.legend(fontsize=7)


def _on_axis(plan: Plan, name: str) -> bool:
    """Whether a variant has a value on the axis; random weights have no pre-training, and are a line across."""
    assert plan.study.figure.x is not None
    axis, option = plan.study.figure.x.split(".", 1)
    if axis == "pretraining" and plan.study.pretrainings[name].kind != "run":
        return False
    return is_number(plan.values[axis][name].get(option))
