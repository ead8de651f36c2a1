"""Predictions of several folds as one: CCC-centering (Zhang et al., 2021), which trusts a fold as far as the others
agree with it.

Shapes: F folds, T frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hicmae.metrics import dimensional_scores


def agreement(predictions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean CCC of each fold's prediction with those of the other folds: float (F, T) -> (F,).

    Two predictions that are constant and equal agree (1).
    """
    folds = len(predictions)
    ccc = np.eye(folds)
    for i in range(folds):
        for j in range(i):
            value = dimensional_scores(predictions[i], predictions[j]).ccc
            ccc[i, j] = ccc[j, i] = 1.0 if np.isnan(value) else value
    return (ccc.sum(axis=1) - 1) / max(1, folds - 1)


def centre_folds(predictions: ArrayLike, *, limits: tuple[float, float] = (-1.0, 1.0)) -> NDArray[np.float64]:
    """One prediction from those of F folds for the same T frames of one target.

    Every fold's prediction is moved to a common mean, the mean of the folds' means weighted by their agreement, then
    all are averaged: ``x_f - mean(x_f) + sum(mean_f * a_f) / sum(a_f)``.

    With negative agreement, and with it alone, that can be a mean that lies beyond those of all folds, and of any size
    where the sum of the a_f nears 0. Only there it is departed from: negative agreement then counts as none, and where
    no fold agrees with any other, all weigh the same.

    Args:
        predictions: float (F, T), not yet cut to the limits (the authors cut the merged prediction only).
        limits: least and greatest value of the target; the result is cut to them.

    Returns:
        float64 (T,).
    """
    x = np.asarray(predictions, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"predictions of shape {x.shape}: expected (folds, frames), at least one of each")
    if len(x) == 1:
        return np.clip(x[0], *limits)
    means = x.mean(axis=1)
    common = _common_mean(means, agreement(x))
    return np.clip((x - means[:, None] + common).mean(axis=0), *limits)


def _common_mean(means: NDArray[np.float64], agreement: NDArray[np.float64]) -> float:
    """The folds' means, float (F,), weighted by their agreement, float (F,): from the least to the greatest of them."""
    for weights in (agreement, agreement.clip(min=0.0)):
        if weights.sum() > 0:
            common = float((means * weights).sum() / weights.sum())
            if weights.min() >= 0 or means.min() <= common <= means.max():
                return common
    return float(means.mean())
