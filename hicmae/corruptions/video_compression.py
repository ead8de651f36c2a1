"""Frames as H.264 leaves them at a constant rate factor: blocks and smear that move with the picture."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from hicmae.corruptions.corruption import Media

_RATE = 25
"""Frames a second that the encoder is told."""
_OPTIONS = {"preset": "veryfast", "x264-params": "cpu-independent=1"}
"""As the encoders of phones and calls, which have little time; and the same bytes on every machine."""


def video_compression(media: Media, level: float, rng: np.random.Generator) -> Media:
    """The window's frames, encoded by x264 with CRF ``level`` as one after another, and decoded.

    That is done at the model's size; blocks are 16 of its pixels. Frames of a window lie further apart than those of a
    video, so that less of each can be had from the one before.
    """
    return replace(media, video=_decoded(_encoded(media.video, round(level)), media.video.shape))


def _encoded(frames: NDArray[np.uint8], crf: int) -> list[Any]:
    """Packets; H.264 wants even sides, so an odd one gets its last line twice."""
    odd = frames.shape[1] % 2
    frames = np.pad(frames, ((0, 0), (0, odd), (0, odd), (0, 0)), mode="edge") if odd else frames
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width = encoder.height = frames.shape[1]
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, _RATE)
    encoder.framerate = Fraction(_RATE)
    encoder.thread_count = 1
    encoder.options = _OPTIONS | {"crf": str(crf)}
    packets: list[Any] = []
    for number, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, encoder.time_base
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


def _decoded(packets: list[Any], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    frames = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    frames.sort(key=lambda frame: frame.pts)
    assert len(frames) == shape[0], (len(frames), shape)
    return np.stack([frame.to_ndarray(format="rgb24")[: shape[1], : shape[2]] for frame in frames])
