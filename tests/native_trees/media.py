"""Tiny films, sounds, face frames and text files of the native trees."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from tests.media_files import make_clip, time_code_picture

SECONDS = 2.8
FRAMES = 15


@functools.cache
def film(kind: str) -> bytes:
    """A film with sound: ``"mp4"``, ``"avi"`` (MPEG-4, as DivX writes) or ``"flv"`` (Sorenson H.263 and mp3)."""
    codecs = {
        "mp4": ("libx264", "aac", 16_000),
        "avi": ("mpeg4", "pcm_s16le", 8000),
        "flv": ("flv", "libmp3lame", 22_050),
    }
    video_codec, audio_codec, rate = codecs[kind]
    return make_clip(
        io.BytesIO(), seconds=SECONDS, size=(48, 48), rate=rate, container=kind, video_codec=video_codec,
        audio_codec=audio_codec,
    )  # fmt: skip


@functools.cache
def silent_film() -> bytes:
    """An mp4 without sound."""
    return make_clip(io.BytesIO(), seconds=SECONDS, size=(48, 48), with_audio=False)


@functools.cache
def sound(seconds: float = SECONDS, channels: int = 1) -> bytes:
    """A wav file of 16 kHz."""
    return make_clip(
        io.BytesIO(), seconds=seconds, with_video=False, container="wav", audio_codec="pcm_s16le", channels=channels
    )


@functools.cache
def split_screen(seconds: float) -> bytes:
    """A film of 120 x 80 of two halves, black above and below: left the time code, right its negative."""
    buffer = io.BytesIO()
    output = av.open(buffer, "w", format="avi")
    stream = output.add_stream("mpeg4", rate=25)
    stream.width, stream.height, stream.pix_fmt = 120, 80, "yuv420p"
    stream.codec_context.qmin = stream.codec_context.qmax = 2
    for number in range(round(seconds * 25)):
        left = time_code_picture(number / 25, 60, 48)
        picture = np.zeros((80, 120, 3), dtype=np.uint8)
        picture[16:64] = np.hstack([left, 255 - left])
        output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    output.mux(stream.encode(None))
    output.close()
    return buffer.getvalue()


@functools.cache
def face_frame(number: int) -> bytes:
    """A jpg of 48 x 48 with a time code."""
    buffer = io.BytesIO()
    output = av.open(buffer, "w", format="image2pipe")
    stream = output.add_stream("mjpeg", rate=25)
    stream.width, stream.height, stream.pix_fmt = 48, 48, "yuvj420p"
    picture = time_code_picture(number / 25, 48, 48)
    output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")))
    output.mux(stream.encode(None))
    output.close()
    return buffer.getvalue()


@functools.cache
def png_frame() -> bytes:
    """A png of 48 x 48 with a time code."""
    buffer = io.BytesIO()
    output = av.open(buffer, "w", format="image2pipe")
    stream = output.add_stream("png", rate=25)
    stream.width, stream.height, stream.pix_fmt = 48, 48, "rgb24"
    picture = np.ascontiguousarray(time_code_picture(0.4, 48, 48))
    output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    output.mux(stream.encode(None))
    output.close()
    return buffer.getvalue()


def write(path: Path, data: bytes | str) -> Path:
    """A file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, str):
        path.write_text(data, encoding="utf-8")
    else:
        path.write_bytes(data)
    return path


def put(path: Path) -> Path:
    """A tiny film, or a sound, of the kind that its name ends in."""
    kind = path.suffix[1:].lower()
    return write(path, sound() if kind == "wav" else film(kind))


def put_frames(folder: Path, name: str = "{n}.jpg") -> Path:
    """A folder of face frames, numbered from 1."""
    for n in range(1, FRAMES + 1):
        write(folder / name.format(n=n), png_frame() if name.endswith(".png") else face_frame(n))
    return folder


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    """A text file."""
    return write(path, "".join(f"{line}\n" for line in lines))
