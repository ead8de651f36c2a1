"""Low light: fewer photons, the noise that comes with counting few, and the noise of reading them out.

A pixel of value v (0 to 1) stands for ``FULL_WELL * v**2.2`` electrons, and with ``level`` stops less light for
2**-level of them, e. The sensor counts e + sqrt(e + READ_NOISE**2) z, z from a standard normal distribution: the
variances of photons and of readout as in EMVA 1288, independently for each pixel, colour and frame. The count becomes a
value by the same curve: no gain makes up for the darkness. Noise belongs to pixels of the model's frames.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hicmae.corruptions.corruption import Media

FULL_WELL = 1000.0
"""Electrons of a white pixel in full light."""
READ_NOISE = 3.0
"""Standard deviation of readout, in electrons."""
GAMMA = 2.2


def low_light(media: Media, level: float, rng: np.random.Generator) -> Media:
    """Frames taken with ``level`` stops less light: half of it for each."""
    electrons = FULL_WELL * 2.0**-level * (np.arange(256, dtype=np.float32) / 255) ** GAMMA
    mean, deviation = electrons, np.sqrt(electrons + READ_NOISE**2)
    drawn = rng.standard_normal(media.video.shape, dtype=np.float32)
    counted = mean[media.video] + deviation[media.video] * drawn
    value = 255 * (counted / FULL_WELL).clip(0, 1) ** (1 / GAMMA)
    return replace(media, video=np.rint(value).astype(np.uint8))
