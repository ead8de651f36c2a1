"""Drawings within the page, as SVG: lines over steps, points in a plane, a strip of values.

Colours come from the page's style (``k0`` to ``k9``), so that they follow light and dark. Panels of lines carry their
values, for the script that shows them under the pointer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from hicmae.report.markup import COLOURS, colour_of, joined

_WIDTH, _HEIGHT = 320.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 8.0, 8.0, 24.0
_MOST_POINTS = 300


@dataclass(frozen=True, kw_only=True)
class Line:
    """A course of values."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    marked: bool = False
    """Draw a dot at each value; for few values."""


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers within these bounds, about ``count`` of them."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    power = 10 ** math.floor(math.log10(span / count))
    step = power * next(
        factor for limit, factor in ((1.5, 1), (3.5, 2), (7.5, 5), (11, 10)) if span / count / power < limit
    )
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def line_panel(title: str, lines: Sequence[Line], *, unit: str = "step", from_zero: bool = False) -> Markup:
    """A panel of lines over ``unit``; more than 300 points a line become the means of neighbours.

    ``from_zero``: the scale begins at 0, for amounts.
    """
    lines = [_thinned(line) for line in lines if len(line.xs)]
    xs, ys = (np.concatenate([getattr(line, axis) for line in lines]) for axis in ("xs", "ys"))
    finite = ys[np.isfinite(ys)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if from_zero:
        low, high = min(low, 0.0), high or 1.0
    if low == high:
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    left, right = float(xs.min()), float(xs.max())
    if left == right:
        left, right = left - 0.5, right + 0.5
    place = _Place(left=left, right=right, low=low, high=high)
    parts = [_grid(place, whole=bool((xs == np.round(xs)).all()))]
    for number, line in enumerate(lines):
        runs = [f"{place.x(x):.1f},{place.y(y):.1f}" for x, y in zip(line.xs, line.ys, strict=True) if math.isfinite(y)]
        parts.append(Markup('<polyline class="line s{}" points="{}"/>').format(number % COLOURS, " ".join(runs)))
        if line.marked or len(runs) == 1:
            dots = (run.split(",") for run in runs)
            parts += [
                Markup('<circle class="k{}" r="2.4" cx="{}" cy="{}"/>').format(number % COLOURS, *d) for d in dots
            ]
    shown = [[line.name, [[_short(x), _short(y)] for x, y in zip(line.xs, line.ys, strict=True)]] for line in lines]
    scale = [left, right, low, high, _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM]
    names = joined(
        (Markup('<span><i class="k{}"></i>{}</span>').format(i % COLOURS, line.name) for i, line in enumerate(lines))
        if len(lines) > 1
        else ()
    )
    return Markup(
        '<figure class="panel"><figcaption>{} <small>{}</small></figcaption>'
        '<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{} over {}" data-lines="{}" data-scale="{}" '
        'data-unit="{}">{}<g class="pointer"></g></svg></figure>'
    ).format(title, names, _WIDTH, _HEIGHT, title, unit, json.dumps(shown), json.dumps(scale), unit, joined(parts))


def point_panel(
    title: str, points: NDArray[np.floating], groups: Sequence[int], names: Sequence[str], *, note: str = ""
) -> Markup:
    """Points in a plane without axes, each of which is stretched to fill the panel; coloured by group.

    Args:
        title: above the panel.
        points: float (N, 2).
        groups: number of the colour of each.
        names: shown under the pointer.
        note: below the title.
    """
    side, margin = 200.0, 6.0
    span = np.ptp(points, axis=0)
    places = margin + (points - points.min(axis=0)) / np.where(span > 0, span, 1) * (side - 2 * margin)
    dots = (
        Markup('<circle class="{}" r="3" cx="{:.0f}" cy="{:.0f}"><title>{}</title></circle>').format(
            colour_of(group), x, y, name
        )
        for (x, y), group, name in zip(places, groups, names, strict=True)
    )
    return Markup(
        '<figure class="panel map"><figcaption>{} <small>{}</small></figcaption><svg viewBox="0 0 200 200" role="img" '
        'aria-label="{}">{}</svg></figure>'
    ).format(title, note, title, joined(dots))


def scatter_panel(title: str, xs: Sequence[float], ys: Sequence[float], names: Sequence[str]) -> Markup:
    """Predicted (y) against true (x) values on the same scale; the dashed line is a perfect prediction."""
    both = np.concatenate([xs, ys]).astype(np.float64)
    low, high = float(both.min()), float(both.max())
    margin = 0.05 * (high - low) or 0.5
    place = _Place(left=low - margin, right=high + margin, low=low - margin, high=high + margin)
    diagonal = Markup('<line class="ideal" x1="{:g}" y1="{:g}" x2="{:g}" y2="{:g}"/>').format(
        _LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _TOP
    )
    dots = (
        Markup('<circle class="k0 faint" r="3" cx="{:.1f}" cy="{:.1f}"><title>{}: true {:.3g}, predicted {:.3g}</title>'
               "</circle>").format(place.x(x), place.y(y), name, x, y)
        for x, y, name in zip(xs, ys, names, strict=True)
    )  # fmt: skip
    return _framed(title, f"{title}: predicted against true", joined([_grid(place), diagonal, *dots]))


def strip_panel(title: str, values: Sequence[float], names: Sequence[str], *, low: float, high: float) -> Markup:
    """One dot a value along a scale, stacked where they meet; a bar marks their mean."""
    place = _Place(left=low, right=high, low=0, high=1)
    stacks: dict[int, int] = {}
    dots = []
    for value, name in sorted(zip(values, names, strict=True)):
        column = round(place.x(value) / 7)
        level = stacks[column] = stacks.get(column, -1) + 1
        dots.append(
            Markup('<circle class="k0" r="3" cx="{:.1f}" cy="{:.1f}"><title>{}: {:.3g}</title></circle>').format(
                place.x(value), 58 - min(level, 7) * 6.5, name, value
            )
        )
    mean = place.x(float(np.mean(values)))
    axis = joined(
        Markup('<text class="tick" text-anchor="middle" x="{:.1f}" y="80">{:g}</text>').format(place.x(tick), tick)
        for tick in ticks(low, high, 5)
    )
    return Markup(
        '<figure class="panel"><figcaption>{}</figcaption><svg viewBox="0 0 {:g} 86" role="img" aria-label="{}">'
        '<line class="axis" x1="{:g}" x2="{:g}" y1="66" y2="66"/><line class="mean" x1="{:.1f}" x2="{:.1f}" y1="6" '
        'y2="66"><title>mean {:.3g}</title></line>{}{}</svg></figure>'
    ).format(title, _WIDTH, title, _LEFT, _WIDTH - _RIGHT, mean, mean, float(np.mean(values)), axis, joined(dots))


@dataclass(frozen=True, kw_only=True)
class _Place:
    """From values to places in a panel."""

    left: float
    right: float
    low: float
    high: float

    def x(self, value: float) -> float:
        return _LEFT + (value - self.left) / (self.right - self.left) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - self.low) / (self.high - self.low) * (_HEIGHT - _TOP - _BOTTOM)


def _framed(title: str, label: str, content: Markup) -> Markup:
    return Markup(
        '<figure class="panel"><figcaption>{}</figcaption><svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}'
        "</svg></figure>"
    ).format(title, _WIDTH, _HEIGHT, label, content)


def _grid(place: _Place, *, whole: bool = False) -> Markup:
    """``whole``: the numbers below are counts, of which there are no halves."""
    bottom = _HEIGHT - _BOTTOM
    across = (
        Markup('<line class="grid" x1="{0:g}" x2="{1:g}" y1="{2:.1f}" y2="{2:.1f}"/>'
               '<text class="tick" text-anchor="end" x="{3:g}" y="{4:.1f}">{5:g}</text>').format(
            _LEFT, _WIDTH - _RIGHT, place.y(tick), _LEFT - 4, place.y(tick) + 3.5, tick
        )
        for tick in ticks(place.low, place.high)
    )  # fmt: skip
    along = (
        Markup('<text class="tick" text-anchor="middle" x="{:.1f}" y="{:g}">{:g}</text>').format(
            place.x(tick), bottom + 15, tick
        )
        for tick in ticks(place.left, place.right, 5)
        if not whole or tick == round(tick)
    )
    axis = Markup('<line class="axis" x1="{0:g}" x2="{1:g}" y1="{2:g}" y2="{2:g}"/>').format(
        _LEFT, _WIDTH - _RIGHT, bottom
    )
    return joined([*across, *along, axis])


def _thinned(line: Line) -> Line:
    bins = min(len(line.xs), _MOST_POINTS)
    if bins == len(line.xs):
        return line
    parts = np.array_split(np.arange(len(line.xs)), bins)
    means = {axis: [float(np.mean(np.asarray(getattr(line, axis))[part])) for part in parts] for axis in ("xs", "ys")}
    return Line(name=line.name, marked=line.marked, xs=means["xs"], ys=means["ys"])


def _short(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
