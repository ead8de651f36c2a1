"""Pictures that play, as a file: GIF, animated WebP, or mp4 with sound."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SUFFIXES = (".gif", ".webp", ".mp4")
_GIF_COLOURS = 256
_GIF_TICK_S = 0.01
_MP4_OPTIONS = {"preset": "medium", "crf": "20", "x264-params": "cpu-independent=1"}


@dataclass(frozen=True, kw_only=True)
class Sound:
    """What is heard with pictures; only mp4 has any."""

    waveform: NDArray[np.int16]
    """int16 (samples,), from the first picture on."""
    rate_hz: int


def save_moving(
    pages: Sequence[Image.Image],
    path: str | Path,
    *,
    page_s: float,
    sound: Sound | None = None,
    quality: int = 60,
) -> Path:
    """Write pictures that play; GIF and WebP repeat. The same input gives the same bytes.

    Args:
        pages: RGB, all of one size.
        path: the file; its ending says the format.
        page_s: how long each is shown, in seconds; GIF rounds it to hundredths.
        sound: heard with an mp4; the other formats have none.
        quality: of the WebP, 0 to 100.

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} must end in {', '.join(SUFFIXES)}, which play")
    data = {
        ".gif": lambda: gif_bytes(pages, page_s),
        ".webp": lambda: webp_bytes(pages, page_s, quality),
        ".mp4": lambda: mp4_bytes(pages, page_s, sound),
    }[path.suffix]()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(data)
    draft.replace(path)
    return path


def webp_bytes(pages: Sequence[Image.Image], page_s: float, quality: int) -> bytes:
    """An animated WebP that repeats."""
    buffer = io.BytesIO()
    pages[0].save(
        buffer, format="WEBP", save_all=True, append_images=pages[1:], loop=0, duration=round(1000 * page_s),
        quality=quality, method=4,
    )  # fmt: skip
    return buffer.getvalue()


def gif_bytes(pages: Sequence[Image.Image], page_s: float) -> bytes:
    """A GIF that repeats, of one palette for all pages: with one each, still parts would flicker."""
    step = max(1, len(pages) // 6)
    some = [np.asarray(page) for page in pages[::step]]
    palette = Image.fromarray(np.concatenate(some)).quantize(_GIF_COLOURS, method=Image.Quantize.MEDIANCUT)
    drawn = [page.quantize(palette=palette, dither=Image.Dither.NONE) for page in pages]
    buffer = io.BytesIO()
    drawn[0].save(
        buffer, format="GIF", save_all=True, append_images=drawn[1:], loop=0,
        duration=10 * max(2, round(page_s / _GIF_TICK_S)),
    )  # fmt: skip
    return buffer.getvalue()


def mp4_bytes(pages: Sequence[Image.Image], page_s: float, sound: Sound | None) -> bytes:
    """H.264 with AAC sound, which begins with the first page and is heard to its own end or the last page's."""
    import av

    from hicmae.media.sound_writer import add_sound_stream, encode_waveform

    width, height = (size + size % 2 for size in pages[0].size)  # 4:2:0 wants even sizes
    buffer = io.BytesIO()
    output: Any
    with av.open(buffer, "w", format="mp4") as output:
        rate = Fraction(1 / page_s).limit_denominator(1001)
        picture = output.add_stream("libx264", rate=rate, options=_MP4_OPTIONS)
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        picture.codec_context.thread_count = 1  # the same bytes on every machine
        packets = []
        if sound is not None:
            wanted = sound.waveform[: round(len(pages) * page_s * sound.rate_hz)]
            packets += encode_waveform(add_sound_stream(output, "aac", sound.rate_hz), wanted, sound.rate_hz)
        for page in pages:
            canvas = Image.new("RGB", (width, height), (255, 255, 255))
            canvas.paste(page)
            packets += picture.encode(av.VideoFrame.from_ndarray(np.asarray(canvas), format="rgb24"))
        packets += picture.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return buffer.getvalue()
