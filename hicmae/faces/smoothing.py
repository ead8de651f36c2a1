"""Boxes at some frames to a smooth square at every frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hicmae.faces.detector import FaceBox, need
from hicmae.faces.look import Bounds

_OUTLIERS = 3  # looks; the median over these drops a box that differs from both its neighbours
_REACH = 4.0  # widths of the kernel beyond which its weight is next to nothing
_TOGETHER = 1024  # frames computed at once: an hour of video makes no large matrix

Values = npt.NDArray[np.float64]


def smooth_squares(times_s: Values, seen_s: Values, boxes: Sequence[FaceBox | None], *, smooth_s: float) -> Values:
    """Centre and side of a face at all frames, float64 (N, 3) as (x, y, side), in pixels.

    Where it was not seen between two looks, it is taken to have moved evenly; before the first and after the last, to
    have stood still. A median over three looks drops single errors. Then each frame takes the value of a straight line
    fitted to the looks around it, weighted by a Gaussian in time (local linear regression, Fan, JASA 1992): even motion
    is left as it is, also at both ends, and frames may lie at uneven times.

    Args:
        times_s: when each frame is presented, float64 (N,), in seconds.
        seen_s: when each look was, float64 (K,), ascending.
        boxes: what was seen, K long, at least one of them not None.
        smooth_s: standard deviation of the Gaussian, in seconds; 0 joins the looks by straight lines.
    """
    there = np.array([box is not None for box in boxes])
    found = np.array([(*box.centre, box.side) for box in boxes if box is not None])
    whole = np.stack([np.interp(seen_s, seen_s[there], column) for column in found.T], axis=1)
    if not smooth_s:
        return np.stack([np.interp(times_s, seen_s, column) for column in whole.T], axis=1)
    whole = need("scipy.ndimage").median_filter(whole, size=(_OUTLIERS, 1), mode="nearest")
    # Looks farther apart than the kernel is wide would leave frames without any.
    width = max(smooth_s, float(np.diff(seen_s).max()) / 2) if len(seen_s) > 1 else smooth_s
    parts = [times_s[begin : begin + _TOGETHER] for begin in range(0, len(times_s), _TOGETHER)]
    return np.concatenate([_local_lines(part, seen_s, whole, width) for part in parts])


def _local_lines(times_s: Values, seen_s: Values, values: Values, width: float) -> Values:
    first = int(np.searchsorted(seen_s, times_s[0] - _REACH * width))
    last = int(np.searchsorted(seen_s, times_s[-1] + _REACH * width, side="right"))
    ahead = seen_s[None, first:last] - times_s[:, None]  # (frames, looks)
    weight = np.exp(-0.5 * (ahead / width) ** 2)
    s0, s1, s2 = weight.sum(1), (weight * ahead).sum(1), (weight * ahead**2).sum(1)
    # One look alone, or all at one instant, allow no slope.
    flat = s0 * s2 - s1**2 <= 1e-9 * np.maximum(s0, 1e-30) ** 2 * width**2
    line = weight * np.where(flat[:, None], 1.0, s2[:, None] - ahead * s1[:, None])
    return (line @ values[first:last]) / line.sum(1, keepdims=True)


def fit_in(squares: Values, bounds: Bounds, margin: float) -> Values:
    """Squares around faces that lie within ``bounds``: (top, left, side), float64 (N, 3), in pixels.

    A square that would reach over an edge is moved inside, and one larger than the shorter side is that side: what is
    shown is picture, not padding.

    Args:
        squares: (x, y, side) of the faces, float64 (N, 3).
        bounds: of the picture, or of the part of it that is looked at.
        margin: added on each side, as a fraction of the face's side.
    """
    top, left, bottom, right = bounds
    side = np.minimum(squares[:, 2] * (1 + 2 * margin), min(bottom - top, right - left))
    across = np.clip(squares[:, 0] - side / 2, left, right - side)
    down = np.clip(squares[:, 1] - side / 2, top, bottom - side)
    return np.stack([down, across, side], axis=1)
