"""Sound as narrow or coarse channels carry it."""

from __future__ import annotations

import math

import numpy as np

from hicmae.corruptions.corruption import Media
from hicmae.corruptions.noise import with_sound

_MU = 255.0


def band_limit(media: Media, level: float, rng: np.random.Generator) -> Media:
    """Nothing above ``level`` hertz, as after sampling at twice that rate; the spectrum of the window is cut there."""
    sound = media.waveform[: media.sound_samples].astype(np.float64)
    if not len(sound):
        return media
    spectrum = np.fft.rfft(sound)
    spectrum[np.fft.rfftfreq(len(sound), 1 / media.rate_hz) > level] = 0
    return with_sound(media, np.fft.irfft(spectrum, n=len(sound)))


def mu_law(media: Media, level: float, rng: np.random.Generator) -> Media:
    """Samples kept with ``level`` bits: companded by the mu-law of ITU-T G.711 (mu = 255; continuous, not in its linear
    pieces), divided into equal steps, and expanded from their middles. Telephones take 8 bits."""
    sound = media.waveform[: media.sound_samples].astype(np.float64) / 32768
    companded = np.sign(sound) * np.log1p(_MU * np.abs(sound)) / math.log1p(_MU)
    steps = 2.0 ** round(level)
    middle = (np.clip(np.floor((companded + 1) / 2 * steps), 0, steps - 1) + 0.5) / steps * 2 - 1
    return with_sound(media, 32768 * np.sign(middle) * np.expm1(np.abs(middle) * math.log1p(_MU)) / _MU)
