"""Probes of features without any setting to choose: closed forms that cost milliseconds, the same every time.

For curves over a training; what features are worth in the end is told by ``hicmae/probing.py``, which chooses its
settings on validation.

Shapes: N clips to fit, M clips to predict, D width of a feature, K targets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hicmae.representation import unit

Array = NDArray[np.float64]
NEIGHBOURS = 10
"""Of the nearest-neighbour probe."""
_TEMPERATURE = 0.07
"""Of their votes."""


def predict_by_neighbours(features: Array, targets: Array, queries: Array) -> Array:
    """Mean of the targets of the ten nearest clips by cosine, the nearer ones counting more: (M, K).

    A neighbour counts exp(cosine / 0.07) (Wu et al., 2018, section 3.4), which decides where votes would be equal.

    Args:
        features: float (N, D).
        targets: float (N, K): values, or classes as ones and zeros, whose means are then shares of the votes.
        queries: float (M, D).
    """
    cosine = unit(queries) @ unit(features).T
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :NEIGHBOURS]
    near = np.take_along_axis(cosine, nearest, axis=1)
    weights = np.exp((near - near[:, :1]) / _TEMPERATURE)  # (M, 10), less the nearest one's, so that none overflows
    return np.einsum("mn,mnk->mk", weights, targets[nearest]) / weights.sum(axis=1, keepdims=True)


def predict_linearly(features: Array, targets: Array, queries: Array, *, weights: Array | None = None) -> Array:
    """Ridge regression on standardised features: (M, K).

    The penalty is N, so that a direction counts as far as it varies more than a single feature does. Classes are given
    as ones and zeros (regression of an indicator matrix: Hastie et al., 2009, section 4.2).

    Args:
        features: float (N, D).
        targets: float (N, K).
        queries: float (M, D).
        weights: float (N,), how much each clip counts; ``None``: all the same.
    """
    share = np.full(len(features), 1 / len(features)) if weights is None else weights / weights.sum()
    mean, offset = share @ features, share @ targets
    spread = np.sqrt(share @ np.square(features - mean))
    scale = np.where(spread > 1e-12, spread, np.inf)  # a feature that does not vary tells nothing
    root = np.sqrt(share)[:, None]
    x, y = root * (features - mean) / scale, root * (targets - offset)
    # Of the two equal forms the one with the smaller matrix: clips are few and features many.
    if len(x) < x.shape[1]:
        coefficients = x.T @ np.linalg.solve(x @ x.T + np.eye(len(x)), y)
    else:
        coefficients = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)
    predicted: Array = (queries - mean) / scale @ coefficients + offset
    return predicted


def balanced_weights(classes: NDArray[np.int64]) -> Array:
    """Weights (N,) with which every class counts the same; class numbers (N,)."""
    counts = np.bincount(classes)
    weights: Array = 1 / counts[classes]
    return weights
