"""Babble: syllables in time, as the slow curves that both the mouth and the voice follow.

Everything is sampled ``CONTROL_HZ`` times a second. Mouth and sound are made from the same syllables, so lips
and loudness move together as they do in speech.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONTROL_HZ = 200
"""Rate of the control curves; a multiple of the 25 frames a second."""


_LIPS_LEAD = 5
"""How far the mouth is ahead of the sound, in control points."""


@dataclass(frozen=True, kw_only=True)
class Vowel:
    """Formants in hertz (of a vocal tract of scale 1); ``open`` 0..1 and ``rounding`` -1..1 (spread to round)."""

    formants_hz: tuple[float, float, float]
    open: float
    rounding: float


VOWELS: dict[str, Vowel] = {
    "a": Vowel(formants_hz=(780, 1250, 2550), open=1.0, rounding=0.0),
    "ae": Vowel(formants_hz=(680, 1700, 2450), open=0.85, rounding=-0.4),
    "e": Vowel(formants_hz=(530, 1850, 2500), open=0.6, rounding=-0.5),
    "i": Vowel(formants_hz=(290, 2250, 3000), open=0.35, rounding=-0.9),
    "o": Vowel(formants_hz=(480, 880, 2450), open=0.6, rounding=0.8),
    "u": Vowel(formants_hz=(320, 800, 2300), open=0.35, rounding=1.0),
    "er": Vowel(formants_hz=(500, 1450, 2480), open=0.5, rounding=0.0),
}


@dataclass(frozen=True, kw_only=True)
class Consonant:
    """``noise`` is the strength of its hiss or burst around ``noise_hz``; ``closed`` is how far the lips shut."""

    noise: float
    noise_hz: float
    noise_s: float
    closed: float


CONSONANTS: dict[str, Consonant] = {
    "m": Consonant(noise=0.0, noise_hz=1000, noise_s=0.0, closed=1.0),
    "b": Consonant(noise=0.25, noise_hz=900, noise_s=0.015, closed=1.0),
    "t": Consonant(noise=0.5, noise_hz=4200, noise_s=0.025, closed=0.6),
    "k": Consonant(noise=0.4, noise_hz=2000, noise_s=0.025, closed=0.5),
    "s": Consonant(noise=0.5, noise_hz=5600, noise_s=0.08, closed=0.75),
    "sh": Consonant(noise=0.5, noise_hz=3200, noise_s=0.08, closed=0.6),
    "l": Consonant(noise=0.0, noise_hz=1000, noise_s=0.0, closed=0.45),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Speech:
    """Curves of length N = seconds * CONTROL_HZ, float64, shape (N,) unless stated."""

    loudness: np.ndarray
    """Amplitude of the voicing, 0..about 1."""
    opening: np.ndarray
    """Mouth opening, 0 (shut) to about 1 (wide)."""
    rounding: np.ndarray
    """Lips, -1 (spread) to 1 (round)."""
    accent: np.ndarray
    """Stress of the syllable, about -1..1, smooth: intonation and nods follow it."""
    declination: np.ndarray
    """1 at the start of a phrase falling to 0 at its end."""
    formants_hz: np.ndarray
    """(N, 3)."""
    noise: np.ndarray
    """Amplitude of hiss and bursts."""
    noise_hz: np.ndarray
    """Centre frequency of hiss and bursts."""


def smooth(curve: np.ndarray, seconds: float) -> np.ndarray:
    """``curve`` (N,) or (N, K) under a raised-cosine window of this length, edges held; same shape."""
    taps = max(3, round(seconds * CONTROL_HZ) | 1)
    window = np.hanning(taps + 2)[1:-1]
    window /= window.sum()
    if curve.ndim == 2:
        return np.stack([smooth(column, seconds) for column in curve.T], axis=1)
    return np.convolve(np.pad(curve, taps // 2, mode="edge"), window, mode="valid")


def babble(rng: np.random.Generator, tempo_hz: np.ndarray) -> Speech:
    """Nonsense syllables in phrases; ``tempo_hz`` (N,) is the speaking rate at each instant, in syllables a second."""
    count = len(tempo_hz)
    loudness, opening, closed, noise, declination = (np.zeros(count) for _ in range(5))
    rounding, accent = np.zeros(count), np.zeros(count)
    noise_hz = np.full(count, 3000.0)
    anchors: list[tuple[int, Vowel]] = []
    vowels, consonants = list(VOWELS.values()), list(CONSONANTS.values())
    instant, left_in_phrase, phrase_start = rng.uniform(0.04, 0.22), int(rng.integers(4, 9)), 0
    while instant < count / CONTROL_HZ - 0.12:
        length_s = float(np.exp(0.14 * rng.normal())) / tempo_hz[int(instant * CONTROL_HZ)]
        first, last = int(instant * CONTROL_HZ), min(count, int((instant + length_s) * CONTROL_HZ))
        vowel, consonant = vowels[int(rng.integers(len(vowels)))], consonants[int(rng.integers(len(consonants)))]
        stress = rng.uniform(-1, 1)
        place = np.minimum(1, (np.arange(last - first) + 0.5) / (length_s * CONTROL_HZ))
        hump = np.sin(np.pi * place**0.85) ** 0.8
        loudness[first:last] = hump * (0.72 + 0.18 * stress) * (0.45 + 0.55 * vowel.open)
        opening[first:last] = hump * (0.85 + 0.15 * stress) * (0.25 + 0.75 * vowel.open)
        closed[first : first + max(2, (last - first) // 5)] = consonant.closed
        rounding[first:last], accent[first:last] = vowel.rounding, stress
        hiss = slice(first, min(last, first + round(consonant.noise_s * CONTROL_HZ)))
        noise[hiss], noise_hz[hiss] = consonant.noise * rng.uniform(0.6, 1.0), consonant.noise_hz
        anchors.append(((first + last) // 2, vowel))
        instant, left_in_phrase = instant + length_s, left_in_phrase - 1
        if left_in_phrase == 0:
            declination[phrase_start:last] = np.linspace(1, 0, last - phrase_start)
            instant += rng.uniform(0.12, 0.32)
            left_in_phrase, phrase_start = int(rng.integers(4, 9)), last
    declination[phrase_start:] = np.linspace(1, 0, count - phrase_start)
    times = [centre for centre, _ in anchors]
    formants = np.stack(
        [np.interp(np.arange(count), times, [vowel.formants_hz[k] for _, vowel in anchors]) for k in range(3)], axis=1
    )
    return Speech(
        loudness=smooth(loudness * (1 - 0.75 * closed), 0.03),
        # Lips prepare what is to be heard, so they lead the sound a little.
        opening=np.append(smooth(opening * (1 - closed), 0.06)[_LIPS_LEAD:], np.zeros(_LIPS_LEAD)),
        rounding=smooth(rounding, 0.14),
        accent=smooth(accent, 0.2),
        declination=declination,
        formants_hz=smooth(formants, 0.05),
        noise=smooth(noise, 0.015),
        noise_hz=noise_hz,
    )
