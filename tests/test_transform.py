"""Downstream users give a path or bytes and get model inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hicmae.config import InputSpec
from hicmae.media.clip import DecodeError
from hicmae.media.decode import decode_clip
from hicmae.media.log_mel import log_mel
from hicmae.transform import ClipTransform
from tests.media_files import make_clip

SPEC = InputSpec(image_size=64)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "film.mp4"
    make_clip(path, size=(80, 64))
    return path


def test_path_text_and_bytes_give_the_same(film: Path) -> None:
    transform = ClipTransform(SPEC)
    first = transform(film)
    assert first["video"] is not None
    assert first["log_mel"] is not None
    assert first["video"].shape == (1, 3, 16, 64, 64)
    assert first["log_mel"].shape == (1, 1, 256, 128)
    assert first["video"].dtype == first["log_mel"].dtype == torch.float32
    for source in (str(film), film.read_bytes()):
        again = transform(source)
        assert torch.equal(again["video"], first["video"])  # type: ignore[arg-type]
        assert torch.equal(again["log_mel"], first["log_mel"])  # type: ignore[arg-type]


def test_holds_what_the_decoder_gives(film: Path) -> None:
    found = ClipTransform(SPEC)(film, position=1.0)
    clip = decode_clip(film.read_bytes(), spec=SPEC, position=1.0, name="x")
    assert clip.sound_samples < SPEC.audio_samples  # the end of the sound is in it
    assert found["video"] is not None
    mean = torch.tensor(SPEC.image_mean).view(3, 1, 1, 1)
    std = torch.tensor(SPEC.image_std).view(3, 1, 1, 1)
    pixels = ((found["video"][0] * std + mean) * 255).round().byte()
    assert torch.equal(pixels.permute(1, 2, 3, 0), torch.from_numpy(clip.video))
    waveform = torch.from_numpy(clip.waveform)[None]
    assert torch.equal(found["log_mel"], log_mel(waveform, SPEC, torch.tensor([clip.sound_samples])))  # type: ignore[arg-type]


def test_missing_modalities_are_none(tmp_path: Path) -> None:
    transform = ClipTransform(SPEC)
    make_clip(tmp_path / "mute.mp4", size=(64, 64), with_audio=False)
    mute = transform(tmp_path / "mute.mp4")
    assert mute["video"] is not None
    assert mute["log_mel"] is None
    make_clip(tmp_path / "voice.wav", with_video=False, container="wav", audio_codec="pcm_s16le")
    voice = transform(tmp_path / "voice.wav")
    assert voice["video"] is None
    assert voice["log_mel"] is not None
    joined = transform(tmp_path / "mute.mp4", audio=tmp_path / "voice.wav")
    assert joined["video"] is not None
    assert joined["log_mel"] is not None


def test_what_the_model_does_not_take_is_left_out(film: Path, tmp_path: Path) -> None:
    both = ClipTransform(SPEC)(film)
    for own, other, name in (("video", "log_mel", "video"), ("audio", "video", "log_mel")):
        found = ClipTransform(SPEC, modalities=[own])(film)
        assert found[other] is None
        assert torch.equal(found[name], both[name])
    make_clip(tmp_path / "mute.mp4", size=(64, 64), with_audio=False)
    with pytest.raises(DecodeError, match=r"mute\.mp4: the file has a picture but not sound, .* with sound alone"):
        ClipTransform(SPEC, modalities=["audio"])(tmp_path / "mute.mp4")
    make_clip(tmp_path / "voice.wav", with_video=False, container="wav", audio_codec="pcm_s16le")
    with pytest.raises(DecodeError, match=r"voice\.wav: the file has sound but not a picture"):
        ClipTransform(SPEC, modalities=["video"])(tmp_path / "voice.wav")


def test_position_and_span_choose_the_window(film: Path) -> None:
    transform = ClipTransform(SPEC)
    early, late, span = transform(film, 0.0), transform(film, 1.0), transform(film, 0.0, span_s=(1.44, 4.0))
    assert not torch.equal(early["video"], late["video"])  # type: ignore[arg-type]
    assert torch.equal(span["video"], late["video"])  # type: ignore[arg-type]


def test_decord(film: Path) -> None:
    pytest.importorskip("decord")
    found = ClipTransform(SPEC, decoder="decord")(film)
    assert torch.equal(found["video"], ClipTransform(SPEC)(film)["video"])  # type: ignore[arg-type]


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"nothing\.mp4"):
        ClipTransform(SPEC)(tmp_path / "nothing.mp4")
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(DecodeError, match=r"text\.mp4"):
        ClipTransform(SPEC)(str(tmp_path / "text.mp4"))
