from __future__ import annotations

import ctypes
import gc
import io
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
import simplejpeg

from hicmae.config import InputSpec
from hicmae.media import encode, picture_writer
from hicmae.media.clip import DecodeError
from hicmae.media.decode import decode_clip, decode_windows, probe
from hicmae.media.encode import EncodedMembers, encode_clip
from hicmae.media.frames_file import read_frames
from hicmae.media.picture_writer import H264Writer
from hicmae.media.span import SpanFrames, _SquaresInOrder
from tests.media_files import cut_copy, make_clip, read_picture_time, read_sound_time

SPEC = InputSpec(image_size=96)
RATE = 16_000


def clip(**options: object) -> bytes:
    return make_clip(io.BytesIO(), **options)  # type: ignore[arg-type]


def stored(data: bytes | None, audio: bytes | None = None, **options: object) -> EncodedMembers:
    options = {"video_format": "h264", "audio_format": "flac", "size": 96} | options
    return encode_clip(data, audio, name="clip7", **options)  # type: ignore[arg-type]


def pictures(members: EncodedMembers) -> tuple[np.ndarray, np.ndarray]:
    """All frames of a stored clip and their times."""
    assert members.video is not None
    if members.video_extension == "frames":
        file = read_frames(members.video, "clip7")
        return np.stack([simplejpeg.decode_jpeg(file.jpeg(i)) for i in range(len(file.times_s))]), file.times_s
    with av.open(io.BytesIO(members.video), format="mp4") as container:
        frames = [(f.to_ndarray(format="rgb24"), float(f.pts * f.time_base)) for f in container.decode(video=0)]
    return np.stack([frame for frame, _ in frames]), np.array([time for _, time in frames])


SHAPES = {
    "constant rate": {"fps": 25},
    "NTSC": {"fps": Fraction(30000, 1001)},
    "variable rate": {"vfr": True},
    "B frames": {"b_frames": 2},
    "turned": {"rotation": 90, "size": (96, 128)},
    "late sound": {"audio_start_s": 0.7},
    "44.1 kHz stereo": {"rate": 44_100, "channels": 2},
    "mkv": {"container": "matroska", "vfr": True},
    "avi": {"container": "avi", "audio_codec": "mp3", "rate": 44_100},
}


@pytest.mark.parametrize(("video_format", "audio_format"), [("h264", "flac"), ("jpeg", "wav")])
@pytest.mark.parametrize("shape", SHAPES)
def test_windows_of_the_stored_clip_are_those_of_the_original(shape: str, video_format: str, audio_format: str) -> None:
    data = clip(**SHAPES[shape])
    members = stored(data, video_format=video_format, audio_format=audio_format)
    places = (0.0, 0.5, 1.0)
    originals = decode_windows(data, spec=SPEC, positions=places, name="before")
    copies = decode_windows(members.video, members.audio, spec=SPEC, positions=places, name="after")
    for before, after in zip(originals, copies, strict=True):
        np.testing.assert_allclose(after.frame_times_s, before.frame_times_s, atol=1e-3)
        for one, other in zip(before.video, after.video, strict=True):
            assert read_picture_time(one) == read_picture_time(other)
        assert (after.has_audio, after.sound_samples) == (before.has_audio, before.sound_samples)
        # The resampler's filter may round differently at the edge of what was decoded; the sound itself is the same.
        assert np.abs(after.waveform.astype(int) - before.waveform).max() <= 2
        assert np.abs(before.waveform.astype(int)).max() > 10_000


@pytest.mark.parametrize("video_format", ["h264", "jpeg"])
@pytest.mark.parametrize("audio_format", ["aac", "flac", "wav"])
def test_span_begins_at_zero_with_picture_and_sound_in_step(video_format: str, audio_format: str) -> None:
    members = stored(clip(seconds=4.0), span_s=(1.0, 3.6), video_format=video_format, audio_format=audio_format)
    frames, times = pictures(members)
    np.testing.assert_allclose(times, np.arange(65) * 0.04, atol=1e-6)
    assert [read_picture_time(frame) for frame in frames] == pytest.approx(list(1.0 + times), abs=0.001)
    assert members.duration_s == pytest.approx(2.6)
    inside = video_format == "h264" and audio_format == "aac"
    assert (members.audio is None) == inside
    sound = decode_clip(None, members.audio or members.video, spec=SPEC, position=0.0, name="sound")
    assert sound.start_s == 0.0
    assert read_sound_time(sound.waveform[1600:24_000], RATE, 1.1) == pytest.approx(1.1, abs=0.0005)
    info = probe(members.audio or members.video or b"", name="sound")
    assert info.duration_s == pytest.approx(2.6, abs=0.07)
    assert (info.audio_rate_hz, info.audio_channels) == (RATE, 1)


def test_a_span_between_two_frames_begins_with_the_next_one() -> None:
    data = clip(seconds=4.0)
    members = stored(data, span_s=(1.01, 3.99))
    frames, times = pictures(members)
    assert read_picture_time(frames[0]) == 1.04
    assert (times[0], members.duration_s) == (0.0, pytest.approx(2.95))
    before = decode_clip(data, spec=SPEC, position=0.0, span_s=(1.01, 3.99), name="before")
    after = decode_clip(members.video, members.audio, spec=SPEC, position=0.0, name="after")
    assert before.start_s == 1.04
    np.testing.assert_array_equal(after.waveform, before.waveform)


def test_uneven_times_are_kept_to_the_tick() -> None:
    times = [Fraction(n, 90_000) for n in (0, 1, 3001, 9000, 9007, 45_000, 250_000)]
    for video_format in ("h264", "jpeg"):
        members = stored(clip(times=times), video_format=video_format, span_s=(0.0, 2.8))
        _, kept = pictures(members)
        np.testing.assert_allclose(kept, [float(time) for time in times], atol=1e-9)
        assert probe(members.video or b"", name="stored").duration_s == pytest.approx(members.duration_s, abs=1e-4)


def test_late_sound_is_preceded_by_zeros_and_early_sound_is_cut() -> None:
    late = stored(clip(audio_start_s=0.7), audio_format="wav")
    waveform = np.frombuffer(late.audio or b"", "<i2", offset=44)
    assert not waveform[: round(0.63 * RATE)].any()  # the codec's priming begins 64 ms ahead
    assert waveform[: round(0.71 * RATE)].any()
    assert read_sound_time(waveform[16_000:32_000], RATE, 1.0) == pytest.approx(1.0, abs=0.0005)
    early = cut_copy(clip(gop=10), 1.0)
    members = stored(early, audio_format="wav")
    frames, _ = pictures(members)
    waveform = np.frombuffer(members.audio or b"", "<i2", offset=44)
    assert read_picture_time(frames[0]) == pytest.approx(1.0, abs=0.001)
    assert read_sound_time(waveform[1600:24_000], RATE, 1.1) == pytest.approx(1.1, abs=0.0005)


def test_sound_past_the_picture_is_kept_for_a_while_and_within_the_span() -> None:
    data = clip(seconds=2.0, audio_end_s=14.0)
    assert len(stored(data, audio_format="wav").audio or b"") == 44 + 2 * 12 * RATE
    assert len(stored(data, audio_format="wav", span_s=(0.5, 3.0)).audio or b"") == 44 + 2 * round(2.48 * RATE)


def test_sound_in_pieces_is_the_same_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    data = clip(seconds=5.0, rate=44_100, channels=2)
    whole = stored(data, audio_format="wav").audio
    monkeypatch.setattr(encode, "_BLOCK_S", 1)
    pieces = stored(data, audio_format="wav").audio
    one, other = (np.frombuffer(wav or b"", "<i2", offset=44).astype(int) for wav in (whole, pieces))
    assert len(one) == len(other)
    assert np.abs(one - other).max() <= 2


def test_clips_without_sound_and_without_picture() -> None:
    silent = stored(clip(with_audio=False), audio_format="aac")
    assert (silent.has_video, silent.has_audio, silent.audio) == (True, False, None)
    late = stored(clip(seconds=4.0, audio_start_s=3.0), span_s=(0.0, 2.0), audio_format="flac")
    assert (late.has_audio, late.audio, late.audio_extension) == (False, None, "")
    blind = stored(None, clip(with_video=False, container="wav", audio_codec="pcm_s16le"), span_s=(1.0, 3.0))
    assert (blind.has_video, blind.video, blind.audio_extension) == (False, None, "flac")
    assert blind.duration_s == pytest.approx(2.0)
    waveform = decode_clip(None, blind.audio, spec=SPEC, position=0.0, name="sound").waveform
    assert read_sound_time(waveform[:30_000], RATE, 1.0) == pytest.approx(1.0, abs=0.0005)


def test_separate_sound_replaces_the_sound_of_the_picture() -> None:
    other = clip(with_video=False, container="wav", audio_codec="pcm_s16le", audio_start_s=0.0, seconds=2.0)
    members = stored(clip(seconds=4.0), other, audio_format="wav")
    assert len(members.audio or b"") == 44 + 2 * 2 * RATE


def test_h264_is_made_for_windows() -> None:
    members = stored(clip(seconds=3.0, b_frames=2), size=256)  # large enough that x264 would take several threads
    with av.open(io.BytesIO(members.video or b""), format="mp4") as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert not stream.codec_context.has_b_frames
        assert stream.codec_context.pix_fmt == "yuv420p"
        # fastdecode: neither CABAC nor the deblocking filter
        for option in (b"cabac=0", b"deblock=0", b" threads=1 ", b"crf=20.0"):
            assert option in (members.video or b"")
    assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == list(range(0, 75, 16))
    assert [packet.pts for packet in packets] == [packet.dts for packet in packets]
    assert sum(packet.duration for packet in packets) * packets[0].time_base == 3


def test_the_same_clip_gives_the_same_bytes() -> None:
    data = clip()
    for video_format, audio_format in (("h264", "aac"), ("jpeg", "flac")):
        one, two = (stored(data, video_format=video_format, audio_format=audio_format) for _ in range(2))
        assert (one.video, one.audio) == (two.video, two.audio)


@pytest.mark.parametrize("video_format", ["h264", "jpeg"])
def test_the_bytes_do_not_depend_on_what_lay_in_memory_before(video_format: str) -> None:
    data = clip(size=(48, 48), rate=8000)
    found = set()
    try:
        for filling in (0, 1, 85, 254):
            # M_PERTURB of the C library: what malloc gives is filled with the complement of this byte
            ctypes.CDLL(None).mallopt(-6, filling)
            members = stored(data, video_format=video_format, audio_format="aac", size=160)
            found.add((members.video, members.audio))
    finally:
        ctypes.CDLL(None).mallopt(-6, 0)
    assert len(found) == 1


@pytest.mark.parametrize(("rotation", "top_left"), [(0, (0, 0)), (90, (0, 144)), (180, (0, 144))])
def test_the_chosen_square_is_stored(rotation: int, top_left: tuple[int, int]) -> None:
    data = clip(seconds=0.4, size=(192, 96), rotation=rotation)
    plain, _ = pictures(stored(data, video_format="jpeg"))
    code, _ = pictures(stored(data, video_format="jpeg", square=(0, 48, 96)))
    beside, _ = pictures(stored(data, video_format="jpeg", square=(*top_left, 48)))
    assert read_picture_time(plain[5]) == read_picture_time(code[5]) == 0.2
    assert np.abs(beside.astype(int) - 96).max() < 6  # grey: the code lies in the central square
    with pytest.raises(DecodeError, match="square_outside"):
        stored(data, square=(0, 100, 96))


def test_memory_does_not_grow_with_the_clip() -> None:
    data = clip(seconds=40.0, with_audio=False)
    tracemalloc.start()
    members = stored(data, video_format="jpeg", size=160)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pictures(members)[1]) == 1000
    assert peak < len(members.video or b"") * 2 + 12e6, "1000 frames of 77 KB would be 77 MB"


class Writer:
    def __init__(self) -> None:
        self.starts = 0

    def begin(self) -> None:
        self.starts += 1
        self.frames: list[int] = []

    def add(self, frame: np.ndarray) -> None:
        self.frames.append(int(frame.mean()))


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64])
@pytest.mark.parametrize("failing", [0, 1, 32, 40])
def test_a_decoder_that_starts_again_gives_every_frame_once(count: int, failing: int) -> None:
    numbers = np.arange(100, 100 + count)
    writer = Writer()
    squares = _SquaresInOrder(numbers, writer, size=8, square=None, aspect=None, name="a")
    for number in (*numbers[:failing], *numbers):
        squares(int(number), np.full((16, 16, 3), number, dtype=np.uint8), 0)
    squares.flush()
    assert writer.frames == numbers.tolist()
    assert writer.starts == (2 if failing else 1)


def test_frames_that_come_without_their_predecessors_wait_for_the_next_attempt() -> None:
    writer = Writer()
    squares = _SquaresInOrder(np.arange(40), writer, size=8, square=None, aspect=None, name="a")
    for number in (2, 3, *range(36), *range(30, 40)):
        squares(number, np.full((16, 16, 3), number, dtype=np.uint8), 0)
    squares.flush()
    assert writer.frames == list(range(40))


def test_damage_and_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = clip()
    with pytest.raises(DecodeError, match=r"clip7.*truncated"):
        stored(data[: len(data) // 2])
    with pytest.raises(DecodeError, match=r"span_outside.*correct"):
        stored(data, span_s=(50.0, 60.0))
    with pytest.raises(DecodeError, match="span_outside"):
        stored(None, clip(with_video=False, container="wav", audio_codec="pcm_s16le"), span_s=(50.0, 60.0))
    with pytest.raises(ValueError, match="clock of the original"):
        stored(data, audio_format="original")
    with pytest.raises(ValueError, match="size=95 must be even"):
        stored(data, size=95)
    with pytest.raises(ValueError, match="neither video nor audio"):
        stored(None)
    monkeypatch.setattr(picture_writer, "MOST_BYTES", 4000)
    for video_format in ("h264", "jpeg"):
        with pytest.raises(DecodeError, match="too_long"):
            stored(data, video_format=video_format)


def _written(*, begun_twice: bool) -> bytes:
    ticks = np.arange(100) * 2560
    span = SpanFrames(numbers=np.arange(100), ticks=ticks, tick=Fraction(1, 12_800), end_ticks=100 * 2560, start_s=0.0,
                      last_s=20.0)  # fmt: skip
    sound = np.random.default_rng(0).normal(0, 3000, 320_000).astype(np.int16)
    frames = np.random.default_rng(1).integers(0, 255, (100, 32, 32, 3), dtype=np.uint8)
    writer = H264Writer(span, size=32, waveform=sound, rate_hz=16_000, name="clip")
    for count in (60, 100) if begun_twice else (100,):
        writer.begin()
        for frame in frames[:count]:
            writer.add(frame)
        gc.collect()  # what is left of the first output must not get into the second
    return writer.finish()


def test_sound_lies_in_the_file_beside_the_pictures_that_it_goes_with() -> None:
    with av.open(io.BytesIO(_written(begun_twice=False))) as media:
        packets = [(packet.pos, float(packet.dts * packet.time_base), packet.stream_index)
                   for packet in media.demux() if packet.size]  # fmt: skip
    times = [time for _, time, _ in sorted(packets)]
    assert {stream for _, _, stream in packets} == {0, 1}
    assert times == sorted(times)


def test_a_clip_that_was_begun_again_is_the_clip_alone() -> None:
    assert _written(begun_twice=True) == _written(begun_twice=False)
