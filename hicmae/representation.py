"""What features are like, told without labels: how near pairs lie, how evenly all are spread, in how many directions.

Shapes: N clips, D width of a feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AT = (1, 5, 10)
"""Places at which recall of a retrieval is told."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How well queries find their partners."""

    ranks: NDArray[np.int64]
    """(N,): place of each query's partner, from 1; what is as near as the partner counts as nearer."""
    order: NDArray[np.int64]
    """(N, N): all targets by nearness for each query."""

    def recall(self, at: int) -> float:
        """Share of queries whose partner is among the first ``at``."""
        return float((self.ranks <= at).mean())

    @property
    def median_rank(self) -> float:
        """Median place of the partner."""
        return float(np.median(self.ranks))


def rank(queries: NDArray[np.floating], targets: NDArray[np.floating]) -> Ranking:
    """Rank targets by cosine; target n is the partner of query n. Float (N, D) each."""
    similarity = unit(queries) @ unit(targets).T
    own = similarity.diagonal()[:, None]
    return Ranking(ranks=(similarity >= own).sum(axis=1), order=np.argsort(-similarity, axis=1, kind="stable"))


def unit(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows of length 1, in float64; a row of zeros stays one."""
    wide = values.astype(np.float64)
    scaled: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return scaled


def alignment(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Mean squared distance of the two features of a clip on the unit sphere: 0 where they agree, 4 at most.

    Float (N, D) each, row n of both of the same clip (Wang and Isola, 2020, section 4.1.1, with alpha = 2).
    """
    return float(np.square(unit(first) - unit(second)).sum(axis=1).mean())


def alignment_of_strangers(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """The same of all pairs of *different* clips: what ``alignment`` is where features tell nothing of the clip.

    Raises:
        ValueError: fewer than two clips.
    """
    _check_several(first)
    cosine = unit(first) @ unit(second).T
    return float(2 - 2 * cosine[~np.eye(len(cosine), dtype=bool)].mean())


def uniformity(features: NDArray[np.floating]) -> float:
    """Log of the mean of exp(-2 d^2) over pairs at distance d on the unit sphere; float (N, D).

    0 where all features are the same, and the lower the more evenly they are spread; no less than -8 (Wang and Isola,
    2020, section 4.1.2, with t = 2).

    Raises:
        ValueError: fewer than two clips.
    """
    _check_several(features)
    rows = unit(features)
    squared = np.maximum(2 - 2 * (rows @ rows.T)[np.triu_indices(len(rows), k=1)], 0)
    return float(np.log(np.exp(-2 * squared).mean()))


def effective_rank(features: NDArray[np.floating]) -> float:
    """In how many directions features vary: exp of the entropy of their singular values, which sum to 1; (N, D).

    Of features less their mean, so that what all have in common is no direction (Roy and Vetterli, 2007, definition 1).
    Between 1 and the lesser of N - 1 and D; 0 where no two features differ.

    Raises:
        ValueError: fewer than two clips.
    """
    _check_several(features)
    wide = features.astype(np.float64)
    values = np.linalg.svd(wide - wide.mean(axis=0), compute_uv=False)
    # What rounding leaves of equal features is no direction.
    if values[0] <= 1e-10 * max(float(np.linalg.norm(wide)), 1e-300):
        return 0.0
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _check_several(features: NDArray[np.floating]) -> None:
    if len(features) < 2:
        raise ValueError(f"{len(features)} clips have no pairs; give the features of two or more")
