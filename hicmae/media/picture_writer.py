"""Squares into bytes made for training: H.264 that decodes fast, in an mp4 with its sound, or JPEGs."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt
import simplejpeg

from hicmae.media.clip import DecodeError
from hicmae.media.frames_file import pack_frames
from hicmae.media.sound_writer import add_sound_stream, encode_waveform
from hicmae.media.span import SpanFrames

H264_OPTIONS = {
    "preset": "veryfast",
    "crf": "20",
    "g": "16",
    "bf": "0",
    "sc_threshold": "0",
    "tune": "fastdecode",
    # Its faster look-ahead reads memory that it never wrote: the same frames now and then gave other bytes.
    "x264-params": "cpu-independent=1",
}
"""Any frame is at most 15 frames from a key frame, frames come out in the order they went in, and the costly tools of
the format (CABAC, deblocking, weighted prediction) are not used."""
JPEG_QUALITY = 90
JPEG_SUBSAMPLING = "420"
SETTINGS: dict[str, dict[str, Any]] = {
    "h264": dict(H264_OPTIONS),
    "jpeg": {"quality": JPEG_QUALITY, "subsampling": JPEG_SUBSAMPLING},
}
"""How pictures are encoded, by format: what decides their bytes besides the frames."""
MOST_BYTES = 2**31
"""Largest file that is written for a clip; shards take no larger member."""


class H264Writer:
    """Squares to an mp4 with H.264 and, where there is sound, AAC: presentation times are kept."""

    extension = "mp4"

    def __init__(self, span: SpanFrames, *, size: int, waveform: npt.NDArray[np.int16] | None, rate_hz: int,
                 name: str, options: Mapping[str, str] = H264_OPTIONS,
                 file: BinaryIO | None = None) -> None:  # fmt: skip
        """Args:
        span: the frames to come.
        size: side of the squares, even.
        waveform: int16 (samples,), sound from the first frame on; None for none.
        rate_hz: its sample rate.
        name: what errors call this clip.
        options: of the encoder; frames must come out in the order they go in.
        file: where the mp4 goes, from its begin on; None keeps it in memory.
        """
        self._file = io.BytesIO() if file is None else file
        self._output: Any = None
        self.span, self.size, self.waveform, self.rate_hz, self.name = span, size, waveform, rate_hz, name
        self._options = dict(options)
        self._durations = np.diff(span.ticks, append=span.end_ticks).tolist()

    def begin(self) -> None:
        """Start, or start again."""
        if self._output is not None:
            self._output.close()  # now, and not whenever it is collected: it still has its end to write
        self._file.seek(0)
        self._file.truncate()
        self._output = av.open(self._file, "w", format="mp4")
        rate = Fraction(len(self.span.ticks) / self.span.end_s).limit_denominator(1001)
        stream = self._output.add_stream("libx264", rate=max(Fraction(1), rate), options=self._options)
        stream.width = stream.height = self.size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = self.span.tick
        context.thread_count = 1  # the same bytes on every machine; clips are encoded side by side
        self._stream = stream
        self._sound: deque[Any] = deque()
        if self.waveform is not None:
            # Sound is small, so all of it waits for its place between the pictures, which then need not wait.
            sound = add_sound_stream(self._output, "aac", self.rate_hz)
            self._sound.extend(encode_waveform(sound, self.waveform, self.rate_hz))
        self._bytes = self._taken = self._written = 0

    def add(self, frame: npt.NDArray[np.uint8]) -> None:
        """Take the next square, RGB uint8 (size, size, 3)."""
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.time_base = self.span.tick
        picture.pts = int(self.span.ticks[self._taken])
        self._taken += 1
        self._write(self._stream.encode(picture))

    def finish(self) -> bytes:
        """The mp4, which was kept in memory."""
        self.close()
        assert isinstance(self._file, io.BytesIO), "the mp4 went into a file"
        return self._file.getvalue()

    def close(self) -> None:
        """Write what is still to be written."""
        assert self._output is not None
        self._write(self._stream.encode(None))
        assert self._written == len(self._durations), (self.name, self._written, len(self._durations))
        while self._sound:
            self._output.mux(self._sound.popleft())
        self._output.close()
        self._output = None

    def _write(self, packets: list[Any]) -> None:
        """Into the file as they come, each behind the sound before it."""
        self._bytes = check_size(self._bytes, [packet.size for packet in packets], self.name)
        for packet in packets:
            packet.duration = self._durations[self._written]
            self._written += 1
            time = packet.dts * packet.time_base
            while self._sound and self._sound[0].dts * self._sound[0].time_base < time:
                self._output.mux(self._sound.popleft())
            self._output.mux(packet)


class JpegWriter:
    """Squares to a ``.frames`` file."""

    extension = "frames"

    def __init__(self, span: SpanFrames, *, size: int, name: str) -> None:
        """Args:
        span: the frames to come.
        size: side of the squares.
        name: what errors call this clip.
        """
        self.span, self.size, self.name = span, size, name

    def begin(self) -> None:
        """Start, or start again."""
        self._jpegs: list[bytes] = []
        self._bytes = 0

    def add(self, frame: npt.NDArray[np.uint8]) -> None:
        """Take the next square, RGB uint8 (size, size, 3)."""
        jpeg = simplejpeg.encode_jpeg(
            frame, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling=JPEG_SUBSAMPLING, fastdct=False
        )
        self._jpegs.append(jpeg)
        self._bytes = check_size(self._bytes, [len(jpeg)], self.name)

    def finish(self) -> bytes:
        """The file."""
        return pack_frames(
            self._jpegs, self.span.times_s, self.span.end_s, width=self.size, height=self.size, name=self.name
        )


def check_size(so_far: int, more: list[int], name: str) -> int:
    """Bytes in all; ``DecodeError`` (``too_long``) where they pass ``MOST_BYTES``."""
    total = so_far + sum(more)
    if total > MOST_BYTES:
        raise DecodeError(
            name, "too_long", f"it needs over {MOST_BYTES} bytes stored", "cut it into clips (start_s, end_s)"
        )
    return total
