"""Plain WAV without FFmpeg: opening one through FFmpeg costs more than decoding a window of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hicmae.media.clip import DecodeError
from hicmae.media.large_file import LargeFile, MediaData

_PCM = 1


@dataclass(frozen=True, kw_only=True)
class PlainSound:
    """Sound that lies in memory as it is wanted: one channel, 16 bits, at the wanted rate, from 0 s."""

    waveform: npt.NDArray[np.int16]
    """int16 (samples,): a view of the file's bytes, in memory or on the disk."""
    rate_hz: int

    @property
    def begin_s(self) -> float:
        """Instant of the first sample, in seconds."""
        return 0.0

    @property
    def end_s(self) -> float:
        """End of the last sample, in seconds."""
        return len(self.waveform) / self.rate_hz

    def read(self, out: npt.NDArray[np.int16], start_s: float, *, end_s: float | None) -> int:
        """Fill ``out`` with the sound from ``start_s`` on, as ``sound.read_sound`` does."""
        samples = len(out)
        limit = samples if end_s is None else max(0, min(samples, round((end_s - start_s) * self.rate_hz)))
        offset = round(-start_s * self.rate_hz)
        begin, end = max(0, offset), min(limit, offset + len(self.waveform))
        if begin >= end:
            out[:] = 0
            return 0
        out[:begin] = 0
        out[begin:end] = self.waveform[begin - offset : end - offset]
        out[end:] = 0
        return end


def plain_wav(data: MediaData, rate_hz: int, name: str) -> PlainSound | None:
    """The sound of a WAV file of 16-bit PCM, mono, at ``rate_hz``; None for any other file, which is for FFmpeg.

    Raises:
        DecodeError: ``truncated`` where the file is shorter than it says.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE" or data[12:16] != b"fmt ":
        return None
    kind, channels = _number(data, 20, 2), _number(data, 22, 2)
    rate, bits = _number(data, 24, 4), _number(data, 34, 2)
    if (_number(data, 16, 4), kind, channels, rate, bits) != (16, _PCM, 1, rate_hz, 16) or data[36:40] != b"data":
        return None
    size = _number(data, 40, 4)
    # Writers that stream leave 0 or the largest number as a placeholder, and a further chunk may follow.
    if size in (0, 0xFFFFFFFF) or size % 2 or len(data) > 44 + size:
        return None
    if len(data) < 44 + size:
        raise DecodeError(
            name,
            "truncated",
            f"the file was cut short: {len(data) - 44} of {size} bytes of sound are there",
            "fetch or export the file again, or drop it from the manifest",
        )
    if isinstance(data, LargeFile):
        return PlainSound(waveform=data.mapped(44).view("<i2"), rate_hz=rate)
    return PlainSound(waveform=np.frombuffer(data, "<i2", offset=44), rate_hz=rate)


def _number(data: MediaData, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")
