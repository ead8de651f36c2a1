"""Bad input gets a DecodeError that says why and what to do: at once, and never a crash or a wrong picture."""

from __future__ import annotations

import io
import pickle
import random
import sys
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from hicmae.config import InputSpec
from hicmae.media.container import sniff
from hicmae.media.decode import DecodedClip, DecodeError, decode_clip, probe
from hicmae.media.packets import HeldPackets
from hicmae.media.pyav_decoder import decode_frames
from tests.media_files import make_clip, read_picture_time

SPEC = InputSpec(image_size=64)


@lru_cache(maxsize=16)
def _clip(**settings: Any) -> bytes:
    return make_clip(io.BytesIO(), **{"seconds": 3.0, "noise": 8} | settings)


def _decode(data: bytes, **settings: Any) -> DecodedClip:
    return decode_clip(data, spec=SPEC, name="bad.mp4", **settings)


def _reason(data: bytes, **settings: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        _decode(data, **settings)
    message = str(caught.value)
    assert message.startswith("bad.mp4: ")
    assert caught.value.found in message
    assert caught.value.remedy in message
    return caught.value.reason


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"nowhere\.mp4 cannot be read") as caught:
        probe(tmp_path / "nowhere.mp4", name="nowhere")
    assert caught.value.reason == "missing_file"


def test_empty_file() -> None:
    assert _reason(b"") == "empty_file"


@pytest.mark.parametrize(
    "text",
    [
        b"hello, this is no film\n" * 50,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '/etc/hostname'\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        b"<?xml version='1.0'?><MPD></MPD>",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\x00" * 4096,
    ],
    ids=["text", "playlist", "concat script", "session description", "manifest", "picture", "zeros"],
)
def test_other_files_named_mp4_are_never_shown_to_ffmpeg(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "open", lambda *_args, **_kwargs: pytest.fail("FFmpeg was asked to open it"))
    assert _reason(text) == "unknown_format"
    assert _reason(text, decoder="decord") == "unknown_format"


@pytest.mark.parametrize("decoder", ["auto", "decord"])
@pytest.mark.parametrize("faststart", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_truncated_mp4(share: float, faststart: bool, decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Decord crashes on some of these: it must not see them.
    monkeypatch.setitem(sys.modules, "decord", None)
    data = _clip(faststart=faststart)
    assert _reason(data[: int(share * len(data))], decoder=decoder, position=0.0) == "truncated"


def test_mp4_without_its_index() -> None:
    data = _clip()
    moov = data.index(b"moov") - 4
    with pytest.raises(DecodeError, match="'moov'") as caught:
        _decode(data[:moov])
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("gone", ["part of a packet", "a whole packet", "many packets"])
def test_mp4_whose_index_names_packets_beyond_its_end(gone: str) -> None:
    # Every box is whole, so only reading the packets shows that the last ones are not there.
    data = _clip(faststart=True)
    with av.open(io.BytesIO(data), format="mp4") as container:
        last = max((packet for packet in container.demux() if packet.size), key=lambda packet: packet.pos)
    missing = {"part of a packet": 10, "a whole packet": last.size, "many packets": 5000}[gone]
    mdat = data.index(b"mdat") - 4
    size = int.from_bytes(data[mdat : mdat + 4], "big") - missing
    shorter = data[:mdat] + size.to_bytes(4, "big") + data[mdat + 4 : -missing]
    assert _reason(shorter, position=0.0) == "truncated"


@pytest.mark.parametrize(
    "settings",
    [
        dict(container="matroska"),
        dict(container="avi", audio_codec="pcm_s16le"),
        dict(container="wav", audio_codec="pcm_s16le", with_video=False),
    ],
    ids=lambda s: s["container"],
)
def test_other_truncated_files(settings: dict[str, Any]) -> None:
    data = _clip(**settings)
    assert _decode(data).has_audio
    assert _reason(data[: int(0.7 * len(data))]) == "truncated"


def _flipped(data: bytes, seed: int, count: int, begin: int, end: int) -> bytes:
    rng, damaged = random.Random(seed), bytearray(data)
    for _ in range(count):
        damaged[rng.randrange(begin, end)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def test_flipped_bits_in_the_media_are_noticed() -> None:
    data = _clip(b_frames=2, gop=75)
    begin = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    for seed in range(12):
        reason = _reason(_flipped(data, seed, 20, begin, end))
        assert reason in ("corrupt_frames", "corrupt_sound")


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([], "0 of 1 frames were delivered"),
        ([SimpleNamespace(is_corrupt=True, pts=0)], "a frame is damaged"),
    ],
    ids=["a frame that does not come", "a frame that the decoder mended"],
)
def test_a_decoder_that_says_nothing_is_not_believed(frames: list[Any], complaint: str) -> None:
    context = SimpleNamespace(decode=lambda packet: frames if packet else [], flush_buffers=lambda: None, is_open=False)
    packet: Any = SimpleNamespace(pts=0, is_keyframe=True)
    track: Any = SimpleNamespace(
        stream=SimpleNamespace(codec_context=context),
        packets=HeldPackets([packet]),
        pts=np.zeros(1, np.int64),
        kept=np.zeros(1, np.int64),
        counted=False,
    )
    with pytest.raises(DecodeError, match=complaint) as caught:
        decode_frames(track, np.zeros(1, np.int64), lambda *_: pytest.fail("a damaged frame was used"), "bad.mp4")
    assert caught.value.reason == "corrupt_frames"


def test_most_single_flipped_bits_are_noticed() -> None:
    # Some cannot be: a flipped bit of a residual is as good a residual.
    data = _clip(b_frames=2, gop=75, with_audio=False)
    begin, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    noticed = 0
    for seed in range(40):
        try:
            _decode(_flipped(data, seed, 1, begin, end))
        except DecodeError:
            noticed += 1
    assert noticed >= 14


def test_flipped_bits_in_the_index_never_crash() -> None:
    data = _clip(b_frames=2, faststart=True, noise=0)
    begin, end = 8, data.index(b"mdat")
    delivered, reasons = 0, set()
    for seed in range(120):
        try:
            clip = _decode(_flipped(data, seed, 2, begin, end), position=0.0)
        except DecodeError as error:
            reasons.add(error.reason)
            continue
        delivered += 1
        assert clip.video.shape == (16, 64, 64, 3)
    assert "truncated" in reasons
    assert 0 < delivered < 120


def test_damage_after_the_window_is_not_looked_at() -> None:
    # That is: decoding ends with the last frame wanted.
    data = _clip(seconds=6.0, gop=250, with_audio=False)
    moov = data.index(b"moov") - 4
    damaged = data[: moov - 3000] + bytes(3000) + data[moov:]
    clip = _decode(damaged, position=0.0)
    assert read_picture_time(clip.video[-1]) == pytest.approx(2.4, abs=0.001)
    assert _reason(damaged, position=1.0) == "corrupt_frames"


def test_no_video_stream() -> None:
    sound = _clip(with_video=False)
    assert _decode(sound).has_video is False
    assert _reason(sound, require_video=True) == "no_video_stream"


def test_neither_picture_nor_sound() -> None:
    data = _clip(with_audio=False)
    assert _reason(data.replace(b"trak", b"free")) == "no_streams"


def test_cover_art_is_no_film() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as output:
        sound = output.add_stream("mp3", rate=44_100)
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        packets = [*cover.encode(image), *cover.encode(None)]
        for i in range(40):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1152), np.float32), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 44_100, 1152 * i, Fraction(1, 44_100)
            packets += sound.encode(frame)
        packets += sound.encode(None)
        for packet in packets:
            output.mux(packet)
    clip = _decode(buffer.getvalue())
    assert (clip.has_video, clip.has_audio) == (False, True)


def test_absurd_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hicmae.media.container.MAX_PIXELS", 90 * 90)  # the file's frames are 96 x 96
    with pytest.raises(DecodeError, match="over 8100 pixels") as caught:
        _decode(_clip())
    assert caught.value.reason == "too_large"


def test_picture_larger_than_the_index_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hicmae.media.pyav_decoder.MAX_PIXELS", 90 * 90)  # the file's frames are 96 x 96
    assert _reason(_clip()) == "corrupt_frames"


def test_absurd_duration() -> None:
    data = _clip(times=(Fraction(0), Fraction(1, 25), Fraction(13 * 3600)), container="matroska", with_audio=False)
    assert _reason(data) == "too_long"


def test_absurd_number_of_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hicmae.media.container.MAX_PACKETS", 50)
    assert _reason(_clip()) == "too_long"


def test_errors_cross_process_borders() -> None:
    error = DecodeError("clip", "truncated", "found this", "do that")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (copy.name, copy.reason, str(copy)) == ("clip", "truncated", "clip: found this (truncated); do that")


@pytest.mark.parametrize(
    ("settings", "container"),
    [
        (dict(), "mp4"),
        (dict(container="mov"), "mp4"),
        (dict(container="matroska"), "matroska"),
        (dict(container="flv", rate=44_100), "flv"),
        (dict(container="mp3", audio_codec="mp3", with_video=False), "mp3"),
        (dict(container="flac", audio_codec="flac", with_video=False), "flac"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_containers_are_known_by_their_first_bytes(settings: dict[str, Any], container: str) -> None:
    assert sniff(_clip(**settings), "x") == container


def test_mp3_without_tags_is_known_by_its_first_frame() -> None:
    assert sniff(b"\xff\xfb\x90\x64" + bytes(400), "x") == "mp3"
    with pytest.raises(DecodeError):
        sniff(b"\xff\xff\xff\xff" + bytes(400), "x")


@pytest.mark.parametrize(
    "box", [b"tkhd", b"mdia", b"mdhd", b"hdlr", b"minf", b"stbl", b"stsd", b"stts", b"stsc", b"stsz", b"stco"]
)
@pytest.mark.parametrize("track", ["picture", "sound"])
def test_a_track_that_lacks_a_box_is_not_left_out_unseen(box: bytes, track: str) -> None:
    # FFmpeg would give the other track alone.
    data = _clip()
    place = data.index(box, data.index(b"trak") if track == "picture" else data.rindex(b"trak"))
    with pytest.raises(DecodeError, match=f"has no '{box.decode()}'") as caught:
        _decode(data[:place] + b"free" + data[place + 4 :])
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("size", [0, 5, 0x00FFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("box", [b"tkhd", b"mdia", b"stbl", b"stts"])
def test_a_box_that_does_not_fit_into_its_track_is_noticed(box: bytes, size: int) -> None:
    data = _clip()
    place = data.index(box, data.rindex(b"trak")) - 4
    assert _reason(data[:place] + size.to_bytes(4, "big") + data[place + 4 :]) == "unreadable"


def test_a_track_whose_name_is_overwritten_is_not_left_out_unseen() -> None:
    data = _clip()
    place = data.rindex(b"trak")
    assert _reason(data[:place] + bytes(4) + data[place + 4 :]) == "unreadable"
