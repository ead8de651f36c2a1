"""Sound of a performance: a glottal pulse train and noise, shaped by formants that move (source and filter).

The filter works on overlapping windows in the frequency domain, so the formants, the spectral tilt and the
noise may change every 10 ms and the whole clip is shaped by a handful of array operations.
"""

from __future__ import annotations

import numpy as np

from hicmae.data.synthetic.performance import Performance
from hicmae.data.synthetic.seeding import generator_for
from hicmae.data.synthetic.speech import CONTROL_HZ

SAMPLE_RATE_HZ = 16_000
_WINDOW, _HOP, _FFT = 320, 160, 512
_BANDWIDTHS_HZ = (80.0, 100.0, 140.0, 220.0, 300.0)
_SPEECH_RMS = 0.06
"""Level of an average voice against full scale."""


def synthesise(performance: Performance, *, seed: int, clip_id: str) -> np.ndarray:
    """The sound of a clip: int16 (samples,), mono, 16 kHz, exactly as long as the video."""
    rng = generator_for(seed, "voice", clip_id)
    samples = round(performance.seconds * SAMPLE_RATE_HZ)
    at = np.arange(samples) * (CONTROL_HZ / SAMPLE_RATE_HZ)
    grid = np.arange(len(performance.pitch_hz))

    def to_samples(curve: np.ndarray) -> np.ndarray:
        return np.interp(at, grid, curve).astype(np.float32)

    amplitude = performance.speech.loudness * performance.gain
    pulses = _glottal_pulses(rng, to_samples(performance.pitch_hz)) * to_samples(amplitude)
    windows = -(-samples // _HOP) + 1
    every = np.minimum(np.arange(windows) * _HOP * CONTROL_HZ // SAMPLE_RATE_HZ, len(grid) - 1)
    tract = _tract(performance.speech.formants_hz[every] * performance.formant_scale, performance.formant_scale)
    spectrum = _spectra(pulses, windows) * _tilt(performance.tilt_db_per_octave[every])
    hiss = _spectra(rng.standard_normal(samples, dtype=np.float32), windows)
    aspiration = 0.12 * amplitude[every] * performance.breath[every]
    spectrum += hiss * aspiration[:, None].astype(np.float32)
    spectrum *= tract
    friction = np.flatnonzero(performance.speech.noise[every] > 0)
    strength = 0.32 * (performance.speech.noise * performance.gain)[every][friction, None]
    band = _noise_band(performance.speech.noise_hz[every][friction])
    spectrum[friction] += hiss[friction] * (strength.astype(np.float32) * band)
    sound = _overlap_add(spectrum, samples)

    # Normalise by what an average voice at rest would measure, not by this clip: loudness carries arousal.
    sound *= _SPEECH_RMS / 0.35 * 10 ** (rng.normal(0, 1.5) / 20)
    hum_hz, room = rng.choice([50.0, 60.0]), 10 ** (rng.uniform(-62, -46) / 20)
    sound += room * rng.standard_normal(samples, dtype=np.float32)
    sound += room * 0.7 * np.sin(2 * np.pi * hum_hz / SAMPLE_RATE_HZ * np.arange(samples, dtype=np.float32))
    # A soft limiter instead of clipping, as in a recorder.
    return np.round(np.tanh(sound) * 32_000).astype(np.int16)


def _glottal_pulses(rng: np.random.Generator, pitch_hz: np.ndarray) -> np.ndarray:
    """(samples,) float32: one pulse a period, placed between samples, with jitter and shimmer."""
    phase = np.cumsum(pitch_hz.astype(np.float64)) / SAMPLE_RATE_HZ
    numbers = np.arange(1, int(phase[-1]))
    instants = np.interp(numbers + 0.006 * rng.standard_normal(len(numbers)), phase, np.arange(len(phase)))
    left = np.floor(instants).astype(np.int64)
    share = instants - left
    # A pulse's height grows with the period so that the power does not depend on the pitch.
    height = (1 + 0.06 * rng.standard_normal(len(numbers))) * np.sqrt(SAMPLE_RATE_HZ / pitch_hz[left])
    train = np.zeros(len(phase) + 1)
    np.add.at(train, left, height * (1 - share))
    np.add.at(train, left + 1, height * share)
    return train[:-1].astype(np.float32)


def _frequencies() -> np.ndarray:
    return np.arange(_FFT // 2 + 1, dtype=np.float32) * (SAMPLE_RATE_HZ / _FFT)


def _tract(formants_hz: np.ndarray, scale: float) -> np.ndarray:
    """(windows, bins) complex64: resonances at three moving and two fixed formants, 1 at zero frequency."""
    angle = np.exp(-2j * np.pi * _frequencies() / SAMPLE_RATE_HZ).astype(np.complex64)
    gain = np.ones((len(formants_hz), 1), np.float32)
    below = np.ones((len(formants_hz), len(angle)), np.complex64)
    for k, bandwidth in enumerate(_BANDWIDTHS_HZ):
        centre = formants_hz[:, k] if k < 3 else np.full(len(formants_hz), (3500.0, 4500.0)[k - 3] * scale)
        radius = float(np.exp(-np.pi * bandwidth / SAMPLE_RATE_HZ))
        first = (-2 * radius * np.cos(2 * np.pi * centre / SAMPLE_RATE_HZ)).astype(np.float32)[:, None]
        below *= first * angle + (1 + radius**2 * angle**2)
        gain *= 1 + first + radius**2
    response: np.ndarray = gain / below
    return response


def _tilt(db_per_octave: np.ndarray) -> np.ndarray:
    """(windows, bins) float32: gain of the source's fall from 150 Hz upwards, lips' radiation included."""
    octaves = np.log2(np.maximum(_frequencies(), 150.0) / 150.0)
    gain = np.exp(db_per_octave[:, None] * (octaves[None] * np.float32(np.log(10) / 20))).astype(np.float32)
    gain[:, :2] *= 0.2  # nothing below the voice
    return gain


def _noise_band(centre_hz: np.ndarray) -> np.ndarray:
    """(windows, bins) float32: a bump around each window's centre frequency."""
    distance = (_frequencies()[None] - centre_hz[:, None].astype(np.float32)) / (0.28 * centre_hz[:, None] + 300)
    return np.exp(-0.5 * distance.astype(np.float32) ** 2)


def _spectra(signal: np.ndarray, windows: int) -> np.ndarray:
    """(windows, bins) complex64 of windows every 10 ms, whose Hann weights add up to 1."""
    padded = np.zeros((windows + 1) * _HOP, np.float32)
    padded[_HOP : _HOP + len(signal)] = signal
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    return np.fft.rfft(frames * hann, _FFT, axis=1).astype(np.complex64)


def _overlap_add(spectrum: np.ndarray, samples: int) -> np.ndarray:
    """The inverse of ``_spectra``: (samples,) float32."""
    pieces = np.fft.irfft(spectrum, _FFT, axis=1).astype(np.float32)
    blocks = -(-_FFT // _HOP)
    padded = np.zeros((len(pieces), blocks * _HOP), np.float32)
    padded[:, :_FFT] = pieces
    out = np.zeros((len(pieces) + blocks, _HOP), np.float32)
    for block in range(blocks):
        out[block : block + len(pieces)] += padded[:, block * _HOP : (block + 1) * _HOP]
    return out.reshape(-1)[_HOP : _HOP + samples]
