"""Which of the faces in a shot is the clip's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hicmae.faces.association import FacePath
from hicmae.faces.look import Bounds

CONTESTED = 0.8
"""Another face that is seen at the same time and reaches this share of the chosen one's prominence makes a choice
doubtful, which is counted."""
_LEAST_LOOKS = 3
"""Fewer looks than these make no further path: they may as well be an error of the detector."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The face of a shot."""

    paths: tuple[FacePath, ...]
    """Paths that follow one another in time; none where nobody is seen."""
    contested: bool
    """Whether another face could have been meant as well."""


def choose_face(paths: Sequence[FacePath], bounds: Bounds) -> Choice:
    """The most prominent path, and others before and after it, where it is not seen.

    Of paths of the same prominence the one farthest left is taken, then the highest up.
    """
    ranked = sorted(paths, key=lambda path: (-path.prominence(bounds), path.boxes[path.first].centre))
    chosen: list[FacePath] = []
    for path in ranked:
        if not chosen or (len(path.boxes) >= _LEAST_LOOKS and not any(_meet(path, other) for other in chosen)):
            chosen.append(path)
    contested = any(
        _meet(path, ranked[0]) and path.prominence(bounds) >= CONTESTED * ranked[0].prominence(bounds)
        for path in ranked[1:]
    )
    return Choice(paths=tuple(sorted(chosen, key=lambda path: path.first)), contested=contested)


def _meet(one: FacePath, other: FacePath) -> bool:
    return one.first <= other.last and other.first <= one.last
