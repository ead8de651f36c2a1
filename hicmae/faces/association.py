"""Boxes of one shot to paths: the same face from look to look, told by where it is and how large."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hicmae.faces.detector import FaceBox, need
from hicmae.faces.look import Bounds, Look

MOST_MOVED = 0.8
"""Most that a face moves from look to look, in sides of its square, plus the change of the side's logarithm. Two people
cheek to cheek are one side apart."""
_FAR = 1e6


@dataclass(kw_only=True)
class FacePath:
    """One face, as far as it could be followed within a shot. It may be lost and found again where it was."""

    boxes: dict[int, FaceBox] = field(default_factory=dict)
    """By the place of the frame, ascending."""

    @property
    def first(self) -> int:
        """Place of the frame in which it is first seen."""
        return next(iter(self.boxes))

    @property
    def last(self) -> int:
        """Place of the frame in which it is last seen."""
        return next(reversed(self.boxes))

    def prominence(self, bounds: Bounds) -> float:
        """How much it is the face of the clip: its size, less the farther from the centre, added up over the looks.

        A face in a corner of ``bounds`` counts half of one in the middle.
        """
        top, left, bottom, right = bounds
        middle, reach = ((left + right) / 2, (top + bottom) / 2), math.hypot(right - left, bottom - top) / 2
        return sum(
            box.size * (1 - 0.5 * min(1.0, math.dist(box.centre, middle) / reach)) for box in self.boxes.values()
        )


def follow_faces(looks: Sequence[Look]) -> list[FacePath]:
    """The paths of all faces in the looks of one shot, in order of appearance."""
    assign = need("scipy.optimize").linear_sum_assignment
    paths: list[FacePath] = []
    for look in looks:
        taken: set[int] = set()
        if paths and look.boxes:
            costs = np.array([[_cost(path.boxes[path.last], box) for box in look.boxes] for path in paths])
            for path, box in zip(*assign(np.where(costs <= MOST_MOVED, costs, _FAR)), strict=True):
                if costs[path, box] <= MOST_MOVED:
                    paths[path].boxes[look.place] = look.boxes[box]
                    taken.add(int(box))
        paths += [FacePath(boxes={look.place: box}) for number, box in enumerate(look.boxes) if number not in taken]
    return paths


def _cost(one: FaceBox, other: FaceBox) -> float:
    side = (one.side + other.side) / 2
    return math.dist(one.centre, other.centre) / side + abs(math.log(one.side / other.side))
