"""The picture and sound of a long video, decoded stretch by stretch: every frame once, a few seconds in memory.

Shapes: N frames of the footage, S steps, T frames of a window, P pixels of a frame's side.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.io import ImageReadMode, decode_image

from hicmae.config import InputSpec
from hicmae.continuous.labels import MAX_MISMATCH
from hicmae.media.clip import DecodeError
from hicmae.media.container import Track, open_media
from hicmae.media.large_file import load_media
from hicmae.media.pyav_decoder import decode_frames
from hicmae.media.sound import fill_sound
from hicmae.media.square import SquareFrames
from hicmae.media.wav import PlainSound, plain_wav
from hicmae.media.window import TOLERANCE_S

logger = logging.getLogger(__name__)

MAX_FRAMES = 768
"""Most frames decoded at once: 59 MB at 160 pixels."""
MAX_SPAN_S = 60.0
"""Longest stretch decoded at once, in seconds: sound is decoded without gaps."""
_NUMBER = re.compile(r"(\d+)\.(?:jpg|jpeg|png)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class FaceFrames:
    """A folder of face pictures of a video, ``00001.jpg`` being its first frame; where no face was found there is
    none (the layout of Aff-Wild2's ``cropped_aligned``)."""

    paths: tuple[Path, ...]
    numbers: NDArray[np.int64]
    """int64 (faces,): the frame of the video that each shows, from 0, ascending."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Decoded footage of some consecutive steps."""

    steps: slice
    frames: NDArray[np.uint8]
    """uint8 RGB (distinct frames, P, P, 3)."""
    rows: NDArray[np.int64]
    """int64 (steps, T): which of ``frames`` a step's window shows."""
    sound: NDArray[np.int16] | None
    """int16: the sound of the whole stretch."""
    offsets: NDArray[np.int64]
    """int64 (steps,): the sample of ``sound`` with which each window begins."""
    sound_end: int
    """Samples before the end of the sound; 0: silence."""


@dataclass(frozen=True, kw_only=True)
class Footage:
    """An open video."""

    name: str
    times_s: NDArray[np.float64]
    """float64 (N,): when each frame of the video is shown, ascending; labels have a row for each."""
    end_s: float
    """When the last leaves the screen."""
    picture: Track | FaceFrames
    sound: Track | PlainSound | None

    def starts(self, steps: NDArray[np.int64], spec: InputSpec) -> NDArray[np.float64]:
        """Where the window around each step begins, in seconds. A window at either end of the video is moved inside,
        as the clips of training lie inside their files."""
        latest = max(self.times_s[0], self.end_s - spec.window_seconds)
        starts: NDArray[np.float64] = np.clip(self.times_s[steps] - spec.window_seconds / 2, self.times_s[0], latest)
        return starts

    def shown(self, starts: NDArray[np.float64], spec: InputSpec) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """What of the picture windows show: int64 (S, T), numbers of pictures, and bool (S,), whether any of them
        belongs to a frame that is on screen within the window (a face may be lost for longer)."""
        instants = starts[:, None] + np.arange(spec.num_frames) * spec.frame_interval_s
        frames = (np.searchsorted(self.times_s, instants + TOLERANCE_S, side="right") - 1).clip(min=0).astype(np.int64)
        if not isinstance(self.picture, FaceFrames):
            return frames, np.ones(len(starts), dtype=np.bool_)
        numbers = self.picture.numbers
        rows = np.searchsorted(numbers, frames, side="right") - 1  # the last face so far, -1 before the first
        # A face that was lost before the window begins is not for ever: the first one within it stands for it.
        rows = np.maximum(rows, np.searchsorted(numbers, frames[:, :1]))
        present: NDArray[np.bool_] = np.searchsorted(numbers, frames[:, 0]) < np.searchsorted(
            numbers, frames[:, -1], side="right"
        )
        return rows.clip(max=len(numbers) - 1).astype(np.int64), present

    def stretches(self, steps: NDArray[np.int64], spec: InputSpec) -> Iterator[Stretch]:
        """The footage of the windows around ``steps`` (frames of the video, int64 (S,), ascending), in order.

        Raises:
            DecodeError: damaged picture or sound.
        """
        starts = self.starts(steps, spec)
        rows = self.shown(starts, spec)[0]
        for part in _parts(starts, rows):
            wanted, places = np.unique(rows[part], return_inverse=True)
            yield Stretch(
                steps=part,
                frames=self._frames(wanted, spec),
                rows=places.reshape(rows[part].shape),
                **self._hear(starts[part], spec),  # type: ignore[arg-type]
            )

    def _frames(self, numbers: NDArray[np.int64], spec: InputSpec) -> NDArray[np.uint8]:
        size = spec.image_size
        out = np.empty((len(numbers), size, size, 3), dtype=np.uint8)
        aspect = self.picture.stream.sample_aspect_ratio if isinstance(self.picture, Track) else None
        squares = SquareFrames(out, numbers, pixel_aspect=aspect, name=self.name)
        if isinstance(self.picture, Track):
            decode_frames(self.picture, numbers, squares, self.name)
        else:
            for number in numbers.tolist():
                squares(number, _read_picture(self.picture.paths[number], self.name), 0)
        squares.flush()
        return out

    def _hear(self, starts: NDArray[np.float64], spec: InputSpec) -> dict[str, object]:
        rate = spec.sample_rate_hz
        offsets = np.rint((starts - starts[0]) * rate).astype(np.int64)
        if self.sound is None:
            return {"sound": None, "offsets": offsets, "sound_end": 0}
        out = np.empty(int(offsets[-1]) + spec.audio_samples, dtype=np.int16)
        begin = float(starts[0])
        if isinstance(self.sound, PlainSound):
            end = self.sound.read(out, begin, end_s=None)
        else:
            end = fill_sound(self.sound, out, begin, rate, end_s=None, name=self.name)
        return {"sound": out, "offsets": offsets, "sound_end": end}


def _parts(starts: NDArray[np.float64], rows: NDArray[np.int64]) -> Iterator[slice]:
    """Consecutive steps that are decoded together, at least one."""
    first, frames = 0, set[int]()
    for step in range(len(starts)):
        new = [row for row in rows[step].tolist() if row not in frames]
        if step > first and (len(frames) + len(new) > MAX_FRAMES or starts[step] - starts[first] > MAX_SPAN_S):
            yield slice(first, step)
            first, frames, new = step, set(), rows[step].tolist()
        frames.update(new)
    yield slice(first, len(starts))


@contextmanager
def open_footage(
    video: Path | None, faces: Path | None, spec: InputSpec, *, name: str, frame_rate: float | None = None
) -> Iterator[Footage]:
    """Open the footage of a video.

    Pictures and sound are decoded as they are needed; a large file is not held in memory.

    Args:
        video: a media file; its frames give the time, its sound the sound.
        faces: a folder of face pictures that replaces the video's picture.
        spec: what the model takes.
        name: what errors call it.
        frame_rate: frames a second of ``faces`` without a video.

    Raises:
        DecodeError: a file that cannot be read, or without a picture.
        ValueError: a folder without pictures, or without a rate.
    """
    with ExitStack() as stack:
        track: Track | None = None
        sound: Track | PlainSound | None = None
        if video is not None:
            data = load_media(video)
            sound = plain_wav(data, spec.sample_rate_hz, name)
            if sound is None:
                media = stack.enter_context(open_media(data, name))
                track, sound = media.picture, media.sound
        pictures = find_faces(faces) if faces is not None else None
        if track is not None:
            times_s, end_s = track.times_s, track.end_s
            if pictures is not None:
                pictures = _within(pictures, len(times_s), video, name)
        elif pictures is not None:
            if frame_rate is None:
                raise ValueError(
                    f"{name}: {faces} has no video beside it that says how fast its frames follow one another; "
                    "give the video, or the frame rate (column frame_rate, or a name like 4-30-1920x1080)"
                )
            times_s = np.arange(int(pictures.numbers[-1]) + 1) / frame_rate
            end_s = len(times_s) / frame_rate
        else:
            raise DecodeError(
                name,
                "no_video_stream",
                f"{video or name} holds no picture, and labels go by its frames",
                "give the video that was labelled",
            )
        picture = track if pictures is None else pictures
        assert picture is not None
        yield Footage(name=name, times_s=times_s, end_s=end_s, picture=picture, sound=sound)


def _within(pictures: FaceFrames, frames: int, video: Path | None, name: str) -> FaceFrames:
    """The pictures of the video's frames. As with labels, a few beyond its last frame are dropped, and told."""
    last = int(pictures.numbers[-1]) + 1
    if last <= frames:
        return pictures
    kept = int(np.searchsorted(pictures.numbers, frames))
    if last - frames > max(1, MAX_MISMATCH * frames) or not kept:
        raise DecodeError(
            name,
            "faces_of_another_video",
            f"{pictures.paths[-1]} is frame {last} of a video of {frames}",
            f"check that {pictures.paths[-1].parent} and {video} belong together",
        )
    logger.warning(
        "%s: %d face pictures beyond the last of %d frames dropped", name, len(pictures.paths) - kept, frames
    )
    return FaceFrames(paths=pictures.paths[:kept], numbers=pictures.numbers[:kept])


def find_faces(folder: Path) -> FaceFrames:
    """The pictures of a folder, by number.

    Raises:
        ValueError: none, or a number that occurs twice.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of face pictures {folder}")
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if match := _NUMBER.fullmatch(path.name):
            number = int(match[1])
            if number < 1 or number in found:
                other = f"{found[number].name} has that number too" if number in found else "frames count from 1"
                raise ValueError(f"{path}: {other}; keep one picture a frame, 00001.jpg being the first")
            found[number] = path
    if not found:
        raise ValueError(f"{folder} holds no pictures named by frame (00001.jpg, 00002.jpg, ...)")
    numbers = sorted(found)
    return FaceFrames(paths=tuple(found[n] for n in numbers), numbers=np.array(numbers, dtype=np.int64) - 1)


def _read_picture(path: Path, name: str) -> NDArray[np.uint8]:
    try:
        data = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
        picture: NDArray[np.uint8] = decode_image(data, mode=ImageReadMode.RGB).permute(1, 2, 0).contiguous().numpy()
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DecodeError(
            name, "corrupt_frames", f"{path} is no picture ({reason})", "fetch it again, or remove it"
        ) from None
    return picture
