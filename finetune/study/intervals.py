"""Means over seeds and folds, and how far they are to be trusted.

Two things vary: the training (its seed) and who is in the test. Three intervals say what each makes:

- ``seeds``: Student's t over the seeds' scores (each the mean of its folds), for the given test speakers. Honest and
  wide with three seeds; undefined with one.
- ``speakers``: the percentile bootstrap over test speakers of the mean over seeds, for the given trainings. Within a
  fold, the same speakers are drawn for all seeds and all variants.
- ``both``: the same, with the seeds drawn too. With few seeds it is somewhat too narrow, as a bootstrap of few is.

Differences are paired: of the same seed, fold and drawn speakers, on the clips that both have predictions for.

Shapes: S seeds, F folds, R resamples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from finetune.study.results import Scores
from hicmae.bootstrap import Resampling, percentile_bounds, resampled_scores

SETTINGS = Resampling()
Bounds = tuple[float, float] | None
Cell = Mapping[tuple[int, int | None], Scores]
"""The finished rows of a pair of variants, by seed and fold."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean and its intervals."""

    mean: float
    sd: float | None
    """Sample deviation over seeds."""
    n: int
    """Seeds."""
    seeds: Bounds
    speakers: Bounds
    both: Bounds
    groups: int
    """Test speakers, the fewest of any fold."""
    over: str = "subjects"
    """What was drawn for ``speakers`` and ``both``: subjects, or clips where clips do not say whose they are."""


def estimate(cell: Cell, metric: str, settings: Resampling = SETTINGS) -> Estimate | None:
    """Of a score of one pair of variants; ``None`` where no seed has all the folds that are there.

    Args:
        cell: its finished rows; seeds that lack a fold that others have are left out.
        metric: name of the score.
        settings: of the bootstrap.
    """
    whole = _whole_seeds(cell)
    if not whole:
        return None
    if any(one.values[metric] is None for one in whole.values()):
        return _undefined(whole)
    values = {key: float(one.values[metric] or 0.0) for key, one in whole.items()}
    return _estimate(values, _resampled(whole, metric, settings), settings)


def difference(cell: Cell, reference: Cell, metric: str, settings: Resampling = SETTINGS) -> Estimate | None:
    """Of ``cell`` minus ``reference``, over the seeds and folds that both have; ``None`` where there are none, or
    no clip in one of them that both were tested on."""
    keys = set(_whole_seeds({key: cell[key] for key in cell if key in reference}))
    if not keys:
        return None
    ours: dict[tuple[int, int | None], Scores] = {}
    theirs: dict[tuple[int, int | None], Scores] = {}
    for key in sorted(keys, key=str):
        ours[key], theirs[key] = cell[key], reference[key]
    if any(one.values[metric] is None for one in (*ours.values(), *theirs.values())):
        return _undefined(ours)
    values = {key: float(ours[key].values[metric] or 0.0) - float(theirs[key].values[metric] or 0.0) for key in keys}
    common = {key: set(ours[key].predictions["clip_id"]) & set(theirs[key].predictions["clip_id"]) for key in keys}
    if not all(common.values()):
        return None
    drawn, other = (_resampled(cell, metric, settings, common) for cell in (ours, theirs))
    for key in keys:  # the scores that the runs gave themselves are of all their clips
        if not len(common[key]) == len(ours[key].predictions) == len(theirs[key].predictions):
            values[key] = drawn.every[key] - other.every[key]
    differences = {key: drawn.scores[key] - other.scores[key] for key in drawn.scores}
    return _estimate(values, dataclasses.replace(drawn, scores=differences), settings)


def t_interval(values: NDArray[np.float64], level: float) -> Bounds:
    """Student's interval of the mean of independent values, (S,); ``None`` for fewer than two."""
    if len(values) < 2:
        return None
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def _whole_seeds(cell: Mapping[tuple[int, int | None], Scores]) -> dict[tuple[int, int | None], Scores]:
    folds = {fold for _, fold in cell}
    return {key: one for key, one in cell.items() if all((key[0], fold) in cell for fold in folds)}


def _undefined(cell: Cell) -> Estimate:
    n = len({seed for seed, _ in cell})
    return Estimate(mean=math.nan, sd=None, n=n, seeds=None, speakers=None, both=None, groups=0)


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """Scores of rows with speakers drawn."""

    scores: dict[tuple[int, int | None], NDArray[np.float64]]
    """(R,) each."""
    every: dict[tuple[int, int | None], float]
    """Of all the clips, each once."""
    over: str
    groups: int


def _resampled(
    cell: Cell, metric: str, settings: Resampling, clips: Mapping[tuple[int, int | None], set[str]] | None = None
) -> _Drawn:
    drawn = {}
    folds = sorted({fold or 0 for _, fold in cell})
    for key, one in cell.items():
        table = one.predictions
        if clips is not None:
            table = table[table["clip_id"].isin(clips[key])]
        number = {name: i for i, name in enumerate(one.classes)}
        found = resampled_scores(
            table["subject"].tolist(),
            classes=(table["label"].map(number), table["predicted"].map(number), len(number)) if number else None,
            dimensions={name: (table[f"{name}_target"], table[f"{name}_prediction"]) for name in one.dimensions},
            settings=Resampling(
                resamples=settings.resamples, level=settings.level, seed=settings.seed + folds.index(key[1] or 0)
            ),
        )
        drawn[key] = found
    return _Drawn(
        scores={key: one.scores[metric] for key, one in drawn.items()},
        every={key: one.every[metric] for key, one in drawn.items()},
        over=", ".join(sorted({one.over for one in drawn.values()}, key=lambda over: over != "subjects")),
        groups=min(one.groups for one in drawn.values()),
    )


def _estimate(values: Mapping[tuple[int, int | None], float], drawn: _Drawn, settings: Resampling) -> Estimate:
    groups = drawn.groups
    seeds = sorted({seed for seed, _ in values})
    of_seeds = np.array([np.mean([value for (seed, _), value in values.items() if seed == one]) for one in seeds])
    resampled = np.stack(
        [np.mean([row for (seed, _), row in drawn.scores.items() if seed == one], axis=0) for one in seeds]
    )
    rng = np.random.default_rng([settings.seed, len(seeds)])
    chosen = rng.integers(0, len(seeds), size=(settings.resamples, len(seeds)))  # (R, S)
    with_seeds = np.take_along_axis(resampled.T, chosen, axis=1).mean(axis=1)
    return Estimate(
        mean=float(of_seeds.mean()),
        sd=float(of_seeds.std(ddof=1)) if len(seeds) > 1 else None,
        n=len(seeds),
        seeds=t_interval(of_seeds, settings.level),
        speakers=percentile_bounds(resampled.mean(axis=0), groups, settings),
        both=percentile_bounds(with_seeds, groups, settings) if len(seeds) > 1 else None,
        groups=groups,
        over=drawn.over,
    )


def bounds_columns(found: Estimate) -> dict[str, float | None]:
    """For a table: the lower and upper bound of each interval."""
    columns: dict[str, float | None] = {}
    for name, both in (("seeds", found.seeds), ("speakers", found.speakers), ("both", found.both)):
        columns[f"{name}_low"], columns[f"{name}_high"] = both if both is not None else (None, None)
    return columns
