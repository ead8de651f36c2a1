"""The largest batch that fits into memory, found by trying."""

from __future__ import annotations

from collections.abc import Callable


def largest_that_fits(fits: Callable[[int], bool], asked: int) -> int:
    """The most clips below ``asked`` that fit, 0 if not even one does: halved until they do, then bisected.

    Args:
        fits: tries so many clips.
        asked: so many do not fit.
    """
    fitting, failing = 0, asked
    while failing - fitting > 1:
        count = (fitting + failing) // 2
        if fits(count):
            fitting = count
        else:
            failing = count
    return fitting
