"""What a recogniser says of a file.

Shapes: S windows, C classes, K dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hicmae.backbone import Modality
from hicmae.heads import Targets


@dataclass(frozen=True, kw_only=True)
class WindowPrediction:
    """One window of a file."""

    start_s: float
    """On the file's clock, in seconds."""
    end_s: float
    modalities: tuple[Modality, ...]
    """What the window had: picture, sound, or both."""
    probabilities: NDArray[np.float32] | None
    """float32 (C,), sums to 1; ``None`` without a categorical target."""
    values: NDArray[np.float32] | None
    """float32 (K,); ``None`` without a dimensional target."""
    blanked: tuple[Modality, ...] = ()
    """What the window lacked and the recogniser was given black or silence for."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A stretch of a file of which nothing is said."""

    start_s: float
    """On the file's clock, in seconds."""
    end_s: float
    reason: str
    """``no_face``, ``no_video`` or ``no_audio``."""


@dataclass(frozen=True, kw_only=True)
class FilePrediction:
    """All windows of a file, and what they say together."""

    name: str
    """The path as it was given, or the clip's id."""
    duration_s: float
    targets: Targets
    windows: tuple[WindowPrediction, ...]
    """In order of time, at least one."""
    warnings: tuple[str, ...]
    """What the user ought to know: a picture that looks like no face crop, a file shorter than a window, ..."""
    left_out: tuple[LeftOut, ...] = ()
    """Windows that were not given to the recogniser, in order of time."""
    model: str = ""
    """What the recogniser is called: the name of its folder."""

    @property
    def probabilities(self) -> NDArray[np.float32] | None:
        """float32 (C,): the mean over the windows, as in the paper's test; ``None`` without a categorical target."""
        return _mean([window.probabilities for window in self.windows])

    @property
    def values(self) -> NDArray[np.float32] | None:
        """float32 (K,): the mean over the windows; ``None`` without a dimensional target."""
        return _mean([window.values for window in self.windows])

    @property
    def label(self) -> str | None:
        """The most probable class; ``None`` without a categorical target."""
        probabilities = self.probabilities
        return None if probabilities is None else self.targets.classes[int(probabilities.argmax())]


def _mean(rows: list[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    given = [row for row in rows if row is not None]
    return np.stack(given).mean(axis=0, dtype=np.float64).astype(np.float32) if given else None
