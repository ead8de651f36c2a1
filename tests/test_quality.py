from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from hicmae.media.encode import EncodedMembers, encode_clip
from hicmae.media.quality import MOST_DB, ClipQuality, measure_quality, psnr_db, snr_db
from tests.media_files import make_clip

SPAN = (0.5, 2.5)


@pytest.fixture(scope="module")
def original() -> bytes:
    return make_clip(io.BytesIO(), size=(160, 120), noise=30)


def stored(data: bytes, video_format: str, audio_format: str, **options: object) -> EncodedMembers:
    return encode_clip(
        data, span_s=SPAN, video_format=video_format, audio_format=audio_format, size=96, name="a", **options
    )  # type: ignore[arg-type,call-overload]


def measure(data: bytes, members: EncodedMembers, **options: object) -> ClipQuality:
    return measure_quality(data, None, members, **({"span_s": SPAN, "size": 96, "square": None, "name": "a"} | options))  # type: ignore[arg-type]


def test_ratios_are_those_of_their_definition() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(50, 200, (3, 8, 8, 3), dtype=np.uint8)
    assert psnr_db(frames, frames) == MOST_DB
    assert psnr_db(frames, frames + np.uint8(10)) == pytest.approx(20 * np.log10(25.5))
    only_blue = frames.copy()
    only_blue[..., 2] += 10
    assert psnr_db(frames, only_blue) == pytest.approx(20 * np.log10(25.5 / 0.114))
    sound = np.array([100, -100, 100, -100], dtype=np.int16)
    assert snr_db(sound, sound) == MOST_DB
    assert snr_db(sound, (sound * 0.9).astype(np.int16)) == pytest.approx(20)
    assert snr_db(np.zeros(4, np.int16), sound) is None
    loud = np.full(4, 32767, np.int16)
    assert snr_db(loud, -loud) == pytest.approx(-6.02, abs=0.01)  # no overflow


@pytest.mark.parametrize("video_format", ["h264", "jpeg"])
def test_stored_pictures_are_close_to_their_squares(original: bytes, video_format: str) -> None:
    square = (0, 30, 100)
    members = stored(original, video_format, "flac", square=square)
    good = measure(original, members, square=square)
    assert good.luma_psnr_db is not None
    assert 33 < good.luma_psnr_db < 60
    assert good.sound_snr_db == pytest.approx(MOST_DB, abs=40)  # FLAC keeps every bit but those of resampling
    # The same frames against another square, or against frames of another time, are far off.
    assert (measure(original, members).luma_psnr_db or 0) < good.luma_psnr_db - 5
    assert (measure(original, members, square=square, span_s=(0.54, 2.54)).luma_psnr_db or 0) < 30


def test_lossy_sound_is_measured(original: bytes) -> None:
    snr = measure(original, stored(original, "h264", "aac")).sound_snr_db
    assert snr is not None
    assert 20 < snr < 60


def test_stronger_compression_measures_worse(original: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from hicmae.media import picture_writer

    fine = measure(original, stored(original, "jpeg", "wav")).luma_psnr_db
    monkeypatch.setattr(picture_writer, "JPEG_QUALITY", 30)
    coarse = measure(original, stored(original, "jpeg", "wav")).luma_psnr_db
    assert fine is not None
    assert coarse is not None
    assert coarse < fine - 3


def test_what_is_not_there_is_not_measured(original: bytes) -> None:
    silent = make_clip(io.BytesIO(), with_audio=False)
    assert measure(silent, stored(silent, "h264", "aac")).sound_snr_db is None
    members = stored(original, "h264", "flac")
    assert measure(original, replace(members, video=None)).luma_psnr_db is None
