"""Long sequences in windows of one length, and predictions of windows back in one sequence.

Shapes: S steps of a sequence, W windows, L steps of a window, K targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """Windows of a sequence (Zhang et al., 2021: 300 steps every 200)."""

    length: int = 300
    """Steps of a window; shorter sequences are padded, and the padding is masked."""
    hop: int = 200
    """Steps from one window to the next; at most ``length``, so that none is left out."""

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"window.length={self.length} must be at least 1 step")
        if not 1 <= self.hop <= self.length:
            raise ValueError(f"window.hop={self.hop} must be between 1 and window.length={self.length} steps")


def window_starts(steps: int, settings: WindowSettings) -> NDArray[np.int64]:
    """First steps of the windows, int64 (W,), ascending; the last window ends with the sequence.

    A sequence that is no longer than a window has one, which starts at 0.
    """
    assert steps > 0
    room = max(0, steps - settings.length)
    starts = np.arange(0, room + 1, settings.hop, dtype=np.int64)
    return starts if starts[-1] == room else np.append(starts, room)


def cut_window(sequence: NDArray[np.generic], start: int, length: int) -> NDArray[np.generic]:
    """Steps ``start`` to ``start + length`` of a sequence (S, ...), padded with zeros at its end: (L, ...)."""
    part = sequence[start : start + length]
    missing = length - len(part)
    return np.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1)) if missing else np.asarray(part)


def merge_windows(outputs: NDArray[np.floating], starts: NDArray[np.int64], steps: int) -> NDArray[np.float64]:
    """The mean of what the windows say of each step.

    Args:
        outputs: float (W, L, K).
        starts: int64 (W,), as ``window_starts`` gave them.
        steps: S; what windows say beyond it (padding) is dropped.

    Returns:
        float64 (S, K).

    Raises:
        ValueError: a step in no window.
    """
    total = np.zeros((steps, outputs.shape[2]))
    count = np.zeros(steps)
    for start, output in zip(starts.tolist(), outputs, strict=True):
        end = min(start + len(output), steps)
        total[start:end] += output[: end - start]
        count[start:end] += 1
    if not count.all():
        raise ValueError(f"step {int(np.flatnonzero(count == 0)[0])} of {steps} lies in no window")
    return total / count[:, None]
