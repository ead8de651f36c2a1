"""A clip re-encoded for training: only its span, only the training square, cheap to decode, on a clock of its own.

What is stored is what decoding the original would have given, up to compression: the same frames at the same
distances, cut and resized by the same filter, and the sound resampled by the same code from the same instant.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hicmae.media.clip import DecodeError
from hicmae.media.container import Track
from hicmae.media.frames_file import FramesFile
from hicmae.media.original import open_original
from hicmae.media.picture_writer import H264Writer, JpegWriter
from hicmae.media.sound import read_sound
from hicmae.media.sound_writer import encode_sound
from hicmae.media.span import SpanFrames, span_frames, write_squares

SAMPLE_RATE_HZ = 16_000
LONGEST_TAIL_S = 10.0
"""Sound is kept for this long after the picture has ended; no window reaches further."""
_BLOCK_S = 60  # sound decoded at once; whole seconds, so that every rate's samples fall on block limits


@dataclass(frozen=True, kw_only=True)
class EncodedMembers:
    """The files of one stored clip; both begin at t = 0, with its first frame."""

    video: bytes | None
    video_extension: str
    """``"mp4"`` or ``"frames"``; empty without a picture."""
    audio: bytes | None
    """Separate sound file; None where the sound is in ``video``, or where there is none."""
    audio_extension: str
    """``"m4a"``, ``"flac"`` or ``"wav"``; empty without a separate sound file."""
    duration_s: float
    """Of the picture; of the sound where there is no picture. Seconds."""
    has_video: bool
    has_audio: bool
    """Whether any sound lies within the span."""


def encode_clip(
    video: bytes | None,
    audio: bytes | None = None,
    *,
    span_s: tuple[float, float] | None = None,
    video_format: Literal["h264", "jpeg"],
    audio_format: Literal["aac", "flac", "wav"],
    size: int = 160,
    square: tuple[int, int, int] | None = None,
    name: str,
) -> EncodedMembers:
    """Decode the whole span of a clip and encode it anew, in memory that does not grow with decoded frames.

    Args:
        video: a media file that may hold picture and sound, or a ``.frames`` file.
        audio: a sound file on the same clock, which replaces the sound of ``video``.
        span_s: keep only these seconds (start, end) of the file; None keeps all.
        video_format: ``"h264"`` (mp4) or ``"jpeg"`` (``.frames``).
        audio_format: ``"aac"`` (within the mp4, or m4a), ``"flac"`` or ``"wav"``; 16 kHz, one channel.
        size: side of the stored squares, in pixels; even.
        square: (top, left, side) in pixels of the upright picture, cut first; None for its central square.
        name: what errors call this clip.

    Raises:
        DecodeError: the original cannot be decoded, wholly and without damage; ``reason`` says why.
        ValueError: contradictory arguments.
    """
    if video is None and audio is None:
        raise ValueError(f"{name}: neither video nor audio given")
    if video_format not in ("h264", "jpeg") or audio_format not in ("aac", "flac", "wav"):
        raise ValueError(
            f"{name}: cannot encode to {video_format!r} with {audio_format!r} sound; choose h264 or jpeg, and aac, "
            "flac or wav: original sound would keep the clock of the original file, which a re-encoded picture leaves"
        )
    if size < 2 or size % 2:
        raise ValueError(f"{name}: size={size} must be even and at least 2, as H.264 wants it")
    with ExitStack() as stack:
        picture, sound = open_original(stack, video, audio, name)
        if picture is None:
            return _encode_sound_alone(sound, span_s, audio_format, name)
        span = span_frames(picture, span_s)
        if span is None:
            raise _outside(name, span_s, float(picture.times_s[0]), picture.end_s)
        limit_s = span.last_s + LONGEST_TAIL_S if span_s is None else min(span_s[1], span.last_s + LONGEST_TAIL_S)
        waveform = whole_sound(sound, span.start_s, limit_s, name) if sound is not None else None
        within = waveform if audio_format == "aac" and video_format == "h264" else None
        data, extension = _encode_picture(picture, span, video_format, size, square, within, name)
    audio_data, audio_extension = None, ""
    if waveform is not None and within is None:
        audio_data, audio_extension = encode_sound(audio_format, waveform, SAMPLE_RATE_HZ)
    return EncodedMembers(
        video=data,
        video_extension=extension,
        audio=audio_data,
        audio_extension=audio_extension,
        duration_s=span.end_s,
        has_video=True,
        has_audio=waveform is not None,
    )


def _encode_picture(
    picture: Track | FramesFile,
    span: SpanFrames,
    video_format: str,
    size: int,
    square: tuple[int, int, int] | None,
    sound: npt.NDArray[np.int16] | None,
    name: str,
) -> tuple[bytes, str]:
    writer: H264Writer | JpegWriter
    if video_format == "h264":
        writer = H264Writer(span, size=size, waveform=sound, rate_hz=SAMPLE_RATE_HZ, name=name)
    else:
        writer = JpegWriter(span, size=size, name=name)
    write_squares(picture, span.numbers, writer, size=size, square=square, name=name)
    return writer.finish(), writer.extension


def _encode_sound_alone(
    sound: Track | None, span_s: tuple[float, float] | None, audio_format: str, name: str
) -> EncodedMembers:
    if sound is None:
        raise DecodeError(name, "no_streams", "the file has neither frames nor sound", "drop it from the manifest")
    # AAC's priming packet is stamped before the sound begins.
    begin, finish = max(0.0, float(sound.times_s[0])), sound.end_s
    low, high = (begin, finish) if span_s is None else (max(begin, span_s[0]), min(finish, span_s[1]))
    waveform = whole_sound(sound, low, high, name) if low < high else None
    if waveform is None:
        raise _outside(name, span_s, begin, finish)
    data, extension = encode_sound(audio_format, waveform, SAMPLE_RATE_HZ)
    return EncodedMembers(
        video=None,
        video_extension="",
        audio=data,
        audio_extension=extension,
        duration_s=len(waveform) / SAMPLE_RATE_HZ,
        has_video=False,
        has_audio=True,
    )


def whole_sound(sound: Track, start_s: float, end_s: float, name: str) -> npt.NDArray[np.int16] | None:
    """Sound from one instant to another, or to where it ends, int16 (samples,); None where there is none."""
    # The last packet may hold a little more than its time stamp says, which a window would hear as well.
    end_s = min(end_s, sound.end_s + 1.0)
    parts: list[npt.NDArray[np.int16]] = []
    total = reach = 0
    while start_s + total / SAMPLE_RATE_HZ < end_s:
        begin_s = start_s + total / SAMPLE_RATE_HZ
        samples = min(_BLOCK_S * SAMPLE_RATE_HZ, round((end_s - begin_s) * SAMPLE_RATE_HZ))
        if not samples:
            break
        part, sounding = read_sound(sound, begin_s, samples, SAMPLE_RATE_HZ, end_s=None, name=name)
        parts.append(part)
        reach = total + sounding if sounding else reach
        total += samples
    return np.concatenate(parts)[:reach] if reach else None


def _outside(name: str, span_s: tuple[float, float] | None, begin: float, end: float) -> DecodeError:
    return DecodeError(
        name,
        "span_outside",
        f"the span {span_s} lies outside the file, which runs from {begin:.3f} to {end:.3f} s",
        "correct start_s and end_s",
    )
