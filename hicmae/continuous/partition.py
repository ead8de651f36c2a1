"""Folds of sequences by subject, evened out by their frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping


def deal_folds(frames: Mapping[str, int], subjects: Mapping[str, str], folds: int) -> dict[str, int]:
    """The fold of every sequence, from 0; all sequences of a subject are in one.

    The subject with the most frames first, each goes to the fold with the fewest so far: nothing is drawn.

    Args:
        frames: labelled frames of every sequence, by name.
        subjects: the subject of every sequence, by name.
        folds: how many, at least 2.

    Raises:
        ValueError: fewer subjects than folds.
    """
    size: dict[str, int] = defaultdict(int)
    for name, count in frames.items():
        size[subjects[name]] += count
    if len(size) < folds:
        raise ValueError(
            f"{len(size)} subjects cannot be divided into {folds} folds that share none; lower folds to "
            f"{len(size)} or less, or set folds to 0 for the data's own split"
        )
    filled, place = [0] * folds, {}
    for subject in sorted(size, key=lambda name: (-size[name], name)):
        fold = min(range(folds), key=lambda number: (filled[number], number))
        place[subject] = fold
        filled[fold] += size[subject]
    return {name: place[subjects[name]] for name in frames}
