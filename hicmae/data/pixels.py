"""In which form the workers ship frames: as RGB, or as the planes that h264 clips are stored in."""

from __future__ import annotations

from typing import Literal

from hicmae.config import InputSpec
from hicmae.data.source import ClipSource
from hicmae.media.decode import Decoder, PixelFormat

Pixels = Literal["auto", "rgb", "yuv"]
"""``yuv`` ships half of the bytes and leaves the conversion to the device, with the very same result; ``auto`` takes
it where every clip is stored as h264 at the model's size."""


def choose_pixels(pixels: Pixels, source: ClipSource, spec: InputSpec, decoder: Decoder) -> PixelFormat:
    """The form that the clips of ``source`` are shipped in.

    Raises:
        ValueError: ``yuv`` for clips that are not stored like that, or with a decoder that gives RGB alone.
    """
    if pixels not in ("auto", "rgb", "yuv"):
        raise ValueError(f"pixels={pixels!r} is not known; choose auto, rgb or yuv")
    if pixels == "rgb":
        return "rgb24"
    problem = ""
    others = [str(s) for s in source.storages if (s.video, s.size) != ("h264", spec.image_size)]
    if others:
        problem = f"{source.name} holds {', '.join(sorted(set(others)))}"
    elif decoder == "decord":
        problem = "decord gives RGB alone"
    if pixels == "yuv" and problem:
        raise ValueError(
            f"pixels='yuv' needs clips stored as h264 at the model's size, {spec.image_size}, and PyAV: {problem}. Set "
            "pixels: auto"
        )
    return "rgb24" if problem else "yuv420p"
