"""Clips from bytes: a window of frames and the sound from the same instant.

``decode_clip`` is the one way in which pictures and sound enter the library. PyAV does the work by default
(it measured fastest, and reports damage); decord is offered for the frames and must give the same ones.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from hicmae.config import InputSpec
from hicmae.media.clip import DecodedClip, DecodeError, MediaInfo
from hicmae.media.container import Media, Track, open_media
from hicmae.media.decord_decoder import decode_frames_with_decord
from hicmae.media.pyav_decoder import decode_frames
from hicmae.media.sound import read_sound
from hicmae.media.square import SquareFrames, display_size
from hicmae.media.window import Window, choose_window

__all__ = ["DecodeError", "DecodedClip", "Decoder", "MediaInfo", "decode_clip", "probe", "read_media_file"]

Decoder = Literal["auto", "pyav", "decord"]

_ADD_PICTURE = "give a file with a picture, or allow clips without one"


def decode_clip(
    video: bytes | None,
    audio: bytes | None = None,
    *,
    spec: InputSpec,
    position: float = 0.5,
    span_s: tuple[float, float] | None = None,
    decoder: Decoder = "auto",
    name: str,
    require_video: bool = False,
) -> DecodedClip:
    """Decode one window of a clip.

    The window starts at ``span start + position * max(0, span length - spec.window_seconds)``, moved back to
    the frame on screen at that instant. Frame ``i`` is the one on screen ``i * spec.frame_interval_s`` later;
    where the clip is too short, its last frame repeats. The sound starts at the same instant and is padded
    with zeros. Frames become central squares of ``spec.image_size``, upright.

    Args:
        video: a media file that may hold picture and sound.
        audio: a sound file on the same clock, which replaces the sound of ``video``.
        position: which window of the clip, from 0 (earliest) to 1 (latest).
        span_s: use only these seconds (start, end) of the file.
        decoder: ``"auto"`` and ``"pyav"`` are PyAV; ``"decord"`` takes the frames from decord.
        name: what errors call this clip.
        require_video: whether a file without a picture is an error.

    Raises:
        DecodeError: the media cannot be decoded; ``reason`` says why, in a word.
        ValueError: contradictory arguments, or decord wanted but not installed.
    """
    if video is None and audio is None:
        raise ValueError(f"{name}: neither video nor audio given")
    if not 0.0 <= position <= 1.0:
        raise ValueError(f"{name}: position={position} must lie within 0 and 1")
    if span_s is not None and not span_s[0] < span_s[1]:
        raise ValueError(f"{name}: the span {span_s} must start before it ends (seconds)")
    if decoder not in ("auto", "pyav", "decord"):
        raise ValueError(f"unknown decoder {decoder!r}; choose auto, pyav or decord")
    with ExitStack() as stack:
        first = stack.enter_context(open_media(video, name, sound=audio is None)) if video is not None else None
        second = stack.enter_context(open_media(audio, name, picture=False)) if audio is not None else None
        picture, sound = _tracks(first, second)
        if picture is None and (require_video or sound is None):
            raise _nothing_there(name, sound is not None)
        frames = np.zeros((spec.num_frames, spec.image_size, spec.image_size, 3), dtype=np.uint8)
        times = np.full(spec.num_frames, np.nan)
        if picture is not None:
            window = _window(picture, spec, position, span_s, name)
            times = picture.times_s[window.frames]
            _fill(frames, picture, window, video or b"", decoder, name)
        else:
            assert sound is not None
            window = _sound_window(sound, spec, position, span_s, name)
        waveform, reach = np.zeros(spec.audio_samples, dtype=np.int16), 0
        if sound is not None:
            waveform, reach = read_sound(
                sound, window.start_s, spec.audio_samples, spec.sample_rate_hz, end_s=window.sound_end_s, name=name
            )
    return DecodedClip(
        video=frames,
        waveform=waveform,
        has_video=picture is not None,
        has_audio=reach > 0,
        start_s=window.start_s,
        frame_times_s=times,
        sound_samples=reach,
    )


def probe(source: bytes | Path, *, name: str) -> MediaInfo:
    """What a media file holds. Reads every packet and decodes one frame, so a damaged file is found out.

    Raises:
        DecodeError: as ``decode_clip``; ``missing_file`` for a path that cannot be read.
    """
    data = read_media_file(source, name=name) if isinstance(source, Path) else source
    with open_media(data, name) as media:
        picture, sound = media.picture, media.sound
        if picture is None and sound is None:
            raise _nothing_there(name, False)
        width = height = 0
        fps = 0.0
        if picture is not None:
            shown: list[tuple[int, int, int]] = []
            decode_frames(
                picture,
                np.zeros(1, dtype=np.int64),
                lambda _number, image, rotation: shown.append((image.shape[1], image.shape[0], rotation)),
                name,
            )
            width, height = display_size(*shown[0], picture.stream.sample_aspect_ratio)
            fps = len(picture.kept) / max(1e-6, picture.end_s - float(picture.times_s[0]))
        main = picture or sound
        assert main is not None
        return MediaInfo(
            has_video=picture is not None,
            has_audio=sound is not None,
            duration_s=main.end_s - float(main.times_s[0]),
            fps=fps,
            width=width,
            height=height,
            audio_rate_hz=sound.stream.sample_rate if sound else 0,
            audio_channels=sound.stream.channels if sound else 0,
            video_codec=picture.stream.codec_context.name if picture else "",
            audio_codec=sound.stream.codec_context.name if sound else "",
        )


def read_media_file(path: Path, *, name: str | None = None) -> bytes:
    """The bytes of a file; ``DecodeError`` (``missing_file``) where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DecodeError(
            name or str(path),
            "missing_file",
            f"{path} cannot be read: {error.strerror}",
            "check the path and its permissions (paths in a manifest are relative to the manifest)",
        ) from None


def _tracks(first: Media | None, second: Media | None) -> tuple[Track | None, Track | None]:
    sound = second.sound if second is not None else first.sound if first is not None else None
    return (first.picture if first is not None else None), sound


def _nothing_there(name: str, has_sound: bool) -> DecodeError:
    if has_sound:
        return DecodeError(name, "no_video_stream", "the file has sound but no video stream", _ADD_PICTURE)
    return DecodeError(name, "no_streams", "the file has neither frames nor sound", "drop it from the manifest")


def _window(picture: Track, spec: InputSpec, position: float, span_s: tuple[float, float] | None, name: str) -> Window:
    times, end_s = picture.times_s, picture.end_s
    window = choose_window(times, end_s, spec, position=position, span_s=span_s)
    if window is None:
        raise _outside(name, span_s, float(times[0]), end_s)
    return window


def _sound_window(
    sound: Track, spec: InputSpec, position: float, span_s: tuple[float, float] | None, name: str
) -> Window:
    begin, finish = float(sound.times_s[0]), sound.end_s
    # AAC's priming packet is stamped before the sound begins.
    begin = max(0.0, begin)
    low, high = (begin, finish) if span_s is None else (max(begin, span_s[0]), min(finish, span_s[1]))
    if high <= low:
        raise _outside(name, span_s, begin, finish)
    start_s = low + position * max(0.0, high - low - spec.window_seconds)
    return Window(
        start_s=start_s, frames=np.zeros(0, dtype=np.int64), sound_end_s=None if span_s is None else span_s[1]
    )


def _outside(name: str, span_s: tuple[float, float] | None, begin: float, end: float) -> DecodeError:
    return DecodeError(
        name,
        "span_outside",
        f"the span {span_s} lies outside the file, which runs from {begin:.3f} to {end:.3f} s",
        "correct start_s and end_s",
    )


def _fill(
    frames: npt.NDArray[np.uint8], picture: Track, window: Window, data: bytes, decoder: Decoder, name: str
) -> None:
    """Decode each frame of the window once and write it wherever the window shows it."""
    squares = SquareFrames(frames, window.frames, pixel_aspect=picture.stream.sample_aspect_ratio)
    distinct = np.unique(window.frames)
    if decoder == "decord":
        decode_frames_with_decord(data, picture, distinct, squares, name)
    else:
        decode_frames(picture, distinct, squares, name)
    squares.flush()
