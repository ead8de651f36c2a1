"""A part of every frame behind something grey: anywhere, or where eyes or mouth are.

The picture is taken for the face: it is a square cut around one. Levels are shares of its area.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hicmae.corruptions.corruption import Media

GREY = 127
EYES_AT, MOUTH_AT = 0.42, 0.70
"""Heights of eyes and mouth from above, as fractions of the frame: of an upright face cut out with this library's
margin (docs/faces.md), about."""


def random_box(media: Media, level: float, rng: np.random.Generator) -> Media:
    """A square box at a place drawn for the clip, in all frames the same; a larger one covers a smaller one's place."""
    side = media.video.shape[1]
    height = min(side, max(1, round(math.sqrt(level) * side)))
    width = min(side, max(1, round(level * side * side / height)))
    down, right = rng.random(2)
    return _covered(media, (round(down * (side - height)), height), (round(right * (side - width)), width))


def eyes_bar(media: Media, level: float, rng: np.random.Generator) -> Media:
    """A bar as wide as the frame, around the height of the eyes."""
    return _bar(media, level, EYES_AT)


def mouth_bar(media: Media, level: float, rng: np.random.Generator) -> Media:
    """A bar as wide as the frame, around the height of the mouth."""
    return _bar(media, level, MOUTH_AT)


def _bar(media: Media, level: float, centre: float) -> Media:
    side = media.video.shape[1]
    height = max(1, round(level * side))
    top = min(max(0, round(centre * side - height / 2)), side - height)
    return _covered(media, (top, height), (0, side))


def _covered(media: Media, rows: tuple[int, int], columns: tuple[int, int]) -> Media:
    video = media.video.copy()
    video[:, rows[0] : sum(rows), columns[0] : sum(columns)] = GREY
    return replace(media, video=video)
