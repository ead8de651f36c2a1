"""Groups of clips, and how well features tell them apart: nearest neighbours, silhouette, a map.

Shapes: N clips, D width.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hicmae.data.source import ClipInfo
from hicmae.report.run import NotAvailableError

NEIGHBOURS = 5
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Groups:
    """What clips are coloured by."""

    said: str
    """E.g. emotion, speaker."""
    numbers: NDArray[np.int64]
    """(N,): group of each clip."""
    names: list[str]
    subjects: list[str] | None
    """Speakers of the clips, where neighbours are to be of other speakers; ``None``: any clip may be a neighbour."""


def group_clips(infos: Sequence[ClipInfo], classes: Sequence[str], dimensions: Sequence[str]) -> Groups:
    """Colours by the class learnt; else by thirds of the first dimension, any label of words, or the speaker.

    Raises:
        NotAvailableError: nothing tells clips apart.
    """
    subjects = [info.subject for info in infos]
    several = subjects if len(set(subjects) - {""}) > 1 else None
    words = [column for column in infos[0].labels if isinstance(infos[0].labels[column], str)]
    for column in [*classes, *([] if dimensions else words)]:
        values = [str(info.labels.get(column, "")) for info in infos]
        if 1 < len(set(values)) <= len(infos) // 2:
            return _grouped(column, values, several)
    for column in dimensions:
        numbers = np.array([float(info.labels.get(column, np.nan)) for info in infos])
        if np.isfinite(numbers).all() and np.ptp(numbers) > 0:
            edges = np.quantile(numbers, [1 / 3, 2 / 3])
            thirds = [("low", "middle", "high")[i] for i in np.searchsorted(edges, numbers)]
            return _grouped(f"{column} (thirds)", thirds, several, order=("low", "middle", "high"))
    if several is not None:
        return _grouped("speaker", subjects, None)
    raise NotAvailableError("the clips have neither labels nor speakers to colour them by")


def group_by(infos: Sequence[ClipInfo], column: str) -> Groups:
    """Colours by ``subject``, by a label of words, or by thirds of a label of numbers.

    Raises:
        ValueError: no clip has the column, or it makes no groups.
    """
    known = ["subject", *sorted({name for info in infos for name in info.labels})]
    if column not in known:
        near = difflib.get_close_matches(column, known, 1)
        hint = f", did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"--by {column}: the clips have no such label{hint} They have {', '.join(known)}")
    try:
        if column == "subject":
            return group_clips([replace(info, labels={}) for info in infos], [], [])
        words = isinstance(infos[0].labels.get(column), str)
        only = [replace(info, labels={column: info.labels.get(column, "")}) for info in infos]
        groups = group_clips(only, [column] if words else [], [] if words else [column])
    except (NotAvailableError, ValueError) as error:
        raise ValueError(f"--by {column} makes no groups of these {len(infos)} clips ({error})") from error
    if not groups.said.startswith(column):
        raise ValueError(
            f"--by {column} makes no groups of these {len(infos)} clips: it is the same in all, or in none"
        )
    return groups


def _grouped(said: str, values: Sequence[str], subjects: list[str] | None, order: Sequence[str] = ()) -> Groups:
    """The most frequent get colours of their own."""
    names = [name for name in order if name in values] or [
        name for name, _ in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    ]
    place = {name: i for i, name in enumerate(names)}
    return Groups(said=said, names=names, numbers=np.array([place[value] for value in values]), subjects=subjects)


def tsne(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, D) to (N, 2), the same every time."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    wide = features.astype(np.float64)
    scaled = (wide - wide.mean(axis=0)) / max(1e-12, float(wide.std()))
    perplexity = min(30.0, (len(features) - 1) / 3)
    model = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=_SEED)
    # So few points gain nothing from threads, which wait for each other at each of a thousand steps; and sums over
    # several of them need not come out the same every time.
    with threadpool_limits(1):
        points: NDArray[np.float64] = model.fit_transform(scaled)
    return points


def neighbour_recall(features: NDArray[np.floating], groups: Groups) -> float:
    """Mean over groups of the share of clips whose nearest neighbours by cosine vote for their group; (N, D).

    Of equal votes the nearest neighbour's decides. Where speakers are given, clips of one's own are no neighbours.
    """
    wide = features.astype(np.float64)
    unit = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    if groups.subjects is not None:
        subjects = np.array(groups.subjects)
        similarity[(subjects[:, None] == subjects[None]) & (subjects != "")] = -np.inf
    right = []
    for own, row in zip(groups.numbers, similarity, strict=True):
        nearest = [i for i in np.argsort(-row, kind="stable")[:NEIGHBOURS] if np.isfinite(row[i])]
        votes = Counter(groups.numbers[nearest].tolist())  # counts in the order of nearness: the first of equals wins
        right.append(bool(votes) and votes.most_common(1)[0][0] == own)
    correct = np.array(right)
    return float(np.mean([correct[groups.numbers == group].mean() for group in np.unique(groups.numbers)]))


def silhouette(features: NDArray[np.floating], groups: Groups) -> float:
    """Mean silhouette by cosine; NaN where every clip is a group of its own."""
    from sklearn.metrics import silhouette_score

    if not 1 < len(np.unique(groups.numbers)) < len(groups.numbers):
        return float("nan")
    return float(silhouette_score(features.astype(np.float64), groups.numbers, metric="cosine"))
