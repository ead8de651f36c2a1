"""Sound into bytes: AAC, FLAC or WAV of one 16-bit channel."""

from __future__ import annotations

import io
import wave
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

AAC_BITS_PER_S = 64_000
_BLOCK = 1 << 20  # samples handed to an encoder at once
_CONTAINERS = {"aac": ("mp4", "m4a"), "flac": ("flac", "flac")}


def encode_sound(codec: str, waveform: npt.NDArray[np.int16], rate_hz: int) -> tuple[bytes, str]:
    """A sound file and its extension.

    Args:
        codec: ``"aac"`` (m4a), ``"flac"`` or ``"wav"``.
        waveform: int16 (samples,), at least one.
        rate_hz: samples per second.
    """
    buffer = io.BytesIO()
    if codec == "wav":
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate_hz)
            file.writeframes(waveform.astype("<i2").tobytes())
        return buffer.getvalue(), "wav"
    container, extension = _CONTAINERS[codec]
    with av.open(buffer, "w", format=container) as output:
        stream = add_sound_stream(output, codec, rate_hz)
        for packet in encode_waveform(stream, waveform, rate_hz):
            output.mux(packet)
    return buffer.getvalue(), extension


def add_sound_stream(output: Any, codec: str, rate_hz: int) -> Any:
    """A stream of one channel in an open output file."""
    options = {"b": str(AAC_BITS_PER_S)} if codec == "aac" else {}
    return output.add_stream(codec, rate=rate_hz, layout="mono", options=options)


def encode_waveform(stream: Any, waveform: npt.NDArray[np.int16], rate_hz: int) -> list[Any]:
    """The packets of a sound that begins at t = 0, int16 (samples,); not yet written."""
    packets = []
    for begin in range(0, len(waveform), _BLOCK):
        block = av.AudioFrame.from_ndarray(waveform[None, begin : begin + _BLOCK], format="s16", layout="mono")
        block.sample_rate, block.pts, block.time_base = rate_hz, begin, Fraction(1, rate_hz)
        packets += stream.encode(block)
    return packets + stream.encode(None)
