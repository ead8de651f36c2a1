"""Frames of a ``.frames`` file: each a JPEG of its own, decoded straight into the clip where it fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hicmae.media.clip import DecodeError
from hicmae.media.frames_file import FramesFile
from hicmae.media.square import Frame, SquareFrames


def decode_jpegs(file: FramesFile, numbers: npt.NDArray[np.int64], squares: SquareFrames, name: str) -> None:
    """Decode the frames with these numbers (distinct) and hand each to ``squares``.

    Raises:
        DecodeError: as ``decode_jpeg``.
    """
    whole = squares.takes_whole(file.height, file.width)
    for number in numbers.tolist():
        if not whole:
            squares(number, decode_jpeg(file, number, name), 0)
            continue
        rows = squares.places[number]
        decode_jpeg(file, number, name, into=rows[0])
        for row in rows[1:]:
            row[...] = rows[0]


def decode_jpeg(file: FramesFile, number: int, name: str, *, into: Frame | None = None) -> Frame:
    """Frame ``number``, RGB uint8 (height, width, 3), in new memory or in ``into``.

    Raises:
        DecodeError: ``corrupt_frames`` for a damaged JPEG, or one of another size than the file's.
    """
    try:
        import simplejpeg
    except ImportError as error:
        raise ValueError("clips stored as JPEG frames need the package simplejpeg: pip install simplejpeg") from error
    try:
        picture: Any = simplejpeg.decode_jpeg(file.jpeg(number), "RGB", buffer=into)
    except ValueError as error:
        raise _corrupt(name, f"frame {number} is damaged: {error}") from None
    if picture.shape != (file.height, file.width, 3):
        found = f"frame {number} is {picture.shape[1]} x {picture.shape[0]}, not {file.width} x {file.height}"
        raise _corrupt(name, found)
    frame: Frame = picture
    return frame


def _corrupt(name: str, found: str) -> DecodeError:
    return DecodeError(name, "corrupt_frames", found, "write the shard again, or drop the clip")
