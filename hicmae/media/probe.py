"""What a media file holds, found out by reading it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hicmae.media.clip import DecodeError, MediaInfo
from hicmae.media.container import open_media
from hicmae.media.frames_file import is_frames_file, read_frames
from hicmae.media.jpeg_decoder import decode_jpeg
from hicmae.media.large_file import MediaData, in_memory, load_media
from hicmae.media.pyav_decoder import decode_frames
from hicmae.media.square import display_size


def probe(source: MediaData | Path, *, name: str) -> MediaInfo:
    """What a media file holds. Reads every packet and decodes one frame, so a damaged file is found out.

    Raises:
        DecodeError: as ``decode_clip``; ``missing_file`` for a path that cannot be read.
    """
    data = load_media(source, name=name) if isinstance(source, Path) else source
    if is_frames_file(data):
        return _frames_info(data, name)
    with open_media(data, name) as media:
        picture, sound = media.picture, media.sound
        if picture is None and sound is None:
            raise nothing_there(name, False)
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
    """The bytes of a file, however large; ``DecodeError`` (``missing_file``) where it cannot be read."""
    data = load_media(path, name=name)
    return data if isinstance(data, bytes) else data[:]


def nothing_there(name: str, has_sound: bool) -> DecodeError:
    """The error of a file without a picture, or with nothing at all."""
    if has_sound:
        remedy = "give a file with a picture, or allow clips without one"
        return DecodeError(name, "no_video_stream", "the file has sound but no video stream", remedy)
    return DecodeError(name, "no_streams", "the file has neither frames nor sound", "drop it from the manifest")


def _frames_info(data: MediaData, name: str) -> MediaInfo:
    file = read_frames(in_memory(data), name)
    decode_jpeg(file, 0, name)
    duration_s = file.end_s - float(file.times_s[0])
    return MediaInfo(
        has_video=True,
        has_audio=False,
        duration_s=duration_s,
        fps=len(file.times_s) / max(1e-6, duration_s),
        width=file.width,
        height=file.height,
        audio_rate_hz=0,
        audio_channels=0,
        video_codec="mjpeg",
        audio_codec="",
    )
