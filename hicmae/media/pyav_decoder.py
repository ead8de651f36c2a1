"""Frames through PyAV: from the key frame that is needed to the last frame wanted, and no further."""

from __future__ import annotations

import bisect
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
TakeFrame = Callable[[int, Any], None]
"""Takes a frame's number and the ``av.VideoFrame`` as it was decoded."""


class _Damaged(Exception):
    """Frames were damaged or did not come out."""


def decode_frames(track: Track, frames: npt.NDArray[np.int64], deliver: Deliver, name: str) -> None:
    """Decode the frames with these numbers (order of presentation, ascending, distinct) and hand each to ``deliver``.

    Raises:
        DecodeError: as ``decode_raw_frames``.
    """
    decode_raw_frames(track, frames, _in_rgb(deliver), name)


def decode_raw_frames(track: Track, frames: npt.NDArray[np.int64], take: TakeFrame, name: str) -> None:
    """As ``decode_frames``, without a conversion to RGB.

    Raises:
        DecodeError: ``corrupt_frames`` when the decoder reports damage or delivers too few frames.
    """
    context = track.stream.codec_context
    if context.is_open:  # a long video is decoded stretch by stretch, with the same decoder
        context.flush_buffers()
    else:
        context.thread_count = 1
        context.thread_type = "NONE"
        # Without "explode" FFmpeg paints over damage and says nothing.
        context.options = {"err_detect": "crccheck+explode", "max_pixels": str(MAX_PIXELS)}
    if track.counted:
        stretches = [(0, len(track.packets) - 1, {int(number): int(number) for number in frames})]
    else:
        stretches = _stretches(track, frames)
    for count, (first, last, wanted) in enumerate(stretches):
        if count:
            context.flush_buffers()
        try:
            _decode_range(track, first, last, wanted, take, skip=not track.counted)
        except _Damaged as damage:
            if first == 0:
                raise _corrupt(name, damage) from None
            # In an open group of pictures a key frame does not suffice: the frames before it are needed too.
            context.flush_buffers()
            try:
                _decode_range(track, 0, last, wanted, take, skip=False)
            except _Damaged as again:
                raise _corrupt(name, again) from None


def _in_rgb(deliver: Deliver) -> TakeFrame:
    reformatter = VideoReformatter()

    def take(number: int, frame: Any) -> None:
        picture = reformatter.reformat(frame, format="rgb24", threads=1)
        plane = picture.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        image = rows[: picture.height, : picture.width * 3].reshape(picture.height, picture.width, 3)
        deliver(number, image, frame.rotation)

    return take


def _stretches(track: Track, frames: npt.NDArray[np.int64]) -> list[tuple[int, int, dict[int, int]]]:
    """Packets to decode, as (first, last, number of the frame by its time stamp): a key frame after the last packet
    of a stretch begins another, so that what lies between two distant windows is not decoded."""
    positions = track.kept[frames].tolist()
    keys = track.packets.keys_until(max(positions))
    stretches: list[tuple[int, int, dict[int, int]]] = []
    for number, position in zip(frames.tolist(), positions, strict=True):
        key = _key_before(track, keys, position)
        if stretches and key <= stretches[-1][1] + 1:
            first, last, wanted = stretches.pop()
            stretches.append((min(first, key), max(last, position), wanted))
        else:
            stretches.append((key, position, {}))
        stretches[-1][2][int(track.pts[position])] = number
    return stretches


def _key_before(track: Track, keys: list[int], wanted: int) -> int:
    """Position of the last key frame that comes before the packet at ``wanted``, both decoded and presented; the first
    packet where ``keys``, the positions of key frames, has none."""
    for place in range(bisect.bisect_right(keys, wanted) - 1, -1, -1):
        if track.pts[keys[place]] <= track.pts[wanted]:
            return keys[place]
    return 0


def _decode_range(track: Track, first: int, last: int, wanted: dict[int, int], take: TakeFrame, *, skip: bool) -> None:
    """Decode packets ``first`` to ``last`` and take the frames in ``wanted`` (time stamp, or count, to number).

    With ``skip``, frames that are neither wanted nor needed by others are not decoded.
    """
    context: Any = track.stream.codec_context
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
                    take(number, frame)
            if not missing:
                break
    except DecodeError:
        raise
    except (av.error.FFmpegError, ValueError) as error:
        raise _Damaged(f"the decoder reports {error}") from None
    if missing:
        raise _Damaged(f"{len(wanted) - len(missing)} of {len(wanted)} frames were delivered")


def _corrupt(name: str, damage: _Damaged) -> DecodeError:
    return DecodeError(
        name,
        "corrupt_frames",
        f"its picture is damaged: {damage}",
        "fetch or export the file again, or drop it from the manifest",
    )
