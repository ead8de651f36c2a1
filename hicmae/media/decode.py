"""Clips from media files: windows of frames, and the sound from the same instants.

``decode_windows``, and ``decode_clip`` for one window, are the one way in which pictures and sound enter the library.
Formats are known by their first bytes. PyAV does the work by default (it measured fastest, and reports damage); decord
is offered for the frames and must give the same ones; JPEG frames and plain WAV need neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hicmae.config import InputSpec
from hicmae.media.clip import ClipSlot, DecodedClip, DecodeError, MediaInfo
from hicmae.media.container import Track, open_media
from hicmae.media.decord_decoder import decode_frames_with_decord
from hicmae.media.frames_file import FramesFile, is_frames_file, read_frames
from hicmae.media.jpeg_decoder import decode_jpegs
from hicmae.media.large_file import MediaData, in_memory, load_media
from hicmae.media.probe import nothing_there, probe, read_media_file
from hicmae.media.pyav_decoder import decode_frames, decode_raw_frames
from hicmae.media.sound import fill_sound
from hicmae.media.square import Square, SquareFrames
from hicmae.media.wav import PlainSound, plain_wav
from hicmae.media.window import Window, choose_window
from hicmae.media.yuv import PixelFormat, check_planar, copy_planes, fill_black, frame_shape

__all__ = [
    "DecodeError",
    "DecodedClip",
    "Decoder",
    "MediaInfo",
    "OpenClip",
    "PixelFormat",
    "decode_clip",
    "decode_windows",
    "load_media",
    "open_clip",
    "probe",
    "read_media_file",
]

Decoder = Literal["auto", "pyav", "decord"]
Picture = Track | FramesFile
Sound = Track | PlainSound


def decode_clip(
    video: MediaData | None,
    audio: MediaData | None = None,
    *,
    spec: InputSpec,
    position: float = 0.5,
    span_s: tuple[float, float] | None = None,
    square: Square | None = None,
    decoder: Decoder = "auto",
    pixels: PixelFormat = "rgb24",
    slot: ClipSlot | None = None,
    name: str,
    require_video: bool = False,
) -> DecodedClip:
    """Decode one window of a clip: ``decode_windows`` with one position."""
    return decode_windows(
        video,
        audio,
        spec=spec,
        positions=(position,),
        span_s=span_s,
        square=square,
        decoder=decoder,
        pixels=pixels,
        slots=None if slot is None else (slot,),
        name=name,
        require_video=require_video,
    )[0]


def decode_windows(
    video: MediaData | None,
    audio: MediaData | None = None,
    *,
    spec: InputSpec,
    positions: Sequence[float],
    span_s: tuple[float, float] | None = None,
    square: Square | None = None,
    decoder: Decoder = "auto",
    pixels: PixelFormat = "rgb24",
    slots: Sequence[ClipSlot] | None = None,
    name: str,
    require_video: bool = False,
    picture: bool = True,
    sound: bool = True,
) -> list[DecodedClip]:
    """Decode windows of a clip: the file is opened once, and a frame that several windows show is decoded once.

    A window starts at ``span start + position * max(0, span length - spec.window_seconds)``, moved back to
    the frame on screen at that instant. Frame ``i`` is the one on screen ``i * spec.frame_interval_s`` later;
    where the clip is too short, its last frame repeats. The sound starts at the same instant and is padded
    with zeros. Frames become squares of ``spec.image_size``, upright.

    Args:
        video: a media file that may hold picture and sound, or a file of JPEG frames (``frames_file``): its bytes, or
            what ``load_media`` makes of a large one.
        audio: a sound file on the same clock, which replaces the sound of ``video``.
        positions: which windows of the clip, each from 0 (earliest) to 1 (latest).
        span_s: use only these seconds (start, end) of the file.
        square: the square (top, left, side) that is cut out, in pixels of the upright picture as displayed; None for
            the largest one in its centre.
        decoder: ``"auto"`` and ``"pyav"`` are PyAV; ``"decord"`` takes the frames from decord.
        pixels: ``"yuv420p"`` gives the planes of frames that are stored as they are shown, without conversion.
        slots: memory to decode into, one slot a window; None allocates.
        name: what errors call this clip.
        require_video: whether a file without a picture is an error.
        picture, sound: whether to decode it; what is not wanted counts as missing, and does not move the windows. A
            file that has nothing else is an error.

    Raises:
        DecodeError: the media cannot be decoded; ``reason`` says why, in a word. Slots hold anything then.
        ValueError: contradictory arguments, or decord wanted but not installed.
    """
    _check(video, audio, span_s, decoder, pixels, name)
    with ExitStack() as stack:
        clip = _open(stack, video, audio, spec, name, span_s=span_s, square=square, decoder=decoder, pixels=pixels)
        if clip.picture is None and (require_video or clip.sound is None or not sound):
            raise nothing_there(name, clip.sound is not None)
        if clip.sound is None and not picture:
            raise DecodeError(
                name, "no_audio_stream", "the file has a picture but no sound", "give a file with sound, or take the "
                "picture too",
            )  # fmt: skip
        return clip.decode(positions, slots=slots, picture=picture, sound=sound)


@contextmanager
def open_clip(
    video: MediaData | None,
    audio: MediaData | None = None,
    *,
    spec: InputSpec,
    span_s: tuple[float, float] | None = None,
    square: Square | None = None,
    name: str,
) -> Iterator[OpenClip]:
    """Open a clip whose windows are decoded a few at a time, as in ``decode_windows``.

    Args:
        video, audio, spec, span_s, square, name: as there.

    Raises:
        DecodeError: the media cannot be read, or hold nothing.
    """
    _check(video, audio, span_s, "auto", "rgb24", name)
    with ExitStack() as stack:
        clip = _open(stack, video, audio, spec, name, span_s=span_s, square=square)
        if clip.picture is None and clip.sound is None:
            raise nothing_there(name, False)
        yield clip


@dataclass(frozen=True, kw_only=True)
class OpenClip:
    """A clip of which windows can be decoded; at least one of ``picture`` and ``sound`` is there."""

    picture: Picture | None
    sound: Sound | None
    spec: InputSpec
    name: str
    span_s: tuple[float, float] | None = None
    square: Square | None = None
    decoder: Decoder = "auto"
    pixels: PixelFormat = "rgb24"
    data: MediaData = b""
    """The media file, for decord alone."""

    @property
    def limits_s(self) -> tuple[float, float]:
        """Where the clip begins and ends, on the file's clock, in seconds: of the picture, or of the sound where there
        is none.

        Raises:
            DecodeError: ``span_outside``.
        """
        if self.picture is not None:
            begin, end = float(self.picture.times_s[0]), self.picture.end_s
        else:
            assert self.sound is not None
            # AAC's priming packet is stamped before the sound begins.
            begin, end = max(0.0, self.sound.begin_s), self.sound.end_s
        low, high = (begin, end) if self.span_s is None else (max(begin, self.span_s[0]), min(end, self.span_s[1]))
        if high <= low:
            raise _outside(self.name, self.span_s, begin, end)
        return low, high

    def decode(
        self,
        positions: Sequence[float],
        *,
        slots: Sequence[ClipSlot] | None = None,
        picture: bool = True,
        sound: bool = True,
    ) -> list[DecodedClip]:
        """Windows of the clip, as ``decode_windows`` gives them.

        Args:
            positions, slots: as there.
            picture, sound: whether to decode it; what is not wanted counts as missing, and does not move the windows.

        Raises:
            DecodeError: damaged picture or sound.
            ValueError: a position outside 0 to 1.
        """
        for position in positions:
            if not 0.0 <= position <= 1.0:
                raise ValueError(f"{self.name}: position={position} must lie within 0 and 1")
        spec = self.spec
        if slots is None:
            frame = frame_shape(spec.image_size, self.pixels)
            slots = [
                ClipSlot(
                    video=np.empty((spec.num_frames, *frame), dtype=np.uint8),
                    waveform=np.empty(spec.audio_samples, dtype=np.int16),
                )
                for _ in positions
            ]
        windows = [self._window(position) for position in positions]
        shown = self.picture if picture else None
        if shown is not None:
            _fill(slots, shown, windows, self.data, self.square, self.decoder, self.pixels, self.name)
        else:
            for slot in slots:
                fill_black(slot.video, self.pixels)
        heard = self.sound if sound else None
        reaches = [_hear(heard, slot, window, spec, self.name) for slot, window in zip(slots, windows, strict=True)]
        return [
            DecodedClip(
                video=slot.video,
                waveform=slot.waveform,
                has_video=shown is not None,
                has_audio=reach > 0,
                start_s=window.start_s,
                frame_times_s=np.full(spec.num_frames, np.nan) if shown is None else shown.times_s[window.frames],
                sound_samples=reach,
            )
            for slot, window, reach in zip(slots, windows, reaches, strict=True)
        ]

    def _window(self, position: float) -> Window:
        begin, finish = self.limits_s
        if self.picture is not None:
            window = choose_window(
                self.picture.times_s, self.picture.end_s, self.spec, position=position, span_s=self.span_s
            )
            assert window is not None  # as the span does not lie outside
            return window
        start_s = begin + position * max(0.0, finish - begin - self.spec.window_seconds)
        return Window(
            start_s=start_s,
            frames=np.zeros(0, dtype=np.int64),
            sound_end_s=None if self.span_s is None else self.span_s[1],
        )


def _check(
    video: MediaData | None,
    audio: MediaData | None,
    span_s: tuple[float, float] | None,
    decoder: Decoder,
    pixels: PixelFormat,
    name: str,
) -> None:
    if video is None and audio is None:
        raise ValueError(f"{name}: neither video nor audio given")
    if span_s is not None and not span_s[0] < span_s[1]:
        raise ValueError(f"{name}: the span {span_s} must start before it ends (seconds)")
    if decoder not in ("auto", "pyav", "decord"):
        raise ValueError(f"unknown decoder {decoder!r}; choose auto, pyav or decord")
    if decoder == "decord" and pixels != "rgb24":
        raise ValueError("decord gives RGB alone; set decoder='auto', or pixels='rgb24'")


def _open(
    stack: ExitStack, video: MediaData | None, audio: MediaData | None, spec: InputSpec, name: str, **settings: Any
) -> OpenClip:
    """Picture and sound; FFmpeg is asked where nothing simpler will do."""
    picture: Picture | None = None
    sound: Sound | None = None
    if video is not None and is_frames_file(video):
        picture = read_frames(in_memory(video), name)
    elif video is not None and (audio is not None or (sound := plain_wav(video, spec.sample_rate_hz, name)) is None):
        media = stack.enter_context(open_media(video, name, sound=audio is None))
        picture, sound = media.picture, media.sound
    if audio is not None:
        sound = plain_wav(audio, spec.sample_rate_hz, name)
        if sound is None:
            sound = stack.enter_context(open_media(audio, name, picture=False)).sound
        if sound is None:
            # A picture file may be silent; a file given for its sound may not.
            found = f"the sound file beside it ({len(audio)} bytes) holds no sound"
            raise DecodeError(name, "no_audio_stream", found, "give a file with sound, or leave the sound file out")
    return OpenClip(picture=picture, sound=sound, spec=spec, name=name, data=video or b"", **settings)


def _outside(name: str, span_s: tuple[float, float] | None, begin: float, end: float) -> DecodeError:
    return DecodeError(
        name,
        "span_outside",
        f"the span {span_s} lies outside the file, which runs from {begin:.3f} to {end:.3f} s",
        "correct start_s and end_s",
    )


def _fill(
    slots: Sequence[ClipSlot],
    picture: Picture,
    windows: Sequence[Window],
    data: MediaData,
    square: Square | None,
    decoder: Decoder,
    pixels: PixelFormat,
    name: str,
) -> None:
    """Decode each frame of the windows once and write it wherever they show it."""
    rows = [row for slot in slots for row in slot.video]
    numbers = np.concatenate([window.frames for window in windows])
    distinct = np.unique(numbers)
    aspect = None if isinstance(picture, FramesFile) else picture.stream.sample_aspect_ratio
    squares = SquareFrames(rows, numbers, pixel_aspect=aspect, square=square, name=name)
    if pixels == "yuv420p":
        track = check_planar(picture, square, name)
        decode_raw_frames(track, distinct, lambda n, frame: copy_planes(frame, squares.places[n], name), name)
    elif isinstance(picture, FramesFile):
        decode_jpegs(picture, distinct, squares, name)
    elif decoder == "decord":
        decode_frames_with_decord(data, picture, distinct, squares, name)
    else:
        decode_frames(picture, distinct, squares, name)
    squares.flush()


def _hear(sound: Sound | None, slot: ClipSlot, window: Window, spec: InputSpec, name: str) -> int:
    """Fill a slot with the sound of its window; how many samples there are before its end."""
    if sound is None:
        slot.waveform[:] = 0
        return 0
    if isinstance(sound, PlainSound):
        return sound.read(slot.waveform, window.start_s, end_s=window.sound_end_s)
    return fill_sound(sound, slot.waveform, window.start_s, spec.sample_rate_hz, end_s=window.sound_end_s, name=name)
