"""Frames that never arrive: the last one that did stays on screen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hicmae.corruptions.corruption import Media


def frame_drops(media: Media, level: float, rng: np.random.Generator) -> Media:
    """A share ``level`` of the frames after the first is lost, as near as whole frames allow; what is lost at one level
    is lost at every higher one."""
    count = len(media.video)
    order = rng.permutation(count - 1) + 1
    lost = order[: round(level * (count - 1))]
    shown = np.arange(count)
    shown[lost] = 0
    return replace(media, video=media.video[np.maximum.accumulate(shown)])
