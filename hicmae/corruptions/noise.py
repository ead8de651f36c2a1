"""Noise at a stated ratio of signal to noise: white, pink, or the voices of other people.

The ratio is that of mean squares over all of the window's sound, pauses included and padding excluded, both without
their means: ``snr_db = 10 log10(mean(sound**2) / mean(noise**2))``. Silence has no ratio and stays as it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hicmae.corruptions.corruption import Media

_FULL_SCALE = 32767
_LOWEST_HZ = 20.0


def white_noise(media: Media, level: float, rng: np.random.Generator) -> Media:
    """Gaussian noise, as strong at every frequency; ``level`` is the ratio in decibels."""
    return add_noise(media, rng.standard_normal(media.sound_samples), level)


def pink_noise(media: Media, level: float, rng: np.random.Generator) -> Media:
    """Gaussian noise whose power falls as one over the frequency, from 20 Hz: each octave has as much of it."""
    samples = media.sound_samples
    if not samples:
        return media
    frequency = np.fft.rfftfreq(samples, 1 / media.rate_hz)
    spectrum = np.fft.rfft(rng.standard_normal(samples)) / np.sqrt(np.maximum(frequency, _LOWEST_HZ))
    spectrum[frequency < _LOWEST_HZ] = 0
    return add_noise(media, np.fft.irfft(spectrum, n=samples), level)


def babble(media: Media, level: float, rng: np.random.Generator) -> Media:
    """``media.voices`` together, each as loud as the others and begun anywhere in it.

    Raises:
        ValueError: no voices.
    """
    voices = [voice.astype(np.float64) for voice in media.voices if voice.any()]
    if not voices:
        raise ValueError("babble is made of the sound of other clips, and none was given")
    mixed = np.zeros(media.sound_samples)
    for voice in voices:
        start = int(rng.integers(len(voice)))
        mixed += np.resize(np.roll(voice, -start), media.sound_samples) / np.sqrt(np.mean(voice**2))
    return add_noise(media, mixed, level)


def add_noise(media: Media, noise: NDArray[np.float64], snr_db: float) -> Media:
    """The sound with noise added at a ratio.

    Where the sum would be louder than 16 bits can hold, sound and noise are turned down together, which keeps the
    ratio and cuts nothing off.

    Args:
        media: whose sound it is.
        noise: float (sound_samples,), of any loudness.
        snr_db: the ratio.
    """
    sound = media.waveform[: media.sound_samples].astype(np.float64)
    if not len(sound):
        return media
    noise = noise - noise.mean()
    of_sound, of_noise = sound.var(), noise.var()
    if not of_sound or not of_noise:
        return media
    return with_sound(media, sound + noise * np.sqrt(of_sound / of_noise / 10 ** (snr_db / 10)))


def with_sound(media: Media, sound: NDArray[np.float64]) -> Media:
    """The media with another sound, float (sound_samples,) on the scale of 16 bits; turned down where it is louder than
    they hold."""
    peak = np.abs(sound).max(initial=0.0)
    waveform = media.waveform.copy()
    waveform[: len(sound)] = np.rint(sound * min(1.0, _FULL_SCALE / peak) if peak else sound)
    return replace(media, waveform=waveform)
