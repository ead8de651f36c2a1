"""A folder of pictures, one a frame, made into one ``.frames`` file: what corpora hand out as cropped faces."""

from __future__ import annotations

import io
import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

from hicmae.media.clip import DecodeError
from hicmae.media.frames_file import pack_frames

PICTURE_EXTENSIONS = ("jpg", "jpeg", "png", "bmp")
JPEG_QUALITY = 95
"""Of frames that have to be encoded anew."""
LARGEST_SIDE = 512
"""Larger pictures are scaled down; a model sees 160 pixels of them."""
FEWEST_PRESENT = 0.5
"""Share of the frames, by the numbers in their names, below which a clip is not used."""

_ASK = "unpack the corpus again, or leave the clip out"
_Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class FramesFolder:
    """The pictures of a clip in their order, and when each is shown."""

    files: tuple[Path, ...]
    positions: tuple[int, ...]
    """Place of each among all frames of the clip, ascending from 0. A frame that the folder lacks leaves a gap, in
    which the one before it stays on screen, so that picture and sound stay together."""

    @property
    def length(self) -> int:
        """Frames of the clip, those that are missing between others included."""
        return self.positions[-1] + 1


def scan_frames(folder: Path, name: str) -> FramesFolder:
    """The pictures in ``folder``, in the natural order of their names (2 before 10).

    Raises:
        DecodeError: ``missing_file`` for no such folder, ``no_frames`` for one without pictures, ``missing_frames``
            for one in which less than half of them are left.
    """
    try:
        with os.scandir(folder) as entries:
            there = [entry.name for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DecodeError(name, "missing_file", f"{folder} cannot be read: {error.strerror}", _ASK) from None
    pictures = sorted((n for n in there if _extension(n) in PICTURE_EXTENSIONS), key=natural_key)
    if not pictures:
        kinds = Counter(_extension(n) or "(no extension)" for n in there)
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or "nothing"
        raise DecodeError(
            name, "no_frames", f"{folder} holds no {', '.join(PICTURE_EXTENSIONS)} but {found}", _ASK
        )  # fmt: skip
    positions = _positions(pictures)
    if len(pictures) < FEWEST_PRESENT * (positions[-1] + 1):
        found = f"{len(pictures)} of {positions[-1] + 1} frames are in {folder}, by the numbers in their names"
        raise DecodeError(name, "missing_frames", found, _ASK)
    return FramesFolder(files=tuple(folder / picture for picture in pictures), positions=positions)


def natural_key(text: str) -> list[tuple[int, str]]:
    """Sorts numbers within names by their value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text) if part]


def make_frames_file(
    folder: Path, *, name: str, frame_rate: float | None, start_s: float = 0.0, end_s: float | None = None
) -> bytes:
    """The ``.frames`` file of a folder of pictures.

    JPEGs are taken byte for byte when all pictures are of one size, and no larger than ``LARGEST_SIDE``. Others are
    encoded anew; pictures of different sizes become their central squares of one size.

    Args:
        folder: the pictures.
        name: what errors call this clip.
        frame_rate: frames a second; None spreads the frames evenly from ``start_s`` to ``end_s``.
        start_s: when the first is shown, in seconds, on the clock of the clip's sound.
        end_s: end of the clip on that clock.

    Raises:
        DecodeError: as ``scan_frames``; ``corrupt_frames`` for a damaged picture; ``no_frame_times`` where neither a
            frame rate nor an end is known.
    """
    frames = scan_frames(folder, name)
    step_s = _step(frames, name, frame_rate, start_s, end_s)
    pictures = [(file, _read(file, name)) for file in frames.files]
    sizes = {_size(file, data, name) for file, data in pictures}
    if len(sizes) == 1 and max(size := sizes.pop()) <= LARGEST_SIDE:
        width, height = size
        jpegs = [data if _is_jpeg(data) else _encode(_decode(file, data, name)) for file, data in pictures]
        for (file, data), jpeg in zip(pictures, jpegs, strict=True):
            if jpeg is data:
                _decode(file, data, name)  # a header may be whole where the picture is not
    else:
        shorter = sorted(min(_size(file, data, name)) for file, data in pictures)
        width = height = max(2, min(LARGEST_SIDE, shorter[len(shorter) // 2]) // 2 * 2)
        jpegs = [_encode(_square(_decode(file, data, name), width)) for file, data in pictures]
    times = start_s + step_s * np.asarray(frames.positions, dtype=np.float64)
    return pack_frames(
        jpegs, times, start_s + step_s * frames.length, width=width, height=height, name=name
    )  # fmt: skip


def _positions(names: list[str]) -> tuple[int, ...]:
    """Places by the last number in each name, counted from the first in the names' own step; else one after another."""
    in_order = tuple(range(len(names)))
    found = [re.findall(r"\d+", name.rpartition(".")[0]) for name in names]
    if not all(found):
        return in_order
    numbers = [int(numbers[-1]) for numbers in found]  # of any length: some names hold digests
    steps = [later - earlier for earlier, later in pairwise(numbers)]
    if not steps or min(steps) <= 0:
        return in_order
    step = math.gcd(*steps)
    return tuple((number - numbers[0]) // step for number in numbers)


def _step(frames: FramesFolder, name: str, frame_rate: float | None, start_s: float, end_s: float | None) -> float:
    if frame_rate is not None:
        return 1.0 / frame_rate
    if end_s is None or end_s <= start_s:
        found = f"{len(frames.files)} frames without a frame rate, and no sound whose time they could fill"
        raise DecodeError(name, "no_frame_times", found, "give the clip its sound, or a frame rate")
    return (end_s - start_s) / frames.length


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""


def _read(file: Path, name: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DecodeError(name, "missing_file", f"{file} cannot be read: {error.strerror}", _ASK) from None


def _is_jpeg(data: bytes) -> bool:
    """Whether it can be stored as it is: a JPEG, with nothing behind its end."""
    return data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")


def _size(file: Path, data: bytes, name: str) -> tuple[int, int]:
    """(width, height), from the header."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "BMP")) as picture:
            return picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _corrupt(file, name, error) from None


def _decode(file: Path, data: bytes, name: str) -> _Picture:
    """RGB, uint8 (height, width, 3)."""
    from PIL import Image

    try:
        if data.startswith(b"\xff\xd8"):
            decoded: _Picture = simplejpeg.decode_jpeg(data, "RGB")
            return decoded
        with Image.open(io.BytesIO(data), formats=("PNG", "BMP")) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _corrupt(file, name, error) from None


def _encode(picture: _Picture) -> bytes:
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(picture), quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444", fastdct=False
    )
    return encoded


def _square(picture: _Picture, side: int) -> _Picture:
    """The central square at another size, as decoding cuts and resizes it."""
    from hicmae.media.square import SquareFrames

    out = np.empty((1, side, side, 3), dtype=np.uint8)
    squares = SquareFrames(out, np.zeros(1, dtype=np.int64), pixel_aspect=None)
    squares(0, picture, 0)
    squares.flush()
    square: _Picture = out[0]
    return square


def _corrupt(file: Path, name: str, error: Exception) -> DecodeError:
    return DecodeError(name, "corrupt_frames", f"{file.name} in {file.parent} is damaged: {error}", _ASK)
