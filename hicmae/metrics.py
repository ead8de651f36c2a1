"""Scores of a whole split: categorical (UAR, WAR, F1, confusion) and dimensional (CCC, PCC, MAE, RMSE).

They are computed once, in float64, on the predictions of all clips, and not accumulated batch by batch: averages of
batch scores are other numbers, and the predictions are gathered anyway, to be written to a file. torchmetrics is not
used because its macro averages count classes that only occur among the predictions, and because its CCC takes
unbiased variances where Lin (1989) does not. Tests hold these functions against scikit-learn and scipy.

The formulas are functions of counts and of moments, over any number of leading axes: ``hicmae/bootstrap.py`` gives
them thousands of resampled confusion matrices at once.

Shapes: N clips, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

logger = logging.getLogger(__name__)

CATEGORICAL = ("uar", "war", "macro_f1", "weighted_f1")
"""Scores of classes, one number each."""
DIMENSIONAL = ("ccc", "pcc", "mae", "rmse")
"""Scores of a continuous target."""


@dataclass(frozen=True, kw_only=True)
class CategoricalScores:
    """Scores of single-label classification; means over classes are taken over the classes that have clips."""

    uar: float
    """Unweighted average recall: the mean of the classes' recalls (balanced accuracy)."""
    war: float
    """Weighted average recall: the share of clips that are right (accuracy)."""
    macro_f1: float
    """Mean of the classes' F1."""
    weighted_f1: float
    """Mean of the classes' F1, weighted by their numbers of clips."""
    recall: tuple[float, ...]
    """(C,), NaN for a class without clips."""
    f1: tuple[float, ...]
    """(C,), NaN for a class without clips."""
    confusion: NDArray[np.int64]
    """(C, C) counts: rows are the true classes, columns the predicted ones."""
    absent: tuple[str, ...]
    """Classes without clips."""


@dataclass(frozen=True, kw_only=True)
class DimensionalScores:
    """Scores of one continuous target."""

    ccc: float
    """Concordance correlation coefficient (Lin, 1989), variances over N; NaN if both sides are constant and equal."""
    pcc: float
    """Pearson's correlation coefficient; NaN if one side is constant."""
    mae: float
    """Mean absolute error, in units of the target."""
    rmse: float
    """Root of the mean squared error, in units of the target."""


def confusion_matrix(target: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Counts, int64 (C, C): rows are the true classes, columns the predicted ones; class numbers int (N,) each."""
    true, guess = np.asarray(target, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    _check_lengths(true, guess)
    for what, values in (("target", true), ("predicted", guess)):
        if values.min() < 0 or values.max() >= classes:
            raise ValueError(f"{what} holds class {values.min()} or {values.max()}; expected 0..{classes - 1}")
    return np.bincount(true * classes + guess, minlength=classes**2).reshape(classes, classes)


def categorical_scores(target: ArrayLike, predicted: ArrayLike, classes: Sequence[str]) -> CategoricalScores:
    """Scores of predicted classes.

    Args:
        target, predicted: class numbers, int (N,).
        classes: names, in the order of the numbers. Classes without clips are left out of the means, with a warning.

    Raises:
        ValueError: no clips, lengths that differ, or numbers that are no class.
    """
    confusion = confusion_matrix(target, predicted, len(classes))
    present = confusion.sum(axis=1) > 0
    absent = tuple(name for name, there in zip(classes, present, strict=True) if not there)
    if absent:
        logger.warning("no clip of class %s: means are over the other %d classes", ", ".join(absent), present.sum())
    scores = confusion_scores(confusion)
    return CategoricalScores(
        **{name: float(scores[name]) for name in CATEGORICAL},
        recall=tuple(scores["recall"].tolist()),
        f1=tuple(scores["f1"].tolist()),
        confusion=confusion,
        absent=absent,
    )


def confusion_scores(confusion: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Scores of confusion matrices, counts (..., C, C).

    Returns:
        The four of ``CATEGORICAL``, (...), NaN for a matrix without clips; ``recall`` and ``f1``, (..., C), NaN for a
        class without clips.
    """
    support, called = confusion.sum(axis=-1), confusion.sum(axis=-2)
    right = confusion.diagonal(axis1=-2, axis2=-1)
    present = support > 0
    clips, classes = support.sum(axis=-1), present.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(present, right / support, np.nan)
        f1 = np.where(present, 2 * right / (support + called), np.nan)
        return {
            "uar": np.where(present, recall, 0).sum(axis=-1) / classes,
            "war": right.sum(axis=-1) / clips,
            "macro_f1": np.where(present, f1, 0).sum(axis=-1) / classes,
            "weighted_f1": np.where(present, f1 * support, 0).sum(axis=-1) / clips,
            "recall": recall,
            "f1": f1,
        }


def dimensional_scores(target: ArrayLike, predicted: ArrayLike) -> DimensionalScores:
    """Scores of one continuous target, float (N,) each.

    Raises:
        ValueError: no clips, or lengths that differ.
    """
    true, guess = np.asarray(target, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    _check_lengths(true, guess)
    mean_true, mean_guess = true.mean(), guess.mean()
    # A constant side has no variance; what rounding leaves of it must not become a correlation.
    constant_true, constant_guess = np.ptp(true) == 0, np.ptp(guess) == 0
    var_true = 0.0 if constant_true else float(np.square(true - mean_true).mean())
    var_guess = 0.0 if constant_guess else float(np.square(guess - mean_guess).mean())
    covariance = 0.0 if constant_true or constant_guess else float(((true - mean_true) * (guess - mean_guess)).mean())
    error = guess - true
    scores = moment_scores(
        var_true=var_true,
        var_guess=var_guess,
        covariance=covariance,
        bias=float(mean_guess - mean_true),
        mae=float(np.abs(error).mean()),
        mse=float(np.square(error).mean()),
    )
    return DimensionalScores(**{name: float(scores[name]) for name in DIMENSIONAL})


def moment_scores(
    *,
    var_true: ArrayLike,
    var_guess: ArrayLike,
    covariance: ArrayLike,
    bias: ArrayLike,
    mae: ArrayLike,
    mse: ArrayLike,
) -> dict[str, NDArray[np.float64]]:
    """The scores of ``DIMENSIONAL`` from moments over N, (...) each; ``bias`` is the mean of predicted - true."""
    spread = np.asarray(var_true) + np.asarray(var_guess) + np.square(bias)
    deviations = np.sqrt(var_true) * np.sqrt(var_guess)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "ccc": np.where(spread > 0, 2 * np.asarray(covariance) / spread, np.nan),
            "pcc": np.where(deviations > 0, covariance / deviations, np.nan),
            "mae": np.asarray(mae, dtype=np.float64),
            "rmse": np.sqrt(mse),
        }


def _check_lengths(target: NDArray[np.generic], predicted: NDArray[np.generic]) -> None:
    if target.ndim != 1 or target.shape != predicted.shape:
        raise ValueError(f"target {target.shape} and predicted {predicted.shape} must be one value a clip each")
    if not len(target):
        raise ValueError("there is no clip to score")
