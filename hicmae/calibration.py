"""Whether a probability means what it says: calibration errors, and one temperature that mends them.

- ECE, the expected calibration error, and MCE, the maximum one (Naeini et al., 2015; Guo et al., 2017): clips are
  sorted into bins by their confidence, the probability of the class that was called; the error of a bin is how far its
  mean confidence is from the share of its clips that are right. ECE is the mean over clips, MCE the largest.
- Bins of equal width (15) are what papers give; bins of equal mass (Nixon et al., 2019) hold equally many clips, so
  that none hangs on a few.
- Brier score (the sum over classes of squared errors) and negative log-likelihood, which a model cannot improve by
  anything but the truth.
- Temperature scaling (Guo et al., 2017): p ** (1 / T), normalised, with T > 1 for a model that is too sure. For the
  softmax of one window that is dividing its logits by T, since log p and the logits differ by a constant of the clip.
  Where p is a mean over windows or clips, it sharpens or softens the mean, which is another thing than scaling each
  window's logits before the mean. Either way no clip's class changes.

Shapes: N clips, C classes, B bins, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hicmae.bootstrap import Intervals, Resampling, sum_intervals

BINS = 15
SCORES = ("ece", "ece_equal_mass", "mce", "brier", "nll")
"""The errors of ``calibration_errors``; the lower, the better."""
COLDEST, HOTTEST = 0.01, 100.0
"""Between which temperatures are sought."""
_FLOOR = float(np.finfo(np.float32).tiny)  # probabilities are made in float32, where an unlikely class may be 0


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Clips by their confidence. Empty bins have NaN for both means."""

    edges: NDArray[np.float64]
    """(B + 1,), from 0 to 1; a bin holds its upper edge."""
    clips: NDArray[np.int64]
    """(B,)"""
    confidence: NDArray[np.float64]
    """(B,), mean probability of the class that was called."""
    accuracy: NDArray[np.float64]
    """(B,), share of clips that are right."""


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """What ``fit_temperature`` found."""

    value: float
    at_limit: bool
    """No optimum lies between ``COLDEST`` and ``HOTTEST``: all clips are right, or the model knows nothing."""


def reliability(probabilities: ArrayLike, label: ArrayLike, *, bins: int = BINS, equal_mass: bool = False) -> Bins:
    """Sort clips by confidence.

    Args:
        probabilities: float (N, C), each row's sum 1.
        label: true class numbers, int (N,).
        bins: how many.
        equal_mass: bins hold equally many clips, instead of having the same width. Of few different confidences there
            may be fewer bins.

    Raises:
        ValueError: no clips, or what are no probabilities.
    """
    confidence, right = _called(*_checked(probabilities, label))
    edges = _edges(confidence, bins, equal_mass)
    place = _places(confidence, edges)
    count = len(edges) - 1
    clips = np.bincount(place, minlength=count)
    with np.errstate(invalid="ignore"):
        return Bins(
            edges=edges,
            clips=clips,
            confidence=np.bincount(place, confidence, minlength=count) / clips,
            accuracy=np.bincount(place, right, minlength=count) / clips,
        )


def calibration_errors(probabilities: ArrayLike, label: ArrayLike) -> dict[str, float]:
    """The errors of ``SCORES``; arguments and errors as for ``reliability``."""
    measures = _Measures.of(*_checked(probabilities, label))
    return {name: float(value[0]) for name, value in measures.errors(measures.sums.sum(axis=0)[None]).items()}


def calibration_intervals(
    subjects: Sequence[str],
    label: ArrayLike,
    versions: Mapping[str, ArrayLike],
    settings: Resampling = Resampling(),  # noqa: B008  frozen
) -> Intervals:
    """Intervals over speakers of the errors of several versions of the same predictions, and of their differences.

    Args:
        subjects: speaker of each clip, (N,).
        label: true class numbers, int (N,).
        versions: probabilities, (N, C) each, by name: before, after.
        settings: resamples, level, seed.

    Returns:
        Bounds by ``VERSION/ERROR``, and by ``difference/ERROR``, of the last version less the first, where both are of
        the same resamples. Bins are those of all clips. The ECE of a resample is on average above that of the clips
        it was drawn from, so an interval of a small one may lie above it.
    """
    measures = {name: _Measures.of(*_checked(given, label)) for name, given in versions.items()}
    sums = np.concatenate([one.sums for one in measures.values()], axis=1)
    ends = np.cumsum([one.sums.shape[1] for one in measures.values()])[:-1]

    def scores(drawn: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        parts = np.split(drawn, ends, axis=1)
        found = {name: one.errors(part) for (name, one), part in zip(measures.items(), parts, strict=True)}
        first, last = next(iter(found.values())), list(found.values())[-1]
        named = {f"{name}/{error}": value for name, errors in found.items() for error, value in errors.items()}
        return named | {f"difference/{error}": last[error] - first[error] for error in first}

    return sum_intervals(subjects, sums, scores, settings)


def ece_by_chance(probabilities: ArrayLike, *, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """What the ECE of a perfectly calibrated model with these confidences would be, since the clips are finite.

    Clips are called right with the probability that their confidence says, and the ECE of that is computed, again and
    again.

    Returns:
        Mean, and the value that 5% of the draws are above.
    """
    given, _ = _checked(probabilities, np.zeros(len(np.asarray(probabilities)), dtype=np.int64))
    confidence = given.max(axis=1)
    place = _places(confidence, _edges(confidence, BINS, equal_mass=False))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        gap = np.bincount(place, (rng.random(len(confidence)) < confidence) - confidence, minlength=BINS)
        found.append(np.abs(gap).sum() / len(confidence))
    return float(np.mean(found)), float(np.quantile(found, 0.95))


def scaled(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Probabilities at a temperature, float64 (N, C); 1 changes nothing, infinity makes all classes equal.

    Raises:
        ValueError: a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be above 0")
    logs = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), _FLOOR)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(probabilities: ArrayLike, label: ArrayLike) -> Temperature:
    """The temperature at which these clips are likeliest; give clips that were not trained on, and not the test's.

    The likelihood has one optimum: its logarithm is concave in 1 / T. Bisection finds where its slope is 0.
    Arguments and errors as for ``reliability``.
    """
    given, true = _checked(probabilities, label)
    logs = np.log(np.maximum(given, _FLOOR))
    of_truth = logs[np.arange(len(true)), true].mean()

    def slope(cold: float) -> float:
        """Of the mean log-likelihood in 1 / T; falls with it."""
        return float(of_truth - (scaled(given, 1 / cold) * logs).sum(axis=1).mean())

    low, high = 1 / HOTTEST, 1 / COLDEST
    if slope(low) <= 0:
        return Temperature(value=HOTTEST, at_limit=True)
    if slope(high) >= 0:
        return Temperature(value=COLDEST, at_limit=True)
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return Temperature(value=1 / math.sqrt(low * high), at_limit=False)


@dataclass(frozen=True, kw_only=True)
class _Measures:
    """What of each clip its part in the errors follows from, so that sums over any choice of clips give them."""

    sums: NDArray[np.float64]
    """(N, 2 + 2 B + 2 B'): squared error, negative log-likelihood; then for each bin of equal width whether the clip is
    in it, and right less confidence; then the same for bins of equal mass."""
    bins: tuple[int, int]

    @classmethod
    def of(cls, probabilities: NDArray[np.float64], label: NDArray[np.int64]) -> _Measures:
        confidence, right = _called(probabilities, label)
        truth = np.eye(probabilities.shape[1])[label]
        of_truth = np.maximum(probabilities[np.arange(len(label)), label], _FLOOR)
        columns = [np.square(probabilities - truth).sum(axis=1)[:, None], -np.log(of_truth)[:, None]]
        counts = []
        for equal_mass in (False, True):
            edges = _edges(confidence, BINS, equal_mass)
            inside = np.eye(len(edges) - 1)[_places(confidence, edges)]
            columns += [inside, inside * (right - confidence)[:, None]]
            counts.append(inside.shape[1])
        return cls(sums=np.concatenate(columns, axis=1), bins=(counts[0], counts[1]))

    def errors(self, sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """From sums over clips (R, ...) the errors, (R,) each; NaN where there is no clip."""
        width, mass = self.bins
        edges = np.cumsum([2, width, width, mass])
        means, inside, gap, _, mass_gap = np.split(sums, edges, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            clips = inside.sum(axis=1)
            return {
                "ece": np.abs(gap).sum(axis=1) / clips,
                "ece_equal_mass": np.abs(mass_gap).sum(axis=1) / clips,
                "mce": np.where(inside > 0, np.abs(gap) / inside, 0).max(axis=1),
                "brier": means[:, 0] / clips,
                "nll": means[:, 1] / clips,
            }


def _checked(probabilities: ArrayLike, label: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    given, true = np.asarray(probabilities, dtype=np.float64), np.asarray(label, dtype=np.int64)
    if given.ndim != 2 or len(given) != len(true) or not len(given):
        raise ValueError(f"probabilities {given.shape} and label {true.shape}: expected (N, C) and (N,), N at least 1")
    if not np.allclose(given.sum(axis=1), 1, atol=1e-3) or given.min() < 0:
        raise ValueError("probabilities must be 0 or more, with a sum of 1 in each row")
    if true.min() < 0 or true.max() >= given.shape[1]:
        raise ValueError(f"label holds class {true.min()} or {true.max()}; expected 0..{given.shape[1] - 1}")
    return given / given.sum(axis=1, keepdims=True), true


def _called(probabilities: NDArray[np.float64], label: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    return probabilities.max(axis=1), (probabilities.argmax(axis=1) == label).astype(np.float64)


def _edges(confidence: NDArray[np.float64], bins: int, equal_mass: bool) -> NDArray[np.float64]:
    if not equal_mass:
        return np.linspace(0, 1, bins + 1)
    inner = np.quantile(confidence, np.linspace(0, 1, min(bins, len(confidence)) + 1)[1:-1])
    return np.unique(np.r_[0.0, inner, 1.0])


def _places(confidence: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)
