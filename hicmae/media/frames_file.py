"""The ``.frames`` layout: the JPEG frames of a clip behind a table, so that a window is a few slices of bytes.

Little endian: magic ``HCMFRM01``, uint32 number of frames N, uint16 width, uint16 height, uint32 zero, float64 end of
the last frame, float64[N] presentation times, uint32[N + 1] offsets of the JPEGs from the end of the table, the JPEGs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hicmae.media.clip import DecodeError
from hicmae.media.large_file import MediaData

MAGIC = b"HCMFRM01"
_HEAD = struct.Struct("<8sIHHId")  # magic, frames, width, height, zero, end_s: 28 bytes
_BYTES_PER_FRAME = 12  # a float64 time and a uint32 offset
_MOST_BYTES = 2**32 - 1
_START, _END = b"\xff\xd8", b"\xff\xd9"
_REMEDY = "write the shard again, or drop the clip"


@dataclass(frozen=True, kw_only=True)
class FramesFile:
    """The table of a ``.frames`` file, checked, over its bytes, which are not copied."""

    width: int
    height: int
    times_s: npt.NDArray[np.float64]
    """Presentation times, float64 (N,), strictly ascending, in seconds."""
    end_s: float
    """When the last frame leaves the screen."""
    data: memoryview
    """The JPEGs, one after the other."""
    offsets: npt.NDArray[np.uint32]
    """Where each JPEG begins in ``data``, and where the last ends, uint32 (N + 1,)."""

    def jpeg(self, number: int) -> memoryview:
        """The JPEG of frame ``number`` (0 to N - 1)."""
        return self.data[int(self.offsets[number]) : int(self.offsets[number + 1])]


def is_frames_file(data: MediaData | memoryview) -> bool:
    """Whether bytes begin as this layout does."""
    return bytes(data[: len(MAGIC)]) == MAGIC


def pack_frames(
    jpegs: Sequence[bytes], times_s: npt.ArrayLike, end_s: float, *, width: int, height: int, name: str
) -> bytes:
    """The file of a clip's frames.

    Args:
        jpegs: whole JPEG files, at least one, all of ``width`` x ``height``.
        times_s: when each is presented, strictly ascending, in seconds.
        end_s: when the last leaves the screen.
        name: what errors call this clip.

    Raises:
        ValueError: times, sizes or lengths that ``read_frames`` would refuse, or over 4 GiB.
    """
    times = np.asarray(times_s, dtype="<f8")
    if len(jpegs) != len(times):
        raise ValueError(f"{name}: {len(jpegs)} frames with {len(times)} times; give one time a frame")
    if not (0 < width < 2**16 and 0 < height < 2**16):
        raise ValueError(f"{name}: frames of {width}x{height}; both must lie within 1 and 65535 pixels")
    ends = np.cumsum([0, *map(len, jpegs)], dtype=np.int64)
    if ends[-1] > _MOST_BYTES:
        raise ValueError(f"{name}: {ends[-1]} bytes of frames do not fit the layout; cut the clip into shorter ones")
    head = _HEAD.pack(MAGIC, len(jpegs), width, height, 0, end_s)
    data = b"".join([head, times.tobytes(), ends.astype("<u4").tobytes(), *jpegs])
    try:
        read_frames(data, name)
    except DecodeError as error:
        raise ValueError(f"{name}: these frames make no valid file: {error.found}") from None
    return data


def read_frames(data: bytes | memoryview, name: str) -> FramesFile:
    """Read and check the table; the frames themselves are checked when they are decoded.

    Raises:
        DecodeError: ``truncated`` where bytes are missing at the end, ``unreadable`` for anything else.
    """
    view = memoryview(data)
    if not is_frames_file(view[: len(MAGIC)]):
        raise _unreadable(name, f"it does not begin with {MAGIC!r}")
    if len(view) < _HEAD.size:
        raise _truncated(name, f"{len(view)} bytes of a head of {_HEAD.size}")
    _, count, width, height, zero, end_s = _HEAD.unpack_from(view)
    if not count or not width or not height or zero:
        raise _unreadable(name, f"it claims {count} frames of {width}x{height}, reserved field {zero}")
    table_end = _HEAD.size + count * _BYTES_PER_FRAME + 4
    if len(view) < table_end:
        raise _truncated(name, f"{len(view)} bytes of a table of {table_end} for {count} frames")
    times = np.frombuffer(view, "<f8", count, _HEAD.size)
    if not (np.isfinite(times).all() and np.isfinite(end_s) and (np.diff(times, append=end_s) > 0).all()):
        raise _unreadable(name, "its times do not ascend to its end")
    offsets = np.frombuffer(view, "<u4", count + 1, _HEAD.size + 8 * count)
    # Signed, as differences of unsigned numbers cannot be negative.
    lengths = np.diff(offsets.astype(np.int64))
    if offsets[0] != 0 or (lengths < len(_START) + len(_END)).any():
        raise _unreadable(name, "the places of its frames do not follow one another")
    present, listed = len(view) - table_end, int(offsets[-1])
    if present < listed:
        raise _truncated(name, f"{present} of {listed} bytes of frames are in the file")
    if present > listed:
        raise _unreadable(name, f"{present - listed} bytes follow its last frame")
    body = np.frombuffer(view, np.uint8, listed, table_end)
    for place, mark in ((offsets[:-1].astype(np.int64), _START), (offsets[1:].astype(np.int64) - len(_END), _END)):
        if wrong := np.flatnonzero((body[place] != mark[0]) | (body[place + 1] != mark[1])).tolist():
            raise _unreadable(name, f"frame {wrong[0]} is no whole JPEG")
    return FramesFile(
        width=width, height=height, times_s=times, end_s=end_s, data=view[table_end:], offsets=offsets
    )  # fmt: skip


def _truncated(name: str, found: str) -> DecodeError:
    return DecodeError(name, "truncated", f"the file of frames was cut short: {found}", _REMEDY)


def _unreadable(name: str, found: str) -> DecodeError:
    return DecodeError(name, "unreadable", f"the file of frames is damaged: {found}", _REMEDY)
