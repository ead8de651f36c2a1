"""Opening media safely, and reading their packets: once where they fit into memory, else again as they are needed.

FFmpeg is never left to guess the format: some text formats (playlists, concat scripts) open other files and
addresses. The container is recognised here by its first bytes, named to FFmpeg, and checked for completeness,
because FFmpeg reads a file that was cut short without complaint up to the cut.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NoReturn

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from hicmae.media.clip import DecodeError
from hicmae.media.large_file import LargeFile, MediaData
from hicmae.media.mp4_boxes import FETCH_AGAIN, check_boxes, truncated
from hicmae.media.packets import NO_STAMP, HeldPackets, Packets, RereadPackets, real_packets

MAX_PIXELS = 8192 * 4320
"""Largest picture that is decoded; a few bytes can claim a picture that fills the memory."""
MAX_SECONDS = 12 * 3600.0
"""Longest stretch of time that a file may cover."""
MAX_PACKETS = 4_000_000
"""Most packets that are read from a file (about twelve hours of picture and sound)."""
MAX_SAMPLE_RATE_HZ = 384_000
MAX_CHANNELS = 64

_REENCODE = "re-encode it, for example: ffmpeg -i FILE -c:v libx264 -c:a aac NEW.mp4"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp")


def sniff(data: MediaData, name: str) -> str:
    """FFmpeg's name of the container, from the first bytes.

    Raises:
        DecodeError: ``empty_file``, or ``unknown_format`` for anything but mp4/mov/m4a, Matroska/WebM, AVI,
            FLV, WAV, FLAC, Ogg and MP3.
    """
    head = bytes(data[:12])
    if not head:
        raise DecodeError(name, "empty_file", "the file has 0 bytes", FETCH_AGAIN)
    if head[4:8] in _MP4_BOXES:
        return "mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] in (b"AVI ", b"WAVE"):
        return "avi" if head[8:12] == b"AVI " else "wav"
    for magic, container in ((b"FLV\x01", "flv"), (b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3")):
        if head.startswith(magic):
            return container
    # An MP3 without tags starts with a frame: 11 sync bits, layer III, neither bit rate nor sample rate reserved.
    if len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[2] >> 4 != 15 and head[2] & 12 != 12:
        return "mp3"
    raise DecodeError(
        name,
        "unknown_format",
        f"the file does not start like a media file (first bytes: {head[:8]!r})",
        "mp4, mov, m4a, mkv, webm, avi, flv, wav, flac, ogg and mp3 are read; " + _REENCODE,
    )


@dataclass(frozen=True, kw_only=True)
class Track:
    """The packets of one stream, in decoding order."""

    stream: Any
    packets: Packets
    pts: npt.NDArray[np.int64]
    """Presentation time of every packet, in ticks."""
    kept: npt.NDArray[np.int64]
    """Positions of the packets that are presented (edit lists hide some), in order of presentation."""
    tick: Fraction
    """Seconds per tick."""
    times_s: npt.NDArray[np.float64]
    """When each of the kept packets is presented, in seconds, ascending."""
    counted: bool = False
    """Whether ``pts`` does not tell the order of presentation, so that frames must be counted as they come
    out of the decoder (AVI with reordered frames)."""

    @property
    def begin_s(self) -> float:
        """When the first packet is presented, in seconds."""
        return float(self.times_s[0])

    @property
    def end_s(self) -> float:
        """End of the last packet presented, in seconds."""
        seconds = float(self.packets.duration(int(self.kept[-1])) * self.tick)
        if not seconds and len(self.kept) > 1:
            seconds = float(np.median(np.diff(self.times_s)))
        if not seconds and self.stream.type == "video" and self.stream.average_rate:
            seconds = float(1 / self.stream.average_rate)
        return float(self.times_s[-1]) + seconds


@dataclass(frozen=True, kw_only=True)
class Media:
    """An open file with the packets of its picture and of its sound, each None where it has none."""

    name: str
    picture: Track | None
    sound: Track | None


@contextmanager
def open_media(data: MediaData, name: str, *, picture: bool = True, sound: bool = True) -> Iterator[Media]:
    """Open a file and read all packets of the wanted streams in one pass. Those of a ``LargeFile`` are not kept.

    Raises:
        DecodeError: when the file is empty, of no known container, cut short, unreadable, or absurdly large.
    """
    container_name = sniff(data, name)
    if container_name == "mp4":
        check_boxes(data, name)
    elif container_name in ("avi", "wav"):
        _check_riff(data, name)
    elif container_name == "matroska":
        _check_segment(data, name)
    reopen = functools.partial(_open_container, data, container_name, name)
    with ExitStack() as stack:

        def new_packets(stream: int) -> HeldPackets | RereadPackets:
            if not isinstance(data, LargeFile):
                return HeldPackets()
            packets = RereadPackets(reopen, stream, name)
            stack.callback(packets.close)
            return packets

        container = reopen()
        stack.callback(container.close)
        yield _read_packets(container, name, container_name, new_packets, picture=picture, sound=sound)


def _open_container(data: MediaData, container_name: str, name: str) -> InputContainer:
    options = {"max_pixels": str(MAX_PIXELS), "threads": "1"}
    if container_name == "mp4":
        # The index tells all; other containers need a look at the first frames, which costs two milliseconds.
        options |= {"skip_frame": "all", "probesize": "32"}
    try:
        return av.open(
            data.reader() if isinstance(data, LargeFile) else io.BytesIO(data),
            mode="r",
            format=container_name,
            options=options,
            io_open=_refuse_to_open,
            metadata_errors="replace",
        )
    except DecodeError:
        raise
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        raise DecodeError(
            name, "unreadable", f"the {container_name} file cannot be opened: {error}", FETCH_AGAIN
        ) from None


def _refuse_to_open(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError(f"a media file asked to open {url!r}")


def _read_packets(
    container: InputContainer,
    name: str,
    container_name: str,
    new_packets: Callable[[int], HeldPackets | RereadPackets],
    *,
    picture: bool,
    sound: bool,
) -> Media:
    video = _picture_stream(container, name) if picture else None
    audio = _sound_stream(container, name) if sound else None
    wanted = [stream for stream in (video, audio) if stream is not None]
    packets = {stream.index: new_packets(stream.index) for stream in wanted}
    count = 0
    try:
        for packet in real_packets(container, wanted):
            if packet.is_corrupt:
                raise truncated(name, f"packet {len(packets[packet.stream_index])} is incomplete")
            packets[packet.stream_index].append(packet)
            count += 1
            if count > MAX_PACKETS:
                raise DecodeError(name, "too_long", f"more than {MAX_PACKETS} packets", _shorten())
    except av.error.FFmpegError as error:
        raise DecodeError(name, "unreadable", f"its packets cannot be read: {error}", FETCH_AGAIN) from None
    if container_name == "mp4":
        for stream in wanted:
            listed, read = len(stream.index_entries), len(packets[stream.index])
            if read < listed:
                raise truncated(name, f"{read} of {listed} {stream.type} packets are in the file")
    return Media(
        name=name,
        picture=_track(video, packets[video.index], container_name, name) if video is not None else None,
        sound=_track(audio, packets[audio.index], container_name, name) if audio is not None else None,
    )


def _track(stream: VideoStream | AudioStream, packets: Packets, container_name: str, name: str) -> Track | None:
    """None for a stream without a packet to present: a header alone is no picture and no sound."""
    tick = stream.time_base
    shown = packets.shown()
    if not shown or tick is None:
        return None
    # AVI stores one time per packet, in decoding order; FFmpeg's guess at the presentation times comes late.
    avi_picture = container_name == "avi" and stream.type == "video"
    counted = avi_picture and isinstance(stream, VideoStream) and bool(stream.has_b_frames)
    dts = packets.stamps("dts") if avi_picture else None
    pts = packets.stamps("pts") if dts is None or not counted else dts
    if (pts == NO_STAMP).any() or (dts is not None and (dts == NO_STAMP).any()):
        found = f"its {stream.type} packets have no presentation times"
        raise DecodeError(name, "no_timestamps", found, _REENCODE)
    kept = np.array(shown, dtype=np.int64)
    kept = kept[np.argsort(pts[kept], kind="stable")]
    shown_at = pts[kept] if dts is None else dts[kept]
    times_s = shown_at * tick.numerator / tick.denominator
    if times_s[-1] - times_s[0] > MAX_SECONDS:
        found = f"its {stream.type} covers {times_s[-1] - times_s[0]:.0f} s, over {MAX_SECONDS:.0f} s"
        raise DecodeError(name, "too_long", found, _shorten())
    return Track(stream=stream, packets=packets, pts=pts, kept=kept, tick=tick, times_s=times_s, counted=bool(counted))


def _picture_stream(container: InputContainer, name: str) -> VideoStream | None:
    # Cover art is a stream of one picture, which is no film.
    cover = av.stream.Disposition.attached_pic | av.stream.Disposition.still_image
    stream = container.streams.best("video")
    if stream is None or stream.disposition & cover:
        stream = next((s for s in container.streams.video if not s.disposition & cover), None)
    if stream is None:
        return None
    assert isinstance(stream, VideoStream)
    if stream.codec_context is None:
        raise DecodeError(name, "unsupported_codec", "FFmpeg has no decoder for its picture", _REENCODE)
    # FFmpeg reports 0 x 0 for what it was told is too large.
    if not 0 < stream.width * stream.height <= MAX_PIXELS:
        found = f"its frames have no size, or are over {MAX_PIXELS} pixels"
        raise DecodeError(name, "too_large", found, "scale it down: ffmpeg -i FILE -vf scale=-2:720 NEW.mp4")
    return stream


def _sound_stream(container: InputContainer, name: str) -> AudioStream | None:
    stream = container.streams.best("audio")
    if stream is None:
        return None
    assert isinstance(stream, AudioStream)
    if stream.codec_context is None:
        raise DecodeError(name, "unsupported_codec", "FFmpeg has no decoder for its sound", _REENCODE)
    if not 0 < stream.sample_rate <= MAX_SAMPLE_RATE_HZ or not 0 < stream.channels <= MAX_CHANNELS:
        found = f"its sound claims {stream.sample_rate} Hz and {stream.channels} channels"
        raise DecodeError(name, "unreadable", found, _REENCODE)
    return stream


def _check_riff(data: MediaData, name: str) -> None:
    declared = int.from_bytes(data[4:8], "little")
    # Writers that stream leave 0 or the largest number as a placeholder.
    if 0 < declared < 0xFFFFFFFF and declared + 8 > len(data) + 1:
        raise truncated(name, f"{len(data)} bytes of the {declared + 8} that its header declares")


def _check_segment(data: MediaData, name: str) -> None:
    """Matroska: the EBML header is followed by one segment, whose size may be unknown (all ones)."""
    position, known, length = 4, *_ebml_size(data, 4)[1:]
    position = _ebml_size(data, position)[0] + length
    if bytes(data[position : position + 4]) != b"\x18\x53\x80\x67":
        return  # left to FFmpeg, which allows padding here
    position, known, length = _ebml_size(data, position + 4)
    if known and position + length > len(data):
        raise truncated(name, f"{len(data)} bytes of the {position + length} that its header declares")


def _ebml_size(data: MediaData, position: int) -> tuple[int, bool, int]:
    """An EBML variable-length size: (position after it, whether it is known, the size)."""
    first = data[position] if position < len(data) else 0
    if not first:
        return position + 1, False, 0
    width = 9 - first.bit_length()
    value = int.from_bytes(data[position : position + width], "big") & ((1 << (7 * width)) - 1)
    return position + width, value != (1 << (7 * width)) - 1, value


def _shorten() -> str:
    return "cut it into clips first (ffmpeg -ss START -t SECONDS -i FILE ...)"
