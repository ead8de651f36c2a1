"""Sound of a window: decoded from the packets around it and placed by time stamp, sample by sample."""

from __future__ import annotations

import math
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.audio.resampler import AudioResampler

from hicmae.media.clip import DecodeError
from hicmae.media.container import Track

GAP_S = 0.010
"""Time stamps may jitter by this much (containers round to a millisecond) before sound counts as missing."""
MARGIN_S = 0.050
"""Sound decoded on either side of the window; the resampling filter looks a few milliseconds around."""

_NO_MEMORY = ("pcm_", "flac", "alac")
_AAC_LEAD = 3
_OTHER_LEAD = 12
"""Packets decoded ahead of the first wanted one, as codecs lean on what came before: AAC overlaps by one,
with band replication by two; MP3 by up to nine, Opus by 80 ms."""


def read_sound(
    track: Track, start_s: float, samples: int, rate_hz: int, *, end_s: float | None, name: str
) -> tuple[npt.NDArray[np.int16], int]:
    """``fill_sound`` into new memory: the sound, int16 (samples,), and how far it reaches."""
    out = np.empty(samples, dtype=np.int16)
    return out, fill_sound(track, out, start_s, rate_hz, end_s=end_s, name=name)


def fill_sound(
    track: Track, out: npt.NDArray[np.int16], start_s: float, rate_hz: int, *, end_s: float | None, name: str
) -> int:
    """Fill ``out``, int16 (samples,), with mono sound at ``rate_hz`` from the instant ``start_s``, and with zeros
    where there is none.

    Args:
        end_s: sound from this instant on is left out; None for no limit.

    Returns:
        How many samples lie before the end of the sound (0: none in the window).

    Raises:
        DecodeError: ``corrupt_sound``, ``no_timestamps``.
    """
    out[:] = 0
    samples = len(out)
    limit = samples if end_s is None else max(0, min(samples, round((end_s - start_s) * rate_hz)))
    reach = 0
    for run_s, run in _runs(track, start_s - MARGIN_S, start_s + samples / rate_hz + MARGIN_S, rate_hz, name):
        offset = round((run_s - start_s) * rate_hz)
        begin, end = max(0, offset), min(limit, offset + len(run))
        if begin < end:
            out[begin:end] = run[begin - offset : end - offset]
            reach = max(reach, end)
    return reach


def _runs(
    track: Track, from_s: float, to_s: float, rate_hz: int, name: str
) -> list[tuple[float, npt.NDArray[np.int16]]]:
    """Stretches of unbroken sound that meet the given time: (start in seconds, int16 mono at ``rate_hz``)."""
    frames = _decode(track, from_s, to_s, name)
    tick = float(track.tick)
    stretches: list[list[Any]] = []
    expected = -np.inf
    for frame in frames:
        begins = frame.pts * tick
        if abs(begins - expected) > GAP_S:
            stretches.append([])
            expected = begins
        stretches[-1].append(frame)
        # Counted on from the start of the stretch, so that rounded time stamps do not add up.
        expected += frame.samples / frame.sample_rate
    return [_to_mono(part, part[0].pts * tick, rate_hz, name) for part in stretches]


def _decode(track: Track, from_s: float, to_s: float, name: str) -> list[Any]:
    """Decoded frames that meet the given time."""
    starts = track.pts * float(track.tick)
    inside = np.flatnonzero(starts < to_s)
    if not inside.size:
        return []
    last = int(inside[-1])
    # The packet on air at from_s is the last one that starts before it.
    on_air = int(np.searchsorted(starts, from_s, side="right")) - 1
    context = _sound_decoder(track)
    codec = context.name
    lead = 0 if codec.startswith(_NO_MEMORY) else _AAC_LEAD if codec.startswith("aac") else _OTHER_LEAD
    first = max(0, on_air - lead)
    frames: list[Any] = []
    for position in range(first, last + 2):
        packet = track.packets[position] if position <= last else None  # None empties the decoder
        try:
            frames += context.decode(packet)
        except (av.error.FFmpegError, ValueError) as error:
            # An MP3 frame may refer to bytes before the first packet decoded; that is not damage.
            if not (first > 0 and position < on_air):
                raise _corrupt(name, f"the decoder reports {error}") from None
    if len(frames) < (last - max(on_air, 0)):
        raise _corrupt(name, f"{len(frames)} of {last - first + 1} packets gave sound")
    if any(frame.pts is None for frame in frames):
        raise DecodeError(name, "no_timestamps", "sound without presentation times", _REMEDY)
    tick = float(track.tick)
    return [f for f in frames if f.pts * tick < to_s and f.pts * tick + f.samples / f.sample_rate > from_s]


def _sound_decoder(track: Track) -> Any:
    """A decoder without memory of another window, so that windows decoded together are those decoded alone."""
    context = track.stream.codec_context
    if context.is_open and context.name.startswith("aac"):
        # AAC's artificial noise goes on from where it was, even after a flush.
        fresh: Any = av.CodecContext.create(context.name, "r")
        fresh.extradata, fresh.sample_rate, fresh.layout = context.extradata, context.sample_rate, context.layout
        context = fresh
    elif context.is_open:
        context.flush_buffers()
        return context
    context.thread_count = 1
    context.options = {"err_detect": "crccheck+explode"}
    return context


def _to_mono(frames: list[Any], start_s: float, rate_hz: int, name: str) -> tuple[float, npt.NDArray[np.int16]]:
    """Consecutive frames, the first of which begins at ``start_s``, as one stretch of int16 mono sound at
    ``rate_hz``; with the instant of its first sample."""
    template = frames[0]
    rate, channels = template.rate, len(template.layout.channels)
    if template.format.name in _READY and channels == 1 and rate == rate_hz:
        # The usual case of a prepared corpus; a filter graph would cost as much as the decoding.
        kind = _READY[template.format.name]
        line = np.concatenate([np.frombuffer(frame.planes[0], kind)[: frame.samples] for frame in frames])
        if kind is np.float32:
            _check_finite(line, name)
            line = np.rint(line * np.float32(32768.0)).clip(-32768, 32767).astype(np.int16)
        return start_s, line
    block = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    if block.dtype.kind == "f":
        _check_finite(block, name)
    # Every window of a file shall be resampled at the same instants. So the stretch is begun, with silence, at
    # an instant that both rates share (every 10 ms for 44.1 and 16 kHz).
    first = round(start_s * rate)
    ahead = first % (rate // math.gcd(rate, rate_hz))
    silence = 128 if block.dtype == np.uint8 else 0
    interleaved = 1 if template.format.is_planar else channels
    block = np.pad(block, ((0, 0), (ahead * interleaved, 0)), constant_values=silence)
    whole = av.AudioFrame.from_ndarray(block, format=template.format.name, layout=template.layout.name)
    whole.sample_rate = rate
    resampler = AudioResampler(format="s16", layout="mono", rate=rate_hz)
    parts = [part.to_ndarray()[0] for step in (whole, None) for part in resampler.resample(step)]
    mono = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int16)
    # A stretch that begins within the window begins with its own sound, so the silence is cut off again.
    lead = -(-ahead * rate_hz // rate)
    return (first - ahead) / rate + lead / rate_hz, mono[lead:]


def _check_finite(samples: npt.NDArray[Any], name: str) -> None:
    # As int16 these would be silence, full scale, or whatever the processor makes of them. What is merely too loud is
    # cut off at full scale.
    if not np.isfinite(samples).all():
        raise _corrupt(name, "it holds samples that are not finite numbers (NaN or infinity)")


_READY: dict[str, type] = {"fltp": np.float32, "flt": np.float32, "s16": np.int16, "s16p": np.int16}
"""Formats of mono samples that need no filter graph."""
_REMEDY = "re-encode its sound, for example: ffmpeg -i FILE -c:v copy -c:a aac NEW.mp4"


def _corrupt(name: str, found: str) -> DecodeError:
    return DecodeError(name, "corrupt_sound", f"its sound is damaged: {found}", _REMEDY)
