"""Which frames make a clip: by time, never by frame number, so that any frame rate gives the same window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hicmae.config import InputSpec

TOLERANCE_S = 0.002
"""How late a frame may be stamped and still count as on screen: containers round times to a millisecond."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The frames and the instant of one clip."""

    start_s: float
    """Instant of the first frame."""
    frames: npt.NDArray[np.int64]
    """Numbers of the T frames in order of presentation, ascending; the last repeats in a short clip."""
    sound_end_s: float | None
    """Where the sound must stop, on the file's clock; None for no limit."""


def choose_window(
    times_s: npt.NDArray[np.float64],
    end_s: float,
    spec: InputSpec,
    *,
    position: float,
    span_s: tuple[float, float] | None,
) -> Window | None:
    """The window at ``position`` (0 earliest, 1 latest) of the frames presented at ``times_s``.

    Args:
        times_s: presentation times, float64 (frames,), ascending, in seconds; at least one.
        end_s: when the last frame leaves the screen.
        span_s: limits the clip to these seconds of the file.

    Returns:
        None where no frame lies within the span.
    """
    begin, finish = (times_s[0], end_s) if span_s is None else (max(span_s[0], times_s[0]), min(span_s[1], end_s))
    first = int(np.searchsorted(times_s, begin - TOLERANCE_S))
    last = int(np.searchsorted(times_s, finish - TOLERANCE_S)) - 1
    if finish <= begin:
        return None
    # A span within the time of one frame: that frame is on screen.
    last = max(last, 0)
    first = min(first, last)
    wanted = begin + position * max(0.0, finish - begin - spec.window_seconds)
    start = int(np.clip(_on_screen(times_s, np.array(wanted, dtype=np.float64)), first, last))
    start_s = float(times_s[start])
    instants = start_s + np.arange(spec.num_frames, dtype=np.float64) * spec.frame_interval_s
    frames = np.clip(_on_screen(times_s, instants), start, last)
    frames[0] = start  # two frames may lie closer together than the tolerance
    return Window(start_s=start_s, frames=frames, sound_end_s=None if span_s is None else span_s[1])


def _on_screen(times_s: npt.NDArray[np.float64], instants: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.searchsorted(times_s, instants + TOLERANCE_S, side="right") - 1
