"""What re-encoding cost: a stored clip beside what decoding its original gives."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg

from hicmae.media.container import Media, Track, open_media
from hicmae.media.encode import SAMPLE_RATE_HZ, EncodedMembers, whole_sound
from hicmae.media.frames_file import FramesFile, is_frames_file, read_frames
from hicmae.media.original import open_original
from hicmae.media.span import span_frames, write_squares

FRAMES_MEASURED = 16
MOST_DB = 100.0
"""What stands for no difference at all."""
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # BT.601


@dataclass(frozen=True, kw_only=True)
class ClipQuality:
    """One stored clip against its original; None where there is no picture, or no sound that is not silence."""

    luma_psnr_db: float | None
    """Peak signal-to-noise ratio of the luma of evenly spaced frames, against squares of the original."""
    sound_snr_db: float | None
    """Energy of the original's sound over the energy of the difference."""


def measure_quality(
    video: bytes | None,
    audio: bytes | None,
    stored: EncodedMembers,
    *,
    span_s: tuple[float, float] | None,
    size: int,
    square: tuple[int, int, int] | None,
    name: str,
) -> ClipQuality:
    """Decode both and compare; the arguments are those that ``encode_clip`` was given, and what it returned.

    Raises:
        DecodeError: one of the two cannot be decoded.
    """
    with ExitStack() as stack:
        picture, sound = open_original(stack, video, audio, name)
        psnr = start_s = None
        if picture is not None and stored.video is not None:
            span = span_frames(picture, span_s)
            assert span is not None, "it was encoded"
            start_s = span.start_s
            chosen = np.unique(np.linspace(0, len(span.numbers) - 1, FRAMES_MEASURED).round().astype(np.int64))
            wanted = _squares(picture, span.numbers[chosen], size, square, name)
            psnr = psnr_db(wanted, _stored_frames(stored.video, chosen, size, name))
        snr = None
        if sound is not None and stored.has_audio:
            if start_s is None:
                start_s = max(0.0, float(sound.times_s[0]), span_s[0] if span_s else 0.0)
            snr = _sound_snr(sound, start_s, stored, stack, name)
    return ClipQuality(luma_psnr_db=psnr, sound_snr_db=snr)


def psnr_db(wanted: npt.NDArray[np.uint8], found: npt.NDArray[np.uint8]) -> float:
    """PSNR of the luma of RGB frames, uint8 (T, H, W, 3) each, in dB, at most ``MOST_DB``."""
    difference = (wanted.astype(np.float32) - found.astype(np.float32)) @ _LUMA
    return _decibel(255.0**2, float(np.mean(difference**2, dtype=np.float64)))


def snr_db(wanted: npt.NDArray[np.int16], found: npt.NDArray[np.int16]) -> float | None:
    """Energy of a sound over that of its difference to another, int16 (samples,) each, in dB; None for silence."""
    length = min(len(wanted), len(found))
    signal, other = wanted[:length].astype(np.float64), found[:length].astype(np.float64)
    energy = float(np.sum(signal**2))
    return _decibel(energy, float(np.sum((signal - other) ** 2))) if energy else None


def _decibel(signal: float, noise: float) -> float:
    return min(MOST_DB, float(10 * np.log10(signal / noise))) if noise else MOST_DB


def _stored_frames(data: bytes, chosen: npt.NDArray[np.int64], size: int, name: str) -> npt.NDArray[np.uint8]:
    if is_frames_file(data):
        file = read_frames(data, name)
        return np.stack([simplejpeg.decode_jpeg(file.jpeg(number)) for number in chosen.tolist()])
    with open_media(data, name, sound=False) as media:
        assert media.picture is not None, "it was encoded"
        return _squares(media.picture, chosen, size, None, name)


def _sound_snr(sound: Track, start_s: float, stored: EncodedMembers, stack: ExitStack, name: str) -> float | None:
    data = stored.audio if stored.audio is not None else stored.video
    assert data is not None, "it has sound"
    media: Media = stack.enter_context(open_media(data, name, picture=False))
    found = whole_sound(media.sound, 0.0, np.inf, name) if media.sound is not None else None
    if found is None:
        return None
    wanted = whole_sound(sound, start_s, start_s + len(found) / SAMPLE_RATE_HZ, name)
    return snr_db(wanted, found) if wanted is not None else None


class _Collector:
    def begin(self) -> None:
        self.frames: list[npt.NDArray[np.uint8]] = []

    def add(self, frame: npt.NDArray[np.uint8]) -> None:
        self.frames.append(frame.copy())


def _squares(
    picture: Track | FramesFile,
    numbers: npt.NDArray[np.int64],
    size: int,
    square: tuple[int, int, int] | None,
    name: str,
) -> npt.NDArray[np.uint8]:
    collector = _Collector()
    write_squares(picture, numbers, collector, size=size, square=square, name=name)
    return np.stack(collector.frames)
