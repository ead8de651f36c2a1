"""Emotions of one file over time: classes as stacked shares with the winner above them, values as lines below.

Shapes: S windows, C classes, P pieces (windows that follow one another without a gap).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from hicmae.figures.canvas import save_figure
from hicmae.inference.results import FilePrediction, LeftOut, WindowPrediction

SHOWN = 8
"""Classes with a colour of their own. Of more, those that win most windows have one, and the others are summed up."""
_COLOURS = ("#4477aa", "#ee7733", "#228833", "#ccbb44", "#aa3377", "#66ccee", "#882255", "#999933")
_REST = "0.75"
_GAP_S = 0.01  # windows farther apart than this have a gap between them; times are rounded to frames
_FEW = 60  # windows up to this number are told apart by white lines
_NAME_SHARE = 0.008  # share of the width that a letter of a winner's name takes
_LONG_S = 180.0  # longer files have their times in minutes


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A class, or several, as one colour."""

    name: str
    colour: str
    shares: NDArray[np.float64]
    """float64 (S,)"""


def draw_emotion_timeline(prediction: FilePrediction, path: str | Path) -> Path:
    """Write the picture as PNG."""
    return save_figure(emotion_timeline(prediction), path)


def emotion_timeline(prediction: FilePrediction) -> Figure:
    """The picture, as a figure that no window of matplotlib knows of: it may be drawn in any thread."""
    classes, dimensions = bool(prediction.targets.classes), bool(prediction.targets.dimensions)
    heights = ([0.28, 2.7] if classes else []) + ([2.0] if dimensions else [])
    layout = ConstrainedLayoutEngine(hspace=0.01, h_pad=0.03)
    figure = Figure(figsize=(11, 1.3 + sum(heights)), layout=layout)
    axes = figure.subplots(len(heights), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    spans = _spans(prediction)
    if classes:
        columns = _columns(prediction)
        _draw_winners(axes[0], prediction, columns, spans)
        _draw_shares(axes[1], columns, spans)
    if dimensions:
        _draw_values(axes[-1], prediction, spans)
    _mark_left_out(list(axes[1 if classes else 0 :]), prediction, spans)
    _draw_times(axes[-1], prediction)
    figure.suptitle(_title(prediction), fontsize=11, x=0.01, ha="left")
    return figure


def _spans(prediction: FilePrediction) -> NDArray[np.float64]:
    """``window_spans`` of the windows, float64 (S, 2). Those left out stand for their own stretch, which stays empty:
    their neighbours reach into it, but say nothing of it."""
    every: list[WindowPrediction | LeftOut] = [*prediction.windows, *prediction.left_out]
    every.sort(key=lambda window: (window.start_s, window.end_s))
    said = [isinstance(window, WindowPrediction) for window in every]
    return window_spans(every)[said]


def window_spans(windows: Sequence[WindowPrediction | LeftOut]) -> NDArray[np.float64]:
    """The stretch of time that each window stands for, float64 (S, 2), in seconds: where windows overlap, up to the
    middle of what they share."""
    spans = np.array([(window.start_s, window.end_s) for window in windows], dtype=np.float64)
    ends, starts = spans[:-1, 1].copy(), spans[1:, 0].copy()
    middles = (ends + starts) / 2
    touching = starts <= ends + _GAP_S
    spans[:-1, 1] = np.where(touching, middles, ends)
    spans[1:, 0] = np.where(touching, middles, starts)
    return spans


def _columns(prediction: FilePrediction) -> list[_Column]:
    """What is stacked, from the bottom: in the order of the classes, the rest last."""
    shares = np.stack([w.probabilities for w in prediction.windows if w.probabilities is not None]).astype(np.float64)
    names = prediction.targets.classes
    wins = np.bincount(shares.argmax(axis=1), minlength=len(names))
    # Nine colours in place of a class called "1 other class".
    shown = len(names) if len(names) <= SHOWN else SHOWN - 1
    order = np.lexsort((-shares.mean(axis=0), -wins))
    columns = [
        _Column(name=names[number], colour=_COLOURS[place], shares=shares[:, number])
        for place, number in enumerate(sorted(order[:shown].tolist()))
    ]
    if len(order) > shown:
        rest = shares[:, order[shown:]].sum(axis=1)
        columns.append(_Column(name=f"{len(order) - shown} others", colour=_REST, shares=rest))
    return columns


def _draw_winners(
    axis: Any, prediction: FilePrediction, columns: Sequence[_Column], spans: NDArray[np.float64]
) -> None:
    """A strip with the colour of the most probable class, and its name where there is room."""
    colours = {column.name: column.colour for column in columns}
    names = [prediction.targets.classes[int(w.probabilities.argmax())] for w in prediction.windows
             if w.probabilities is not None]  # fmt: skip
    length = spans[-1, 1] - spans[0, 0]
    runs = [(names[first], spans[first, 0], spans[last, 1]) for first, last in _runs(names, spans)]
    faces = [colours.get(name, _REST) for name, _, _ in runs]
    axis.broken_barh([(begin, end - begin) for _, begin, end in runs], (0, 1), facecolors=faces, lw=0)
    for (name, begin, end), colour in zip(runs, faces, strict=True):
        if (end - begin) / length > _NAME_SHARE * (len(name) + 1):
            ink = "black" if np.dot(to_rgb(colour), (0.3, 0.6, 0.1)) > 0.6 else "white"
            axis.text((begin + end) / 2, 0.46, name, ha="center", va="center", color=ink, fontsize=8)
    axis.set_ylim(0, 1)
    axis.set_yticks([])
    axis.set_ylabel("winner", rotation=0, ha="right", va="center", fontsize=8)
    axis.tick_params(bottom=False, labelbottom=False)
    for side in axis.spines.values():
        side.set_visible(False)


def _runs(names: Sequence[str], spans: NDArray[np.float64]) -> list[tuple[int, int]]:
    """(first, last) of the windows that follow one another and have the same winner."""
    runs: list[tuple[int, int]] = []
    for place, name in enumerate(names):
        if runs and names[runs[-1][1]] == name and spans[place, 0] <= spans[place - 1, 1] + _GAP_S:
            runs[-1] = (runs[-1][0], place)
        else:
            runs.append((place, place))
    return runs


def _draw_shares(axis: Any, columns: Sequence[_Column], spans: NDArray[np.float64]) -> None:
    times, floor = _times(spans), np.zeros(len(spans))
    for column in columns:
        top = floor + column.shares
        axis.fill_between(times, _steps(spans, floor), _steps(spans, top), color=column.colour, lw=0)
        floor = top
    if len(spans) <= _FEW:
        axis.vlines(spans[1:, 0], 0, 1, color="white", lw=0.8)
    axis.set_ylim(0, 1)
    axis.set_ylabel("probability\n(not calibrated)", fontsize=9)
    axis.tick_params(labelsize=8)
    handles = [
        Patch(color=column.colour, label=f"{_short(column.name)}  {column.shares.mean():.0%}")
        for column in reversed(columns)
    ]
    axis.legend(handles=handles, title="mean", title_fontsize=8, **_BESIDE)


def _draw_values(axis: Any, prediction: FilePrediction, spans: NDArray[np.float64]) -> None:
    values = np.stack([w.values for w in prediction.windows if w.values is not None]).astype(np.float64)
    times = _times(spans)
    for number, name in enumerate(prediction.targets.dimensions):
        column, colour = values[:, number], _COLOURS[number % len(_COLOURS)]
        line = _steps(spans, column)
        label = f"{_short(name)}  {column.mean():.2f}".replace("-0.00", "0.00")
        axis.plot(times, line, color=colour, lw=1.6 if len(spans) <= _FEW else 0.9, label=label)
    low, high = axis.get_ylim()
    if low < 0 < high:
        axis.axhline(0, color="0.7", lw=0.7, zorder=0)
    axis.set_ylabel("value", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(axis="y", color="0.92", lw=0.7)
    axis.set_axisbelow(True)
    axis.legend(title="mean", title_fontsize=8, **_BESIDE)


_BESIDE: dict[str, Any] = dict(
    loc="upper left", bbox_to_anchor=(1.0, 1.03), fontsize=8, frameon=False, handlelength=1.2, borderaxespad=0.4
)


def _times(spans: NDArray[np.float64]) -> NDArray[np.float64]:
    """Begin and end of each window, one after the other, and something where there is a gap."""
    gaps = _gaps(spans)
    return np.insert(spans, gaps, spans[gaps - 1, 1][:, None], axis=0).ravel()


def _steps(spans: NDArray[np.float64], column: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values of the windows at ``_times``, NaN in gaps, so that nothing is drawn there."""
    return np.insert(np.stack([column, column], axis=1), _gaps(spans), np.nan, axis=0).ravel()


def _gaps(spans: NDArray[np.float64]) -> NDArray[np.intp]:
    """Windows before which there is a gap."""
    return np.flatnonzero(spans[1:, 0] > spans[:-1, 1] + _GAP_S) + 1


def _mark_left_out(axes: Sequence[Any], prediction: FilePrediction, spans: NDArray[np.float64]) -> None:
    """Hatch what no window stands for."""
    inner = np.stack([spans[:-1, 1], spans[1:, 0]], axis=1)
    begin = min([spans[0, 0], *(out.start_s for out in prediction.left_out)])
    end = max([spans[-1, 1], *(out.end_s for out in prediction.left_out)])
    gaps = [(begin, spans[0, 0]), *inner.tolist(), (spans[-1, 1], end)]
    bars = [(low, high - low) for low, high in gaps if high > low + _GAP_S]
    for axis in axes:
        low, high = axis.get_ylim()
        axis.broken_barh(bars, (low, high - low), facecolor="0.96", edgecolor="0.8", hatch="////", lw=0, zorder=0)
        axis.set_ylim(low, high)
    axes[-1].set_xlim(begin, end)


def _draw_times(axis: Any, prediction: FilePrediction) -> None:
    axis.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 3, 5, 6, 10]))
    begin, end = axis.get_xlim()
    if end - begin > _LONG_S:
        axis.xaxis.set_major_locator(MaxNLocator(10, steps=[1.2, 3, 6]))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda s, _: f"{int(s) // 60}:{int(s) % 60:02d}"))
    axis.set_xlabel("minutes:seconds" if end - begin > _LONG_S else "seconds", fontsize=9)


def _title(prediction: FilePrediction) -> str:
    windows = len(prediction.windows)
    parts = [prediction.model, f"{windows} window{'s' if windows != 1 else ''}"]
    if prediction.left_out:
        reasons = sorted({out.reason for out in prediction.left_out})
        parts.append(f"{len(prediction.left_out)} left out ({', '.join(reasons)})")
    if prediction.label is not None and prediction.probabilities is not None:
        parts.insert(0, f"{prediction.label} {prediction.probabilities.max():.0%}")
    return f"{_short(Path(prediction.name).name, 80)}\n" + "  ·  ".join(part for part in parts if part)


def _short(text: str, letters: int = 22) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
