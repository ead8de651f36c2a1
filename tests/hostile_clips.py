"""Clips that are hard or impossible to use, each with what must become of it: a reason, or right frames and sound."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from tests.clip_truth import Truth
from tests.media_files import chirp, cut_copy, frame_times, make_clip


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """A clip, and the outcome that is right for it."""

    video: bytes | None
    audio: bytes | None = None
    reasons: tuple[str, ...] = ()
    """What ``DecodeError.reason`` may be; empty for a clip that must decode."""
    truth: Truth | None = None
    """What it holds, for a clip that must decode."""


def hostile_clips() -> dict[str, Hostile]:
    """All of them, by an id that manifests take; built anew by each call (a second and a half)."""
    film = _clip()
    mute = _clip(with_audio=False)
    no_sound = Truth(sound_s=None)
    times_vfr = tuple(map(float, frame_times(3.0, 25, vfr=True)))
    minutes = tuple(60.0 * minute for minute in range(600))
    clips = {
        "truncated": Hostile(video=film[: len(film) // 2], reasons=("truncated",)),
        "zero_bytes": Hostile(video=b"", reasons=("empty_file",)),
        "text": Hostile(video=b"this is no film\n" * 99, reasons=("unknown_format",)),
        "sound_cut": Hostile(video=mute, audio=float_wav(_chirp())[:50_000], reasons=("truncated",)),
        "sound_of_zero_bytes": Hostile(video=mute, audio=b"", reasons=("empty_file",)),
        "sound_file_without_sound": Hostile(video=mute, audio=mute, reasons=("no_audio_stream",)),
        "codec_without_decoder": Hostile(video=film.replace(b"avc1", b"XXXX"), reasons=("unsupported_codec",)),
        "codec_of_other_name": Hostile(video=film.replace(b"avc1", b"hvc1"), reasons=("corrupt_frames",)),
        "codec_of_pictures": Hostile(video=film.replace(b"avc1", b"mjpa"), reasons=("corrupt_frames",)),
        "codec_without_size": Hostile(video=film.replace(b"avc1", b"mp4v"), reasons=("too_large",)),
        "no_key_frame": Hostile(
            video=remuxed(_clip(with_audio=False, gop=250), lambda packet: not packet.is_keyframe),
            reasons=("corrupt_frames",),
        ),
        "too_many_pixels": Hostile(video=claiming_65500_pixels(), reasons=("too_large", "corrupt_frames")),
        "13_hours": Hostile(video=_clip(times=_minutes(780), with_audio=False), reasons=("too_long",)),
        "sound_alone": Hostile(video=_clip(with_video=False), reasons=("no_video_stream",)),
        "nan": Hostile(video=mute, audio=with_samples(float("nan")), reasons=("corrupt_sound",)),
        "infinity": Hostile(video=mute, audio=with_samples(float("inf")), reasons=("corrupt_sound",)),
        "minus_infinity": Hostile(video=mute, audio=with_samples(float("-inf")), reasons=("corrupt_sound",)),
        "nan_resampled": Hostile(video=mute, audio=with_samples(float("nan"), 44_100), reasons=("corrupt_sound",)),
        "one_frame": Hostile(video=_clip(seconds=0.04, audio_end_s=3.0), truth=Truth(times_s=(0.0,))),
        "one_frame_no_sound": Hostile(
            video=_clip(seconds=0.04, with_audio=False), truth=Truth(times_s=(0.0,), sound_s=None)
        ),
        "10_hours": Hostile(
            video=_clip(times=_minutes(600), with_audio=False), truth=Truth(times_s=minutes, sound_s=None)
        ),
        "8k": Hostile(
            video=grey_8k(),
            truth=Truth(
                times_s=(0.0, 0.04, 0.08), sound_s=None, picture=lambda _, n: np.full((n, n, 3), 130, np.uint8)
            ),
        ),
        "vfr": Hostile(video=_clip(vfr=True), truth=Truth(times_s=times_vfr)),
        "negative_times": Hostile(video=cut_copy(_clip(seconds=4.0), 1.0), truth=Truth(shift_s=1.0)),
        "sound_too_long": Hostile(video=_clip(audio_end_s=8.0), truth=Truth(sound_s=(0.0, 8.0))),
        "sound_too_short": Hostile(video=_clip(audio_end_s=1.0), truth=Truth(sound_s=(0.0, 1.0))),
        "sound_late": Hostile(video=_clip(audio_start_s=1.0), truth=Truth(sound_s=(1.0, 3.0))),
        "no_sound": Hostile(video=mute, truth=no_sound),
        "silent": Hostile(video=mute, audio=float_wav(np.zeros(48_000)), truth=Truth(loudness=0.0)),
        "too_loud": Hostile(video=mute, audio=float_wav(3 * _chirp()), truth=Truth(loudness=3.0)),
    }
    for angle in (90, 180, 270):
        clips[f"rotated_{angle}"] = Hostile(video=_clip(rotation=angle, size=(128, 64)), truth=Truth())
    return clips


def _clip(**settings: Any) -> bytes:
    return make_clip(io.BytesIO(), **{"size": (64, 64), "seconds": 3.0} | settings)


def _chirp(rate: int = 16_000) -> npt.NDArray[np.float64]:
    return chirp(np.arange(3 * rate) / rate)


def _minutes(count: int) -> list[Fraction]:
    return [Fraction(60 * minute) for minute in range(count)]


def float_wav(samples: npt.NDArray[np.float64], rate: int = 16_000) -> bytes:
    """A WAV of 32-bit floats, mono."""
    body = samples.astype("<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, rate, 4 * rate, 4, 32)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def with_samples(value: float, rate: int = 16_000) -> bytes:
    """Three seconds of the chirp as a float WAV, every thousandth sample replaced."""
    samples = _chirp(rate)
    samples[::1000] = value
    return float_wav(samples, rate)


def grey_8k() -> bytes:
    """Three frames of 7680 x 4320 pixels."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream: Any = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "ultrafast", "crf": "40"}
        frame = av.VideoFrame(7680, 4320, "yuv420p")
        for plane in frame.planes:
            plane.update(np.full(plane.buffer_size, 128, np.uint8))
        frame.time_base = Fraction(1, 25)
        for number in range(3):
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def claiming_65500_pixels() -> bytes:
    """Motion JPEG whose pictures say that they are 65500 x 65500."""
    data = _clip(container="avi", video_codec="mjpeg", with_audio=False)
    frame_header = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", 64, 64)
    assert frame_header in data
    return data.replace(frame_header, frame_header[:5] + struct.pack(">HH", 65_500, 65_500))


def remuxed(data: bytes, keep: Callable[[Any], bool]) -> bytes:
    """The picture of a clip with those packets alone for which ``keep`` is true, as Matroska."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data), format="mp4") as source, av.open(buffer, "w", format="matroska") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None and keep(packet):
                packet.stream = stream
                output.mux(packet)
    return buffer.getvalue()
