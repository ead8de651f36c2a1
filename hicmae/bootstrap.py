"""Confidence intervals of scores: the percentile bootstrap over speakers (Efron, 1979; clusters as in Field and Welsh,
2007).

The clips of a speaker resemble one another, so clips drawn one by one would promise far more certainty than there is:
whole speakers are drawn with replacement, as many as there are, and the scores of the clips that come with them are
computed anew. Clips without a speaker are drawn one by one. The interval is of the choice of test speakers alone: it
says nothing of how a result varies with the seed of the training, or with the training speakers.

Shapes: N clips, C classes, G groups that are drawn as one (speakers), R resamples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hicmae.metrics import CATEGORICAL, DIMENSIONAL, confusion_matrix, confusion_scores, moment_scores

_DRAWS_AT_ONCE = 2**22
_CONSTANT = 1e-12
"""Share of a target's variance below which what is left of it in a resample is rounding."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How intervals are made."""

    resamples: int = 2000
    level: float = 0.95
    """Share of such intervals that hold the true value, for many speakers."""
    seed: int = 0
    """Of the draws; the same seed gives the same intervals, bit for bit."""

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0 < self.level < 1:
            raise ValueError(f"resamples={self.resamples} must be at least 1 and level={self.level} between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Lower and upper bounds of scores."""

    bounds: dict[str, tuple[float, float] | None]
    """By score; ``None`` where there is one group alone, or the score is undefined in half of the resamples."""
    over: str
    """What was drawn: subjects, or clips where no clip has one."""
    groups: int
    """How many of them there are. Below about twenty, intervals are too narrow: the bootstrap cannot know of speakers
    unlike the few it has."""
    settings: Resampling

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "level": self.settings.level,
            "method": "percentile bootstrap",
            "over": self.over,
            "groups": self.groups,
            "resamples": self.settings.resamples,
            **{name: list(both) if both else None for name, both in self.bounds.items()},
        }


def score_intervals(
    subjects: Sequence[str],
    *,
    classes: tuple[ArrayLike, ArrayLike, int] | None = None,
    dimensions: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    settings: Resampling = Resampling(),
) -> Intervals:
    """Intervals of the scores of ``hicmae/metrics.py``.

    Args:
        subjects: speaker of each clip, (N,); an empty one is a group of its own.
        classes: true and predicted class numbers, int (N,) each, and C.
        dimensions: true and predicted values by name, float (N,) each. Scores of each (``ccc_valence``) and their
            means (``ccc``) are given.
        settings: resamples, level, seed.

    Raises:
        ValueError: no clips, or lengths that differ.
    """
    drawn = resampled_scores(subjects, classes=classes, dimensions=dimensions, settings=settings)
    return Intervals(
        bounds={name: percentile_bounds(values, drawn.groups, settings) for name, values in drawn.scores.items()},
        over=drawn.over,
        groups=drawn.groups,
        settings=settings,
    )


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """Scores of the same clips with other speakers drawn each time."""

    scores: dict[str, NDArray[np.float64]]
    """By score, (R,). Predictions for the same speakers are drawn alike, so that their differences are paired."""
    every: dict[str, float]
    """By score, of all the clips, each once."""
    over: str
    groups: int


def resampled_scores(
    subjects: Sequence[str],
    *,
    classes: tuple[ArrayLike, ArrayLike, int] | None = None,
    dimensions: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    settings: Resampling = Resampling(),
) -> Resampled:
    """The scores of each resample; arguments and errors are those of ``score_intervals``."""
    group, groups, over = _groups(subjects)
    scores: dict[str, list[NDArray[np.float64]]] = {}
    counts = _ClassCounts(group, groups, *classes) if classes is not None else None
    moments = {name: _Moments(group, groups, *both) for name, both in (dimensions or {}).items()}
    for weights in itertools.chain([np.ones((1, groups))], _weights(groups, settings)):
        part: dict[str, NDArray[np.float64]] = {}
        if counts is not None:
            found = confusion_scores(counts.resampled(weights))
            part |= {name: found[name] for name in CATEGORICAL}
        each = {name: moment.resampled(weights) for name, moment in moments.items()}
        for score in DIMENSIONAL if each else ():
            part[score] = np.mean([values[score] for values in each.values()], axis=0)
            part |= {f"{score}_{name}": values[score] for name, values in each.items()}
        for name, values in part.items():
            scores.setdefault(name, []).append(values)
    return Resampled(
        scores={name: np.concatenate(values[1:]) for name, values in scores.items()},
        every={name: float(values[0][0]) for name, values in scores.items()},
        over=over,
        groups=groups,
    )


def sum_intervals(
    subjects: Sequence[str],
    sums: NDArray[np.float64],
    scores: Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]],
    settings: Resampling = Resampling(),
) -> Intervals:
    """Intervals of scores that follow from sums over clips.

    Args:
        subjects: speaker of each clip, (N,); an empty one is a group of its own.
        sums: what is added up, (N, K).
        scores: from sums over the clips drawn, (R, K), the scores by name, (R,) each.
        settings: resamples, level, seed.
    """
    group, groups, over = _groups(subjects)
    of_groups = np.zeros((groups, sums.shape[1]))
    np.add.at(of_groups, group, sums)
    found: dict[str, list[NDArray[np.float64]]] = {}
    for weights in _weights(groups, settings):
        for name, values in scores(weights @ of_groups).items():
            found.setdefault(name, []).append(values)
    return Intervals(
        bounds={name: percentile_bounds(np.concatenate(values), groups, settings) for name, values in found.items()},
        over=over,
        groups=groups,
        settings=settings,
    )


def _groups(subjects: Sequence[str]) -> tuple[NDArray[np.int64], int, str]:
    """Group of each clip, (N,), how many there are, and what they are."""
    if not len(subjects):
        raise ValueError("there is no clip to score")
    keys = [(subject, -1 if subject else number) for number, subject in enumerate(subjects)]
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    named = any(subjects)
    over = "clips" if not named else "subjects" if all(subjects) else "subjects, and clips that have none"
    return np.array([numbers[key] for key in keys], dtype=np.int64), len(numbers), over


def _weights(groups: int, settings: Resampling) -> Iterator[NDArray[np.float64]]:
    """How often each group occurs in each resample, (some of R, G)."""
    rng = np.random.default_rng(settings.seed)
    at_once = max(1, _DRAWS_AT_ONCE // groups)
    for start in range(0, settings.resamples, at_once):
        rows = min(at_once, settings.resamples - start)
        drawn = rng.integers(0, groups, size=(rows, groups))
        drawn += np.arange(rows)[:, None] * groups
        yield np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups).astype(np.float64)


class _ClassCounts:
    """Confusion counts of each group, of the cells that occur."""

    def __init__(
        self, group: NDArray[np.int64], groups: int, target: ArrayLike, predicted: ArrayLike, classes: int
    ) -> None:
        self._classes = classes
        self._cells = np.flatnonzero(confusion_matrix(target, predicted, classes))
        cell = np.searchsorted(self._cells, np.asarray(target) * classes + np.asarray(predicted))
        self._counts = np.zeros((groups, len(self._cells)))
        np.add.at(self._counts, (group, cell), 1)

    def resampled(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """(R, G) -> confusion matrices (R, C, C)."""
        confusion = np.zeros((len(weights), self._classes**2))
        confusion[:, self._cells] = weights @ self._counts
        return confusion.reshape(-1, self._classes, self._classes)


class _Moments:
    """Sums of each group from which the moments of any mixture of groups follow."""

    def __init__(self, group: NDArray[np.int64], groups: int, target: ArrayLike, predicted: ArrayLike) -> None:
        true, guess = np.asarray(target, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
        error = guess - true
        self._variances = true.var(), guess.var()
        # Centred, so that the differences of large sums do not swallow small variances.
        true, guess = true - true.mean(), guess - guess.mean()
        self._bias = float(error.mean())
        rows = [np.ones_like(true), true, guess, true**2, guess**2, true * guess, np.abs(error), error**2]
        self._sums = np.stack([np.bincount(group, row, minlength=groups) for row in rows], axis=1)

    def resampled(self, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """(R, G) -> scores, (R,) each."""
        sums = weights @ self._sums
        true, guess, true2, guess2, product, mae, mse = (sums[:, 1:] / sums[:, :1]).T
        spread_true, spread_guess = (
            np.where(square - mean**2 > _CONSTANT * whole, square - mean**2, 0.0)
            for square, mean, whole in zip((true2, guess2), (true, guess), self._variances, strict=True)
        )
        covariance = np.where((spread_true > 0) & (spread_guess > 0), product - true * guess, 0.0)
        return moment_scores(
            var_true=spread_true,
            var_guess=spread_guess,
            covariance=covariance,
            bias=guess - true + self._bias,
            mae=mae,
            mse=mse,
        )


def percentile_bounds(values: NDArray[np.float64], groups: int, settings: Resampling) -> tuple[float, float] | None:
    """Lower and upper bound of resampled values, (R,); ``None`` as ``Intervals.bounds`` says."""
    defined = values[~np.isnan(values)]
    if groups < 2 or 2 * len(defined) < len(values):
        return None
    tail = (1 - settings.level) / 2
    low, high = np.quantile(defined, (tail, 1 - tail))
    assert not math.isnan(low)
    return float(low), float(high)
