"""Several windows in one decode, the square that is cut out, and memory that is decoded into."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import simplejpeg

from hicmae.config import InputSpec
from hicmae.media import decode
from hicmae.media.clip import ClipSlot, DecodedClip
from hicmae.media.decode import DecodeError, decode_clip, decode_windows, probe
from hicmae.media.frames_file import pack_frames
from tests.media_files import chirp, make_clip, read_picture_time, time_code_picture

SPEC = InputSpec(image_size=64)


@lru_cache(maxsize=32)
def _clip(**settings: Any) -> bytes:
    return make_clip(io.BytesIO(), **settings)


@lru_cache(maxsize=8)
def _frames(width: int = 64, height: int = 64, count: int = 100) -> bytes:
    """JPEG frames with a time code, 25 a second."""
    times = np.arange(count) / 25
    pictures = [time_code_picture(float(time), width, height) for time in times]
    jpegs = [simplejpeg.encode_jpeg(picture, quality=90, colorsubsampling="420") for picture in pictures]
    return pack_frames(jpegs, times, count / 25, width=width, height=height, name="clip")


@lru_cache(maxsize=8)
def _wav(seconds: float = 4.0, rate: int = 16_000, channels: int = 1) -> bytes:
    """The chirp as Python's own writer stores it."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        samples = np.rint(chirp(np.arange(round(seconds * rate)) / rate) * 32767).astype("<i2")
        file.writeframes(np.repeat(samples, channels).tobytes())
    return buffer.getvalue()


def _assert_same(ours: DecodedClip, theirs: DecodedClip) -> None:
    for name in vars(theirs):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


STORED: dict[str, tuple[dict[str, Any] | bytes, bytes | None]] = {
    "mp4": (dict(size=(96, 80), seconds=7.0), None),
    "B-frames, long GOP": (dict(b_frames=3, gop=250, seconds=7.0), None),
    "short GOP of the right size": (dict(size=(64, 64), gop=16, seconds=7.0), None),
    "open GOP": (dict(b_frames=3, gop=20, seconds=7.0, video_options=(("x264-params", "open-gop=1"),)), None),
    "uneven rate, B-frames": (dict(vfr=True, b_frames=2, gop=40, seconds=7.0), None),
    "every frame a key frame": (dict(gop=1, seconds=7.0), None),
    "AVI with reordered frames": (dict(container="avi", b_frames=3, audio_codec="pcm_s16le"), None),
    "44.1 kHz": (dict(rate=44_100, seconds=7.0), None),
    "sound alone": (dict(with_video=False, container="flac", audio_codec="flac"), None),
    "short": (dict(seconds=1.0), None),
    "frames and wav": (_frames(), _wav()),
    "frames of another size": (_frames(80, 70), None),
}


def _stored(name: str) -> tuple[bytes, bytes | None]:
    video, audio = STORED[name]
    if isinstance(video, bytes):
        return video, audio
    if "video_options" in video:
        return make_clip(io.BytesIO(), **video | {"video_options": dict(video["video_options"])}), audio
    return _clip(**video), audio


@pytest.mark.parametrize("positions", [(0.0, 1.0), (0.9, 0.1, 0.13, 0.9)], ids=str)
@pytest.mark.parametrize("name", STORED)
def test_windows_decoded_together_are_those_decoded_one_by_one(name: str, positions: Sequence[float]) -> None:
    video, audio = _stored(name)
    together = decode_windows(video, audio, spec=SPEC, positions=positions, name="clip")
    for ours, position in zip(together, positions, strict=True):
        _assert_same(ours, decode_clip(video, audio, spec=SPEC, position=position, name="clip"))


def test_a_frame_of_two_windows_is_decoded_once_and_a_file_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, decoded = [], []
    open_media, decode_frames = decode.open_media, decode.decode_frames
    monkeypatch.setattr(decode, "open_media", lambda *a, **k: opened.append(a) or open_media(*a, **k))
    monkeypatch.setattr(decode, "decode_frames", lambda t, n, *a: decoded.append(n) or decode_frames(t, n, *a))
    first, second = decode_windows(_clip(seconds=4.0), spec=SPEC, positions=(0.0, 0.16 / 1.44), name="clip")
    assert second.start_s == pytest.approx(0.16)
    np.testing.assert_array_equal(first.video[1:], second.video[:-1])
    assert len(opened) == len(decoded) == 1
    assert len(decoded[0]) == 17


def test_what_lies_between_distant_windows_is_not_decoded() -> None:
    # Damage in the middle is not met: each window begins at a key frame of its own.
    data = _clip(seconds=12.0, gop=12, noise=8, with_audio=False)
    begin, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    middle = (begin + end) // 2
    damaged = data[: middle - 500] + bytes(1000) + data[middle + 500 :]
    first, last = decode_windows(damaged, spec=SPEC, positions=(0.0, 1.0), name="clip")
    assert read_picture_time(first.video[0]) == 0
    assert read_picture_time(last.video[0]) == pytest.approx(9.44, abs=0.001)
    with pytest.raises(DecodeError):
        decode_windows(damaged, spec=SPEC, positions=(0.0, 0.5, 1.0), name="clip")


def test_slots_are_filled_whole_and_nothing_is_copied() -> None:
    for video, audio in ((_clip(), None), (_clip(with_audio=False), None), (_frames(), _wav(0.5)), (None, _wav())):
        whole = np.full((2, 16, 64, 64, 3), 77, dtype=np.uint8)
        sound = np.full((2, SPEC.audio_samples), 77, dtype=np.int16)
        slots = [ClipSlot(video=whole[i], waveform=sound[i]) for i in range(2)]
        clips = decode_windows(video, audio, spec=SPEC, positions=(0.2, 0.8), slots=slots, name="clip")
        for i, clip in enumerate(clips):
            assert clip.video.base is whole
            assert clip.waveform.base is sound
            _assert_same(clip, decode_clip(video, audio, spec=SPEC, position=(0.2, 0.8)[i], name="clip"))


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_the_square_is_cut_from_the_upright_picture(decoder: Any, rotation: int) -> None:
    if decoder == "decord":
        pytest.importorskip("decord")
    data = _clip(size=(120, 90), rotation=rotation, time_code=False, seconds=3.0)
    spec = SPEC.with_(image_size=90)
    middle = decode_clip(data, spec=spec, position=0.2, decoder=decoder, name="clip").video
    np.testing.assert_array_equal(
        decode_clip(data, spec=spec, position=0.2, square=(0, 15, 90), decoder=decoder, name="clip").video, middle
    )
    part = decode_clip(
        data, spec=spec.with_(image_size=40), position=0.2, square=(11, 27, 40), decoder=decoder, name="clip"
    )
    np.testing.assert_array_equal(part.video, middle[:, 11:51, 12:52])
    resized = decode_clip(data, spec=SPEC, position=0.2, square=(3, 30, 80), decoder=decoder, name="clip").video
    inner = middle[:, 3:83, 15:].astype(int)
    assert abs(resized.mean(axis=(0, 1, 2)) - inner.mean(axis=(0, 1, 2))).max() < 4
    assert resized.shape == (16, 64, 64, 3)


def test_the_square_of_jpeg_frames() -> None:
    whole = decode_clip(_frames(), spec=SPEC, position=0.0, name="clip").video
    part = decode_clip(_frames(), spec=SPEC.with_(image_size=16), position=0.0, square=(48, 16, 16), name="clip").video
    np.testing.assert_array_equal(part, whole[:, 48:, 16:32])


@pytest.mark.parametrize("square", [(0, 0, 91), (1, 0, 90), (0, 31, 90), (-1, 0, 20), (0, -1, 20), (0, 0, 0)], ids=str)
def test_a_square_outside_the_picture(square: tuple[int, int, int]) -> None:
    data = _clip(size=(120, 90), rotation=90, time_code=False, seconds=3.0)
    with pytest.raises(DecodeError, match="120 pixels wide and 90 high") as caught:
        decode_clip(data, spec=SPEC, square=square, name="clip")
    assert caught.value.reason == "square_outside"


def test_jpeg_frames_are_a_picture_like_any_other() -> None:
    for data in (_frames(), _frames(80, 70)):
        for position in (0.0, 0.3, 1.0):
            clip = decode_clip(data, _wav(), spec=SPEC, position=position, name="clip")
            seen = [read_picture_time(frame) for frame in clip.video]
            np.testing.assert_allclose(seen, clip.frame_times_s, atol=0.0006)
            assert clip.start_s == pytest.approx(position * 1.44, abs=0.04)
            assert clip.has_audio
        assert not decode_clip(data, spec=SPEC, name="clip").has_audio
    info = probe(_frames(80, 70), name="clip")
    assert (info.width, info.height, info.fps, info.duration_s) == (80, 70, 25, 4)


def test_damaged_jpeg_frames() -> None:
    data = bytearray(_frames())
    start = len(data) // 2
    data[start : start + 400] = bytes(400)
    with pytest.raises(DecodeError) as caught:
        decode_clip(bytes(data), spec=SPEC.with_(num_frames=100, frame_interval_s=0.04), name="clip")
    assert caught.value.reason == "corrupt_frames"
    # Every frame is a whole JPEG, of which one is of another size.
    jpegs = [simplejpeg.encode_jpeg(np.zeros((s, s, 3), np.uint8)) for s in (64, 48, 80)]
    for i, other in ((1, jpegs[1]), (1, jpegs[2])):
        frames = [jpegs[0], jpegs[0], jpegs[0]]
        frames[i] = other
        file = pack_frames(frames, [0.0, 0.16, 0.32], 0.48, width=64, height=64, name="clip")
        with pytest.raises(DecodeError) as caught:
            decode_clip(file, spec=SPEC, name="clip")
        assert caught.value.reason == "corrupt_frames"


def test_plain_wav_gives_what_ffmpeg_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    positions = (0.0, 0.37, 1.0)
    spans = (None, (0.5, 3.3), (3.0, 9.0))
    cases = [(None, _wav()), (_wav(), None), (_clip(with_audio=False), _wav(1.0)), (_clip(), _wav(4.0))]
    cases.append((_clip(times=None, fps=12.5), _wav(6.0)))
    plain = [decode_windows(*case, spec=SPEC, positions=positions, span_s=s, name="c") for case in cases[:2]
             for s in spans]  # fmt: skip
    plain += [decode_windows(*case, spec=SPEC, positions=positions, name="c") for case in cases[2:]]
    monkeypatch.setattr(decode, "plain_wav", lambda *_: None)
    through = [decode_windows(*case, spec=SPEC, positions=positions, span_s=s, name="c") for case in cases[:2]
               for s in spans]  # fmt: skip
    through += [decode_windows(*case, spec=SPEC, positions=positions, name="c") for case in cases[2:]]
    for ours, theirs in zip(plain, through, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            _assert_same(a, b)


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (_wav(), True),
        (_wav(rate=44_100), False),
        (_wav(channels=2), False),
        (_wav() + b"LIST\x04\0\0\0abcd", False),
        (_wav()[:40] + b"\xff\xff\xff\xff" + _wav()[44:], False),
        (b"fLaC" + bytes(60), False),
    ],
    ids=["plain", "44.1 kHz", "stereo", "with a further chunk", "of unknown length", "no wav"],
)
def test_only_plain_wav_is_read_without_ffmpeg(data: bytes, plain: bool) -> None:
    assert (decode.plain_wav(data, 16_000, "x") is not None) is plain


def test_a_plain_wav_that_was_cut_short() -> None:
    for cut in (_wav()[:-2], _wav()[:1000], _wav()[:44]):
        with pytest.raises(DecodeError) as caught:
            decode_clip(None, cut, spec=SPEC, name="clip")
        assert caught.value.reason == "truncated"
