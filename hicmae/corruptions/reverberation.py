"""Reverberation of a stated decay time, by an impulse response of decaying noise (Polack, 1988).

    h(0) = 1,    h(t) = a n(t) exp(-3 ln(10) t / RT60)    for 0 < t <= RT60

with white Gaussian n: 60 dB quieter after RT60 seconds. The factor a sets the energy behind the direct sound as a room
of 100 cubic metres has it one metre from the speaker: E = r**2 RT60 / (0.057**2 V), from the critical distance
0.057 sqrt(V / RT60) metres of Sabine's formula (Kuttruff, Room Acoustics).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hicmae.corruptions.corruption import Media
from hicmae.corruptions.noise import with_sound

ROOM_CUBIC_METRES = 100.0
DISTANCE_METRES = 1.0
_CRITICAL = 0.057
"""Critical distance in metres of a room of one cubic metre and one second."""


def reverberation(media: Media, level: float, rng: np.random.Generator) -> Media:
    """The sound in a room whose RT60 is ``level`` seconds, as loud as before.

    What was said before the window does not ring in it: its sound begins in silence.
    """
    sound = media.waveform[: media.sound_samples].astype(np.float64)
    response = impulse_response(level, rng, rate_hz=media.rate_hz)
    size = 1 << (max(1, len(sound) + len(response) - 1) - 1).bit_length()
    heard = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(response, size), size)[: len(sound)]
    before, after = np.sum(sound**2), np.sum(heard**2)
    return with_sound(media, heard * math.sqrt(before / after)) if after > 0 else media


def impulse_response(rt60_s: float, rng: np.random.Generator, *, rate_hz: int) -> NDArray[np.float64]:
    """What a click becomes, float64 (1 + RT60 in samples,): the click itself, then the decay."""
    samples = max(1, round(rt60_s * rate_hz))
    time_s = np.arange(1, samples + 1) / rate_hz
    decay = rng.standard_normal(samples) * np.exp(-3 * math.log(10) * time_s / rt60_s)
    energy = DISTANCE_METRES**2 * rt60_s / (_CRITICAL**2 * ROOM_CUBIC_METRES)
    return np.concatenate([[1.0], decay * math.sqrt(energy / np.sum(decay**2))])
