"""The second pass over a clip: its moving square as a video of its own, with its sound."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from hicmae.data.manifest import Clip
from hicmae.faces.detector import need
from hicmae.faces.look import Region
from hicmae.faces.tracker import FaceTrack, FaceTracker
from hicmae.media.clip import DecodeError
from hicmae.media.container import open_media
from hicmae.media.encode import LONGEST_TAIL_S, SAMPLE_RATE_HZ, whole_sound
from hicmae.media.large_file import MediaData, load_media
from hicmae.media.picture_writer import H264Writer
from hicmae.media.probe import nothing_there
from hicmae.media.pyav_decoder import decode_frames
from hicmae.media.span import span_frames
from hicmae.media.square import Frame, display_size

FACE_SIZE = 224
H264_OPTIONS = {
    "preset": "medium",
    "crf": "16",
    "g": "25",
    "bf": "0",
    "x264-params": "cpu-independent=1",
}
"""Close to the original: shards encode these pictures once more, for speed. Frames come out in the order they went in,
and the same frames give the same bytes on any machine."""


def write_face_clip(
    clip: Clip,
    track: FaceTrack | FaceTracker,
    out: Path,
    *,
    size: int = FACE_SIZE,
    region: Region | None = None,
) -> Clip:
    """Write the moving square of a clip as an mp4 (H.264, and AAC where there is sound), atomically.

    Its clock begins with the clip's first frame; frames keep their distances, also uneven ones, and the sound begins
    at the same instant (16 kHz, one channel). Memory does not grow with decoded frames.

    Args:
        clip: what to take; its span is honoured, its ``square`` bounds the search, and its ``audio`` replaces the sound
            of its ``video``.
        track: the squares of exactly this clip, or what finds them.
        out: the mp4.
        size: side of the picture in pixels, even.
        region: where a tracker looks; (top, left, bottom, right) as fractions. None for ``clip.square``, or everywhere.

    Returns:
        The row of a manifest for what was written: the clip with ``video`` alone, without span and square.

    Raises:
        FaceNotFoundError, DecodeError, ValueError: as ``FaceTracker.track``; also where the clip has no picture, or the
            track is that of another.
    """
    write_tracked(clip, track, out, size=size, region=region)
    return face_row(clip, out)


def face_row(clip: Clip, face_clip: Path) -> Clip:
    """The row of a manifest for a clip's face clip, which holds the sound too, and nothing but the clip."""
    return replace(clip, video=face_clip, audio=None, start_s=None, end_s=None, square=None)


def write_tracked(
    clip: Clip, track: FaceTrack | FaceTracker, out: Path, *, size: int, region: Region | None
) -> FaceTrack:
    """``write_face_clip`` for those who want the track."""
    if clip.video is None:
        raise nothing_there(clip.clip_id, True)
    square = clip.square if region is None else None
    return write_square(
        clip.video, clip.audio, track, out, span_s=clip.span_s, square=square, size=size, region=region,
        name=str(clip.video),
    )  # fmt: skip


def write_square(
    video: Path | MediaData,
    audio: Path | MediaData | None,
    track: FaceTrack | FaceTracker,
    out: Path,
    *,
    span_s: tuple[float, float] | None,
    square: tuple[int, int, int] | None,
    size: int,
    region: Region | None,
    name: str,
) -> FaceTrack:
    """``write_face_clip`` for media files that are no clip of a manifest.

    Args:
        video, audio: files, or what is in them.
        span_s: what to take of them.
        square: where a tracker looks, in pixels; besides ``region``.
        track, out, size, region: as there.
        name: what errors call this clip.
    """
    if size < 16 or size % 2:
        raise ValueError(f"size={size} must be even and at least 16 pixels, as H.264 wants it")
    picture = load_media(video, name=name) if isinstance(video, Path) else video
    sound = load_media(audio, name=str(audio)) if isinstance(audio, Path) else audio
    if isinstance(track, FaceTracker):
        track = track.track(picture, span_s=span_s, region=region, square=square, name=name)
    elif region is not None:
        raise ValueError(f"{name}: region is for a tracker that is still to look; this track has been made")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w+b") as file:
            _encode(picture, sound, span_s, track, size, file, name)
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    return track


def _encode(
    video: MediaData,
    audio: MediaData | None,
    span_s: tuple[float, float] | None,
    track: FaceTrack,
    size: int,
    file: BinaryIO,
    name: str,
) -> None:
    with ExitStack() as stack:
        media = stack.enter_context(open_media(video, name, sound=audio is None))
        sound = media.sound
        if audio is not None:
            sound = stack.enter_context(open_media(audio, name, picture=False)).sound
            if sound is None:
                found = f"the sound file beside it ({len(audio)} bytes) holds no sound"
                raise DecodeError(name, "no_audio_stream", found, "give a file with sound, or leave the sound file out")
        span = span_frames(media.picture, span_s) if media.picture is not None else None
        if media.picture is None or span is None or not np.array_equal(span.numbers, track.numbers):
            raise ValueError(f"{name}: the track is that of another clip, or of another span of it; track it again")
        limit_s = span.last_s + LONGEST_TAIL_S if span_s is None else min(span_s[1], span.last_s + LONGEST_TAIL_S)
        waveform = whole_sound(sound, span.start_s, limit_s, name) if sound is not None else None
        writer = H264Writer(
            span, size=size, waveform=waveform, rate_hz=SAMPLE_RATE_HZ, name=name, options=H264_OPTIONS, file=file
        )  # fmt: skip
        moving = _MovingSquare(track, writer, size, media.picture.stream.sample_aspect_ratio)
        decode_frames(media.picture, track.numbers, moving, name)
        assert moving.delivered == len(track.numbers), (name, moving.delivered, len(track.numbers))
        writer.close()


class _MovingSquare:
    """Takes frames as they are decoded, and writes the square of each."""

    def __init__(self, track: FaceTrack, writer: H264Writer, size: int, aspect: Fraction | None) -> None:
        self.track, self.writer, self.size, self.aspect = track, writer, size, aspect
        self.delivered = 0

    def __call__(self, number: int, frame: Frame, rotation: int) -> None:
        place = int(np.searchsorted(self.track.numbers, number))
        if place == 0:
            # Also when the decoder starts again from further ahead, as it found no sound key frame.
            self.delivered = 0
            self.writer.begin()
        if place != self.delivered:
            return  # one is missing, for which the decoder will start again
        self.writer.add(cut_moving_square(frame, rotation, self.aspect, self.track.squares[place], self.size))
        self.delivered += 1


def cut_moving_square(
    frame: Frame, rotation: int, aspect: Fraction | None, square: npt.NDArray[np.float64], size: int
) -> Frame:
    """A square of a decoded frame, to fractions of a pixel, upright and resized: RGB uint8 (size, size, 3).

    Whole pixels would make a slowly moving square jump by as many pixels of the result as it is magnified.

    Args:
        frame: uint8 (height, width, 3), as decoded.
        rotation: degrees counter-clockwise that make it upright; multiples of 90 are honoured.
        aspect: width of a stored pixel over its height; None or 0 for square pixels.
        square: (top, left, side) in pixels of the displayed picture, within it.
        size: side of the result, in pixels.
    """
    image = need("PIL.Image")
    turns = round(rotation / 90) % 4
    upright = np.rot90(frame, turns) if turns else frame
    width, height = display_size(frame.shape[1], frame.shape[0], rotation, aspect)
    down, along = upright.shape[0] / height, upright.shape[1] / width  # stored pixels per displayed one
    top, left, side = square.tolist()
    box = (left * along, top * down, (left + side) * along, (top + side) * down)
    # The filter looks a little beyond the square; what is farther off need not be copied.
    reach = 4 + 2 * int(np.ceil(side / size))
    first, start = max(0, int(box[1]) - reach), max(0, int(box[0]) - reach)
    part = np.ascontiguousarray(upright[first : int(box[3]) + reach, start : int(box[2]) + reach])
    inner = (
        max(0.0, box[0] - start),
        max(0.0, box[1] - first),
        min(float(part.shape[1]), box[2] - start),
        min(float(part.shape[0]), box[3] - first),
    )
    return np.asarray(image.fromarray(part).resize((size, size), image.Resampling.BICUBIC, box=inner))
