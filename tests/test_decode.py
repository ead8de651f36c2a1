"""Picture and sound of a window: the right frames, the right instant, whatever the file is like."""

from __future__ import annotations

import io
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from hicmae.config import InputSpec
from hicmae.media.decode import DecodedClip, DecodeError, decode_clip, probe
from hicmae.media.packets import HeldPackets
from hicmae.media.pyav_decoder import _key_before, _stretches
from tests.media_files import cut_copy, make_clip, read_picture_time, read_sound_time

SPEC = InputSpec(image_size=64)


@lru_cache(maxsize=64)
def _clip(**settings: Any) -> bytes:
    return make_clip(io.BytesIO(), **settings)


def _decode(data: bytes | None, audio: bytes | None = None, **settings: Any) -> DecodedClip:
    return decode_clip(data, audio, spec=SPEC, name="clip", **settings)


def _check_picture(clip: DecodedClip, tolerance_s: float = 0.0006) -> None:
    """Every frame shows the instant that it is said to show, and is the one on screen when it is wanted."""
    seen = np.array([read_picture_time(frame) for frame in clip.video])
    np.testing.assert_allclose(seen, clip.frame_times_s, atol=tolerance_s)
    assert clip.frame_times_s[0] == clip.start_s


def _check_sound(clip: DecodedClip, tolerance_s: float = 0.0002) -> None:
    """The first sample sounds at the instant of the first frame: a hundredth of an AAC frame of 64 ms."""
    heard = read_sound_time(clip.waveform[: clip.sound_samples], SPEC.sample_rate_hz, near_s=clip.start_s)
    assert abs(heard - clip.start_s) <= tolerance_s


FILES: dict[str, dict[str, Any]] = {
    "25 fps": {},
    "29.97 fps": dict(fps=Fraction(30000, 1001)),
    "30 fps": dict(fps=30),
    "50 fps": dict(fps=50),
    "24 fps": dict(fps=24),
    "12.5 fps": dict(fps=12.5),
    "uneven rate": dict(vfr=True),
    "B-frames, long GOP": dict(b_frames=3, gop=250),
    "uneven rate, B-frames": dict(vfr=True, b_frames=2, gop=40),
    "open GOP": dict(b_frames=3, gop=20, video_options=(("x264-params", "open-gop=1"),)),
    "fast start": dict(faststart=True),
    "48 kHz stereo": dict(rate=48_000, channels=2),
    "44.1 kHz stereo": dict(rate=44_100, channels=2),
    "44.1 kHz mono": dict(rate=44_100),
    "48 kHz 5.1": dict(rate=48_000, channels=6),
    "upright": dict(size=(80, 128)),
    "lying": dict(size=(160, 90)),
    "odd size": dict(size=(130, 98)),
    "turned 90": dict(size=(96, 160), rotation=90),
    "turned -90": dict(rotation=-90),
    "turned 180": dict(rotation=180),
    "sound starts late": dict(audio_start_s=0.7),
    "picture starts late": dict(times=tuple(Fraction(1, 2) + Fraction(i, 25) for i in range(90))),
    "mov": dict(container="mov"),
    "matroska": dict(container="matroska", b_frames=2),
}


def _file(name: str) -> bytes:
    settings = dict(FILES[name])
    if "video_options" in settings:
        return make_clip(io.BytesIO(), **settings | {"video_options": dict(settings["video_options"])})
    return _clip(**settings)


@pytest.mark.parametrize("name", FILES)
def test_picture_and_sound_come_from_the_same_instant(name: str) -> None:
    data = _file(name)
    info = probe(data, name=name)
    for position in (0.0, 0.4, 1.0):
        clip = _decode(data, position=position)
        assert clip.has_video
        assert clip.has_audio
        assert clip.video.shape == (16, 64, 64, 3)
        assert clip.waveform.shape == (41_600,)
        _check_picture(clip)
        _check_sound(clip)
        wanted = clip.start_s + np.arange(16) * SPEC.frame_interval_s
        late = wanted - clip.frame_times_s
        # On screen: not before its time (by more than rounding), and not after the next frame is due.
        assert late.min() >= -0.0021
        assert late.max() <= (0.062 if "uneven" in name else 1 / info.fps) + 1e-6
    assert clip.start_s == pytest.approx(info.duration_s - SPEC.window_seconds + _first(name), abs=0.061)


def _first(name: str) -> float:
    return 0.5 if name == "picture starts late" else 0.0


@pytest.mark.parametrize("name", [name for name in FILES if name != "open GOP"])
def test_decord_gives_the_very_same_frames(name: str) -> None:
    pytest.importorskip("decord")
    data = _file(name)
    for position in (0.0, 0.77):
        ours, theirs = (_decode(data, position=position, decoder=decoder) for decoder in ("pyav", "decord"))
        np.testing.assert_array_equal(ours.frame_times_s, theirs.frame_times_s)
        np.testing.assert_array_equal(ours.waveform, theirs.waveform)
        np.testing.assert_array_equal(ours.video, theirs.video)


def test_decord_is_not_trusted_with_open_groups_of_pictures() -> None:
    pytest.importorskip("decord")
    with pytest.raises(DecodeError, match="groups of pictures are open") as caught:
        _decode(_file("open GOP"), decoder="decord")
    assert caught.value.reason == "decord_unsupported"


def test_four_frames_at_25_fps_are_one_step() -> None:
    clip = _decode(_clip(), position=0.0)
    np.testing.assert_allclose(clip.frame_times_s, np.arange(16) * 0.16, atol=1e-9)


def test_positions_span_the_clip() -> None:
    data = _clip()  # 4 s, window 2.56 s
    starts = [_decode(data, position=position).start_s for position in (0.0, 0.5, 1.0)]
    assert starts == pytest.approx([0.0, 0.72, 1.44])


def test_span_limits_picture_and_sound() -> None:
    data = _clip(seconds=6.0)
    clip = _decode(data, position=0.0, span_s=(1.0, 5.0))
    assert clip.start_s == pytest.approx(1.0)
    assert _decode(data, position=1.0, span_s=(1.0, 5.0)).start_s == pytest.approx(2.44)
    _check_picture(clip)
    _check_sound(clip)
    short = _decode(data, span_s=(1.0, 2.0))
    assert short.frame_times_s.max() == pytest.approx(1.96)
    assert short.sound_samples == 16_000
    assert not short.waveform[16_000:].any()
    tiny = _decode(data, span_s=(1.01, 1.03))
    assert set(tiny.frame_times_s) == {1.0}


def test_span_outside_the_file() -> None:
    with pytest.raises(DecodeError, match=r"runs from 0\.000 to 4\.000 s") as caught:
        _decode(_clip(), span_s=(10.0, 12.0))
    assert caught.value.reason == "span_outside"


def test_short_clips_repeat_their_last_frame() -> None:
    clip = _decode(_clip(seconds=1.0), position=0.6)
    assert clip.start_s == 0.0
    np.testing.assert_allclose(clip.frame_times_s, np.minimum(np.arange(16) * 0.16, 0.96), atol=1e-9)
    assert np.array_equal(clip.video[7], clip.video[15])
    assert 16_000 <= clip.sound_samples <= 16_000 + 1024
    assert not clip.waveform[clip.sound_samples :].any()
    _check_sound(clip)


def test_one_frame() -> None:
    clip = _decode(_clip(seconds=0.04, with_audio=False))
    assert probe(_clip(seconds=0.04, with_audio=False), name="x").duration_s == pytest.approx(0.04)
    assert clip.has_video
    assert all(np.array_equal(frame, clip.video[0]) for frame in clip.video)
    assert clip.video.any()


def test_silent_file() -> None:
    data = _clip(with_audio=False)
    clip = _decode(data)
    assert (clip.has_video, clip.has_audio, clip.sound_samples) == (True, False, 0)
    assert not clip.waveform.any()
    assert not probe(data, name="x").has_audio


@pytest.mark.parametrize(
    "settings",
    [
        dict(container="mp4"),
        dict(container="wav", audio_codec="pcm_s16le", rate=48_000, channels=2),
        dict(container="wav", audio_codec="pcm_s16le"),
        dict(container="flac", audio_codec="flac", rate=44_100),
        dict(container="ogg", audio_codec="libopus", rate=48_000),
    ],
    ids=lambda s: f"{s['container']} {s.get('rate', 16_000)}",
)
def test_sound_alone_and_beside_a_picture(settings: dict[str, Any]) -> None:
    sound = _clip(with_video=False, **settings)
    for alone in (_decode(sound, position=0.3), _decode(None, sound, position=0.3)):
        assert (alone.has_video, alone.has_audio) == (False, True)
        assert not alone.video.any()
        assert np.isnan(alone.frame_times_s).all()
        assert alone.start_s == pytest.approx(0.3 * (4.0 - 2.56), abs=0.01)
        _check_sound(alone)
    both = _decode(_clip(with_audio=False), sound, position=0.3)
    _check_picture(both)
    _check_sound(both)


def test_separate_sound_replaces_the_films() -> None:
    film = _clip(audio_end_s=0.5)
    sound = _clip(with_video=False, container="wav", audio_codec="pcm_s16le")
    assert _decode(film, position=1.0).has_audio is False
    clip = _decode(film, sound, position=1.0)
    assert clip.has_audio
    _check_sound(clip)


def test_mp3_keeps_time_but_for_its_encoders_delay() -> None:
    # The encoder's 1105 samples at 44.1 kHz stay: the file has no header that tells of them.
    clip = _decode(_clip(with_video=False, container="mp3", audio_codec="mp3", rate=44_100), position=0.5)
    heard = read_sound_time(clip.waveform[: clip.sound_samples], 16_000, near_s=clip.start_s)
    assert abs(heard - clip.start_s) < 0.027


def test_sound_that_starts_late_or_ends_early_is_padded_with_zeros() -> None:
    late = _decode(_clip(audio_start_s=0.7), position=0.0)
    begin = round(0.7 * 16_000)
    # The encoder's first block rings a little ahead of the sound.
    assert not late.waveform[: begin - 1100].any()
    assert np.abs(late.waveform[begin : begin + 400]).max() > 5000
    early = _decode(_clip(audio_end_s=1.0), position=0.0)
    assert 16_000 <= early.sound_samples <= 16_000 + 1024
    assert not early.waveform[early.sound_samples :].any()
    past = _decode(_clip(audio_end_s=1.0), position=1.0)
    assert not past.has_audio
    assert probe(_clip(audio_end_s=1.0), name="x").has_audio


def test_level_of_the_sound_is_kept() -> None:
    for settings in (dict(), dict(rate=48_000), dict(rate=44_100, channels=2)):
        clip = _decode(_clip(**settings), position=0.5)
        assert np.percentile(np.abs(clip.waveform.astype(int)), 99) == pytest.approx(0.5 * 32768, rel=0.04)


@pytest.mark.parametrize(
    ("settings", "tolerance"), [(dict(), 0), (dict(rate=44_100), 4), (dict(rate=48_000, channels=2), 4)], ids=str
)
def test_sound_from_the_middle_is_that_of_the_whole(settings: dict[str, Any], tolerance: int) -> None:
    # A codec leans on packets before the one wanted: decoding must begin early enough.
    data = _clip(**settings)
    whole = decode_clip(data, spec=SPEC.with_(audio_seconds=4.2), position=0.0, name="x").waveform.astype(int)
    for position in np.linspace(0, 1, 9):
        clip = _decode(data, position=float(position))
        first = round(clip.start_s * 16_000)
        length = clip.sound_samples - 1100  # the end of the file is the end of a filter, too
        difference = np.abs(clip.waveform[:length].astype(int) - whole[first : first + length])
        assert difference.max() <= tolerance


def test_a_hole_in_the_sound_stays_where_it_is() -> None:
    source = av.open(io.BytesIO(_clip(container="matroska")), format="matroska")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        streams = [output.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.dts is None or (packet.stream.type == "audio" and 1.0 <= packet.pts * packet.time_base < 1.5):
                continue
            packet.stream = streams[packet.stream_index]
            output.mux(packet)
    clip = _decode(buffer.getvalue(), position=0.0)
    assert not clip.waveform[round(1.1 * 16_000) : round(1.45 * 16_000)].any()
    after = round(1.7 * 16_000)
    assert read_sound_time(clip.waveform[after:], 16_000, near_s=1.7) == pytest.approx(1.7, abs=0.0006)


@pytest.mark.parametrize("settings", [dict(gop=25), dict(gop=250), dict(gop=250, b_frames=2)], ids=str)
def test_a_cut_without_re_encoding_hides_what_precedes_it(settings: dict[str, Any]) -> None:
    cut = cut_copy(_clip(seconds=6.0, **settings), 1.1)
    for position in (0.0, 0.5, 1.0):
        clip = _decode(cut, position=position)
        shown = np.array([read_picture_time(frame) for frame in clip.video]) - 1.1
        np.testing.assert_allclose(shown, clip.frame_times_s, atol=0.021)  # 1.1 s is not a frame's time
        np.testing.assert_allclose(np.diff(shown), 0.16, atol=1e-6)
        heard = read_sound_time(clip.waveform[: clip.sound_samples], 16_000, near_s=clip.start_s + 1.1)
        assert heard - 1.1 == pytest.approx(clip.start_s, abs=0.0006)
    pytest.importorskip("decord")
    with pytest.raises(DecodeError, match=r"an edit list hides.*set decoder='auto'") as caught:
        _decode(cut, decoder="decord")
    assert caught.value.reason == "decord_unsupported"


@pytest.mark.parametrize(
    "settings",
    [
        dict(b_frames=3, audio_codec="pcm_s16le"),
        dict(b_frames=2, video_codec="mpeg4", audio_codec="pcm_s16le"),
        dict(video_codec="mjpeg", audio_codec="pcm_s16le"),
        dict(b_frames=0, audio_codec="pcm_s16le"),
    ],
    ids=str,
)
def test_avi_whose_frames_carry_no_times(settings: dict[str, Any]) -> None:
    data = _clip(container="avi", **settings)
    for position in (0.0, 0.6, 1.0):
        clip = _decode(data, position=position)
        _check_picture(clip)
        _check_sound(clip)


def test_flash_video_as_crema_d_ships_it() -> None:
    # Its writer moves the clock by the encoder's delay, for picture and sound alike.
    data = _clip(container="flv", rate=44_100)
    for position in (0.0, 0.5):
        clip = _decode(data, position=position)
        seen = read_picture_time(clip.video[0])
        heard = read_sound_time(clip.waveform, 16_000, near_s=clip.start_s)
        assert seen == pytest.approx(heard, abs=0.002)


def test_decoding_starts_at_a_key_frame_presented_before_the_first_wanted() -> None:
    # (presentation time, key?) in decoding order; the frames at 5 and 6 come after the key frame at 7.
    order = [(0, True), (2, False), (1, False), (3, False), (7, True), (5, False), (6, False), (8, False)]
    keys: Any = [SimpleNamespace(is_keyframe=key) for _, key in order]
    track: Any = SimpleNamespace(packets=HeldPackets(keys), pts=np.array([time for time, _ in order]))
    assert [_key_before(track, [4], position) for position in (7, 4, 5, 3)] == [4, 4, 0, 0]
    track.kept = np.argsort(track.pts)
    everything = {1: 1, 5: 4, 7: 6}
    assert _stretches(track, np.array([1, 4, 6])) == [(0, 5, everything)]  # 5 leans on what precedes the key frame
    assert _stretches(track, np.array([1, 7])) == [(0, 2, {1: 1}), (4, 7, {8: 7})]  # packet 3 is left alone


def test_frames_of_the_right_size_are_not_touched() -> None:
    data = _clip(size=(64, 64), time_code=False)
    small = _decode(data, position=0.0)
    whole = decode_clip(data, spec=SPEC.with_(image_size=128), position=0.0, name="x")
    assert np.abs(whole.video[:, 1::2, 1::2].astype(int) - small.video).mean() > 1  # resized: other values
    again = decode_clip(data, spec=SPEC.with_(num_frames=1), position=0.0, name="x")
    np.testing.assert_array_equal(again.video[0], small.video[0])


def test_pixels_that_are_not_square_are_stretched() -> None:
    data = _clip(size=(64, 96), pixel_aspect=Fraction(3, 2))
    info = probe(data, name="x")
    assert (info.width, info.height) == (96, 96)
    # The picture of 64 x 96 is shown as a square, so none of it is cut: its grey bands are there.
    clip = _decode(data, position=0.0)
    assert abs(int(clip.video[0, 2, 32, 0]) - 96) < 8


def test_probe_tells_what_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    make_clip(path, size=(96, 160), rotation=90, rate=44_100, channels=2, fps=30, seconds=2.0)
    info = probe(path, name="clip")
    assert (info.has_video, info.has_audio) == (True, True)
    assert (info.width, info.height) == (96, 160)
    assert info.duration_s == pytest.approx(2.0)
    assert info.fps == pytest.approx(30)
    assert (info.audio_rate_hz, info.audio_channels) == (44_100, 2)
    assert (info.video_codec, info.audio_codec) == ("h264", "aac")


def test_arguments_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="neither video nor audio"):
        _decode(None)
    with pytest.raises(ValueError, match=r"position=1\.5"):
        _decode(_clip(), position=1.5)
    with pytest.raises(ValueError, match="must start before it ends"):
        _decode(_clip(), span_s=(2.0, 1.0))
    with pytest.raises(ValueError, match="choose auto, pyav or decord"):
        _decode(_clip(), decoder="opencv")


def test_decord_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "decord", None)
    with pytest.raises(ValueError, match=r"install hicmae\[decord\], or set decoder='auto'"):
        _decode(_clip(), decoder="decord")
