"""A clip's original files, open: whatever holds its picture, and whatever holds its sound."""

from __future__ import annotations

from contextlib import ExitStack

from hicmae.media.container import Track, open_media
from hicmae.media.frames_file import FramesFile, is_frames_file, read_frames


def open_original(
    stack: ExitStack, video: bytes | None, audio: bytes | None, name: str
) -> tuple[Track | FramesFile | None, Track | None]:
    """Picture and sound of a clip, each None where it has none.

    Args:
        stack: closes what was opened.
        video: a media file that may hold picture and sound, or a ``.frames`` file, which holds no sound.
        audio: a sound file on the same clock, which replaces the sound of ``video``.
        name: what errors call this clip.

    Raises:
        DecodeError: one of them cannot be opened.
    """
    picture: Track | FramesFile | None = None
    sound: Track | None = None
    if video is not None and is_frames_file(video):
        picture = read_frames(video, name)
    elif video is not None:
        media = stack.enter_context(open_media(video, name, sound=audio is None))
        picture, sound = media.picture, media.sound
    if audio is not None:
        sound = stack.enter_context(open_media(audio, name, picture=False)).sound
    return picture, sound
