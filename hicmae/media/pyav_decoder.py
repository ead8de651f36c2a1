"""Frames through PyAV: from the key frame that is needed to the last frame wanted, and no further."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from hicmae.media.clip import DecodeError
from hicmae.media.container import MAX_PIXELS, Track

Deliver = Callable[[int, npt.NDArray[np.uint8], int], None]
"""Takes a frame's number, its RGB picture uint8 (height, width, 3), and its rotation in degrees. The picture
is valid only during the call."""


class _Damaged(Exception):
    """Frames were damaged or did not come out."""


def decode_frames(track: Track, frames: npt.NDArray[np.int64], deliver: Deliver, name: str) -> None:
    """Decode the frames with these numbers (order of presentation, distinct) and hand each to ``deliver``.

    Raises:
        DecodeError: ``corrupt_frames`` when the decoder reports damage or delivers too few frames.
    """
    context = track.stream.codec_context
    context.thread_count = 1
    context.thread_type = "NONE"
    # Without "explode" FFmpeg paints over damage and says nothing.
    context.options = {"err_detect": "crccheck+explode", "max_pixels": str(MAX_PIXELS)}
    positions = track.kept[frames]
    stamps = frames if track.counted else track.pts[positions]
    wanted = {int(stamp): int(number) for stamp, number in zip(stamps, frames, strict=True)}
    first = 0 if track.counted else _key_before(track, positions)
    last = len(track.packets) - 1 if track.counted else int(positions.max())
    try:
        _decode_range(track, first, last, wanted, deliver, skip=not track.counted)
    except _Damaged as damage:
        if first == 0:
            raise _corrupt(name, damage) from None
        # In an open group of pictures a key frame does not suffice: the frames before it are needed too.
        context.flush_buffers()
        try:
            _decode_range(track, 0, last, wanted, deliver, skip=False)
        except _Damaged as again:
            raise _corrupt(name, again) from None


def _key_before(track: Track, positions: npt.NDArray[np.int64]) -> int:
    """Position of the last key frame that comes before all wanted frames, both decoded and presented."""
    earliest = int(track.pts[positions].min())
    for position in range(int(positions.min()), 0, -1):
        if track.packets[position].is_keyframe and track.pts[position] <= earliest:
            return position
    return 0


def _decode_range(track: Track, first: int, last: int, wanted: dict[int, int], deliver: Deliver, *, skip: bool) -> None:
    """Decode packets ``first`` to ``last`` and deliver the frames in ``wanted`` (time stamp, or count, to number).

    With ``skip``, frames that are neither wanted nor needed by others are not decoded.
    """
    context: Any = track.stream.codec_context
    reformatter = VideoReformatter()
    missing = dict(wanted)
    skipping: bool | None = None
    count = itertools.count()
    try:
        for position in range(first, last + 2):
            packet = track.packets[position] if position <= last else None  # None empties the decoder
            if packet is not None and (unwanted := skip and packet.pts not in wanted) is not skipping:
                context.skip_frame = "NONREF" if unwanted else "DEFAULT"
                skipping = unwanted
            for frame in context.decode(packet):
                if frame.is_corrupt:
                    raise _Damaged("a frame is damaged")
                number = missing.pop(next(count) if track.counted else frame.pts, None)
                if number is not None:
                    deliver(number, _rgb(reformatter, frame), frame.rotation)
            if not missing:
                break
    except (av.error.FFmpegError, ValueError) as error:
        raise _Damaged(f"the decoder reports {error}") from None
    if missing:
        raise _Damaged(f"{len(wanted) - len(missing)} of {len(wanted)} frames were delivered")


def _rgb(reformatter: VideoReformatter, frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    picture = reformatter.reformat(frame, format="rgb24", threads=1)
    plane = picture.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: picture.height, : picture.width * 3].reshape(picture.height, picture.width, 3)


def _corrupt(name: str, damage: _Damaged) -> DecodeError:
    return DecodeError(
        name,
        "corrupt_frames",
        f"its picture is damaged: {damage}",
        "fetch or export the file again, or drop it from the manifest",
    )
