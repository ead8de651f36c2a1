"""The inner part of a face as a stack of pictures, and the curves that its moving parts follow.

Shape letters: T frames, h and w rows and columns of a window. Curves over time have shape (T, 1, 1), so that they
broadcast against x (1, w) and y (h, 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from hicmae.data.synthetic.emotions import FACE_CUES
from hicmae.data.synthetic.head import Head
from hicmae.data.synthetic.performance import Performance

INNER_FACE = (-0.70, 0.70, -0.66, 0.99)
"""Left, right, top and bottom of the part of the head that is painted anew for every frame."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """The curves of T frames, float32 (T, 1, 1) each."""

    cue: Mapping[str, np.ndarray]
    """The expression, by the names in ``FACE_CUES``."""
    opening: np.ndarray
    rounding: np.ndarray
    blink: np.ndarray
    gaze_right: np.ndarray
    gaze_down: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray

    @classmethod
    def of(cls, performance: Performance, frames: slice) -> Self:
        """The curves of some of a performance's frames."""

        def column(curve: np.ndarray) -> np.ndarray:
            return curve[frames].astype(np.float32)[:, None, None]

        return cls(
            cue={name: column(performance.face[:, k]) for k, name in enumerate(FACE_CUES)},
            opening=column(performance.opening),
            rounding=column(performance.rounding),
            blink=column(performance.blink),
            gaze_right=column(performance.gaze[:, 0]),
            gaze_down=column(performance.gaze[:, 1]),
            yaw=column(performance.turn[:, 0]),
            pitch=column(performance.turn[:, 1]),
        )


class FaceCanvas:
    """``picture`` float32 (3, T, rows, columns): copies of a head's inner part, to be painted in place."""

    def __init__(self, head: Head, frames: int) -> None:
        self.rows, self.columns = head.slices(*INNER_FACE)
        self.picture = np.repeat(head.colour[:, None, self.rows, self.columns], frames, axis=1)
        self.unit = float(head.unit)
        x, y = head.coordinates()
        self._x, self._y = x[:, self.columns], y[self.rows]

    def window(self, left: float, right: float, top: float, bottom: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A view (3, T, h, w) of a rectangle in face coordinates, with x (1, w) and y (h, 1) of its pixels."""
        first_row, last_row = np.searchsorted(self._y[:, 0], (top, bottom))
        first_column, last_column = np.searchsorted(self._x[0], (left, right))
        rows, columns = slice(int(first_row), int(last_row)), slice(int(first_column), int(last_column))
        return self.picture[:, :, rows, columns], self._x[:, columns], self._y[rows]
