"""Sound that comes later or earlier than the picture it belongs to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hicmae.config import InputSpec
from hicmae.corruptions.corruption import Media
from hicmae.media.decode import OpenClip, open_clip
from hicmae.media.large_file import MediaData
from hicmae.media.sound import fill_sound
from hicmae.media.square import Square
from hicmae.media.wav import PlainSound


def desynchronise(media: Media, level: float, rng: np.random.Generator) -> Media:
    """The picture with the sound ``level`` seconds late (early, where that is negative).

    Raises:
        ValueError: ``media.sound_at`` is missing.
    """
    if media.sound_at is None:
        raise ValueError("desynchronisation decodes sound anew and needs Media.sound_at, which was not given")
    waveform, sound_samples = media.sound_at(level)
    return replace(media, waveform=waveform, sound_samples=sound_samples)


def late_sound(
    video: MediaData | None,
    audio: MediaData | None,
    *,
    spec: InputSpec,
    position: float,
    late_s: float,
    span_s: tuple[float, float] | None = None,
    square: Square | None = None,
    name: str,
) -> tuple[NDArray[np.int16], int]:
    """The sound of a clip's window when all of its sound comes ``late_s`` seconds late: what lies that much earlier in
    the file. Before the clip's begin and after its end (those of its span, where it has one) there is silence: the
    first as zeros, the second as padding, as for any window that reaches past the end.

    Args:
        video, audio, spec, position, span_s, square, name: as ``decode_clip`` takes them.
        late_s: in seconds; negative: early.

    Returns:
        int16 (samples,), and how many of them lie before the end of the sound.

    Raises:
        DecodeError: as decoding the window would.
    """
    with open_clip(video, audio, spec=spec, span_s=span_s, square=square, name=name) as clip:
        window = clip.decode((position,), picture=False, sound=False)[0]
        out = np.zeros(spec.audio_samples, dtype=np.int16)
        start_s = window.start_s - late_s
        reach = _fill(clip, out, start_s, spec.sample_rate_hz)
        before = min(len(out), max(0, round((clip.limits_s[0] - start_s) * spec.sample_rate_hz)))
        if late_s > 0:
            out[:before] = 0
        return out, reach if reach > before or late_s <= 0 else 0


def _fill(clip: OpenClip, out: NDArray[np.int16], start_s: float, rate_hz: int) -> int:
    end_s = None if clip.span_s is None else clip.span_s[1]
    if clip.sound is None:
        return 0
    if isinstance(clip.sound, PlainSound):
        return clip.sound.read(out, start_s, end_s=end_s)
    return fill_sound(clip.sound, out, start_s, rate_hz, end_s=end_s, name=clip.name)
