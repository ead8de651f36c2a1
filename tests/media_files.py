"""Small media files for tests, whose picture and sound carry the same time code.

The picture is a grid of 4 x 4 black or white cells in its central square: the frame's time in milliseconds,
16 bits, most significant first. The sound is a chirp whose phase is a known function of time, so that the
instant of any excerpt can be read from it to a fraction of a millisecond.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

CHIRP_START_HZ = 250.0
CHIRP_HZ_PER_S = 220.0
GREY = 96
LEVELS = (40, 215)


def chirp(times_s: np.ndarray) -> np.ndarray:
    """The test sound at the given times (seconds), float64 in [-0.5, 0.5]."""
    return 0.5 * np.sin(2 * np.pi * (CHIRP_START_HZ * times_s + 0.5 * CHIRP_HZ_PER_S * times_s**2))


def time_code_picture(time_s: float, width: int, height: int) -> np.ndarray:
    """The test picture of an instant, uint8 (height, width, 3)."""
    code = round(time_s * 1000)
    side = min(width, height)
    cells = np.array([(code >> bit) & 1 for bit in range(15, -1, -1)]).reshape(4, 4)
    edges = np.arange(side) * 4 // side
    square = np.where(cells[edges][:, edges] == 1, LEVELS[1], LEVELS[0])
    picture = np.full((height, width), GREY)
    top, left = (height - side) // 2, (width - side) // 2
    picture[top : top + side, left : left + side] = square
    return np.repeat(picture[..., None], 3, axis=2).astype(np.uint8)


def read_picture_time(picture: np.ndarray) -> float:
    """The time in seconds that a square test picture, uint8 (side, side, 3), carries."""
    side = picture.shape[0]
    quarter = side / 4
    code = 0
    for row in range(4):
        for column in range(4):
            centre = picture[
                int((row + 0.3) * quarter) : int((row + 0.7) * quarter) + 1,
                int((column + 0.3) * quarter) : int((column + 0.7) * quarter) + 1,
            ]
            code = code * 2 + int(centre.mean() > sum(LEVELS) / 2)
    return code / 1000


def read_sound_time(waveform: np.ndarray, rate: int, near_s: float, search_s: float = 0.2) -> float:
    """The instant in seconds of the first sample of an excerpt of the chirp, near ``near_s``.

    Found by correlation with the chirp shifted by whole samples.
    """
    reach = round(search_s * rate)
    times = near_s + (np.arange(len(waveform) + 2 * reach) - reach) / rate
    scores = np.correlate(chirp(times), waveform.astype(np.float64), mode="valid")
    return near_s + (int(np.argmax(scores)) - reach) / rate


def frame_times(seconds: float, fps: Fraction | float, *, vfr: bool = False) -> list[Fraction]:
    """Presentation times of the frames of a test clip, at a constant or at an uneven rate."""
    step = 1 / Fraction(fps)
    if not vfr:
        return [i * step for i in range(max(1, round(seconds / step)))]
    times, now, i = [], Fraction(0), 0
    while now < seconds:
        times.append(now)
        now += step * Fraction((1, 3, 2, 5, 1)[i % 5], 2)
        i += 1
    return times


def make_clip(
    path: str | Path | io.BytesIO,
    *,
    seconds: float = 4.0,
    fps: Fraction | float = 25,
    size: tuple[int, int] = (96, 96),
    rate: int = 16_000,
    channels: int = 1,
    with_video: bool = True,
    with_audio: bool = True,
    time_code: bool = True,
    vfr: bool = False,
    rotation: int = 0,
    gop: int = 12,
    b_frames: int = 0,
    faststart: bool = False,
    audio_start_s: float = 0.0,
    audio_end_s: float | None = None,
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    container: str = "mp4",
    video_options: dict[str, str] | None = None,
    pixel_aspect: Fraction | None = None,
    times: Sequence[Fraction] | None = None,
    noise: int = 0,
) -> bytes:
    """Write a clip shown at ``size`` (width, height) and return its bytes.

    ``time_code=False`` writes a moving random texture instead of the time code. ``rotation`` is the display
    matrix in degrees, counter-clockwise. ``audio_start_s`` delays the first sound; the chirp keeps to the
    file's clock. ``noise`` adds that much texture, for a realistic bit rate.
    """
    rng = np.random.default_rng(0)
    width, height = size
    # FFmpeg moves the index to the front by reading the file back, which needs a real one.
    folder = tempfile.TemporaryDirectory()
    options = {"movflags": "faststart"} if faststart else {}
    output = av.open(f"{folder.name}/clip", "w", format=container, options=options)
    picture_stream: Any = None
    sound_stream: Any = None
    if with_video:
        rate_of_stream = Fraction(fps).limit_denominator(100_000)
        picture_stream = output.add_stream(video_codec, rate=rate_of_stream)
        stored = size if rotation % 180 == 0 else size[::-1]
        picture_stream.width, picture_stream.height = stored
        picture_stream.pix_fmt = "yuvj420p" if video_codec == "mjpeg" else "yuv420p"
        picture_stream.codec_context.gop_size = gop
        picture_stream.codec_context.max_b_frames = b_frames
        picture_stream.codec_context.thread_count = 1
        clock = Fraction(1, 90_000) if vfr or times else 1 / rate_of_stream
        picture_stream.codec_context.time_base = clock
        if video_codec == "libx264":
            picture_stream.options = {"preset": "veryfast", "crf": "18"} | (video_options or {})
        if pixel_aspect is not None:
            picture_stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            picture_stream.set_display_rotation(rotation)
    if with_audio:
        sound_stream = output.add_stream(audio_codec, rate=rate)
        sound_stream.codec_context.layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
        sound_stream.codec_context.time_base = Fraction(1, rate)
    texture = rng.integers(-noise, noise + 1, (height * 2, width * 2, 3)) if noise else None

    packets = []
    if picture_stream is not None:
        for i, time in enumerate(times or frame_times(seconds, fps, vfr=vfr)):
            if time_code:
                image = time_code_picture(float(time), width, height)
            else:
                image = np.roll(rng.integers(0, 256, (height, width, 3)), i, axis=1).astype(np.uint8)
            if texture is not None:
                shift = (3 * i) % height
                image = np.clip(image + texture[shift : shift + height, :width], 0, 255).astype(np.uint8)
            # Stored turned back, so that it is upright when shown turned by ``rotation``.
            image = np.ascontiguousarray(np.rot90(image, -rotation // 90))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base = clock
            frame.pts = round(time / clock)
            packets += picture_stream.encode(frame)
        packets += picture_stream.encode(None)
    if sound_stream is not None:
        packets += _encode_sound(
            sound_stream, rate, channels, audio_start_s, seconds if audio_end_s is None else audio_end_s
        )
    for packet in sorted(packets, key=lambda p: float(p.dts * p.time_base)):
        output.mux(packet)
    output.close()
    data = Path(folder.name, "clip").read_bytes()
    folder.cleanup()
    if isinstance(path, (str, Path)):
        Path(path).write_bytes(data)
    else:
        path.write(data)
    return data


def _encode_sound(stream: Any, rate: int, channels: int, start_s: float, end_s: float) -> list[Any]:
    first, last = round(start_s * rate), round(end_s * rate)
    samples = chirp(np.arange(first, last) / rate)
    packets = []
    block = stream.codec_context.frame_size or 1024
    kind = stream.codec_context.format.name
    for begin in range(0, len(samples), block):
        part = np.repeat(samples[None, begin : begin + block], channels, axis=0)
        if kind.startswith("s16"):
            part = np.rint(part * 32767).astype(np.int16)
        elif kind.startswith("s32"):
            part = np.rint(part * 2147483647).astype(np.int32)
        else:
            part = part.astype(np.float32)
        if not kind.endswith("p"):
            part = part.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(part), format=kind, layout=stream.codec_context.layout.name
        )
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        frame.pts = first + begin
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def cut_copy(data: bytes, start_s: float) -> bytes:
    """A clip cut without re-encoding: packets before the cut are kept and hidden by an edit list."""
    source = av.open(io.BytesIO(data), format="mp4")
    buffer = io.BytesIO()
    output = av.open(buffer, "w", format="mp4", options={"avoid_negative_ts": "disabled"})
    streams = {s.index: output.add_stream_from_template(s) for s in source.streams}
    for packet in source.demux():
        if packet.dts is None:
            continue
        shift = round(start_s / packet.time_base)
        packet.pts -= shift
        packet.dts -= shift
        packet.stream = streams[packet.stream_index]
        output.mux(packet)
    output.close()
    return buffer.getvalue()
