"""The log-mel is Kaldi's, the paper's and the golden's."""

from __future__ import annotations

import pytest
import torch
import torchaudio
from safetensors.torch import load_file

from hicmae.config import InputSpec
from hicmae.media.log_mel import LogMel, log_mel, mel_filters
from tests.goldens_data import GOLDENS

SPEC = InputSpec()


def _kaldi(waveform: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """One clip (samples,) the plain way; (frames, bins), cut or padded, normalised."""
    waveform = waveform - waveform.mean()
    if len(waveform) < 400:  # torchaudio refuses less than one window
        return torch.full((spec.audio_frames, spec.mel_bins), -spec.log_mel_mean / (2 * spec.log_mel_std))
    found = torchaudio.compliance.kaldi.fbank(
        waveform[None],
        htk_compat=True,
        sample_frequency=spec.sample_rate_hz,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=spec.mel_bins,
        dither=0.0,
        frame_shift=10,
    )[: spec.audio_frames]
    padded = torch.zeros(spec.audio_frames, spec.mel_bins)
    padded[: len(found)] = found
    return (padded - spec.log_mel_mean) / (2 * spec.log_mel_std)


def _voice(clips: int, samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(clips, samples, generator=generator) * 0.1
    return noise * torch.linspace(0.01, 1, samples) + 0.05


def test_golden() -> None:
    golden = load_file(GOLDENS / "log_mel.tensors.safetensors")
    found = log_mel(golden["waveform"], SPEC)
    assert found.shape == (1, 1, 256, 128)
    largest = golden["log_mel"].abs().max()
    worst = (found[0, 0] - golden["log_mel"]).abs().max() / largest
    # The Fourier transform rounds otherwise on processors of another maker (AMD), where the faintest bands tell.
    torchaudios = (_kaldi(golden["waveform"][0], SPEC) - golden["log_mel"]).abs().max() / largest
    assert worst < 2e-6 + torchaudios
    assert torchaudios < 1e-4


@pytest.mark.parametrize("samples", [41_600, 40_960, 16_000, 400, 399])
def test_equals_torchaudio(samples: int) -> None:
    waveform = _voice(3, samples)
    found = log_mel(waveform, SPEC)
    expected = torch.stack([_kaldi(one, SPEC) for one in waveform])[:, None]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_other_sizes() -> None:
    spec = SPEC.with_(sample_rate_hz=8000, mel_bins=40, audio_frames=100)
    waveform = _voice(2, 9000)
    expected = torch.stack([_kaldi(one, spec) for one in waveform])[:, None]
    torch.testing.assert_close(log_mel(waveform, spec), expected, rtol=0, atol=2e-6)


def test_filters_are_kaldis() -> None:
    expected, _ = torchaudio.compliance.kaldi.get_mel_banks(128, 512, 16_000.0, 20.0, 0.0, 100.0, -500.0, 1.0)
    assert torch.equal(mel_filters(128, 512, 16_000)[:-1].T, expected)
    assert not mel_filters(128, 512, 16_000)[-1].any()


def test_int16_is_scaled_to_one() -> None:
    whole = (_voice(2, 8000) * 20_000).to(torch.int16)
    assert torch.equal(log_mel(whole, SPEC), log_mel(whole.float() / 32768, SPEC))


def test_padding_is_zero_before_normalising() -> None:
    sound = _voice(1, 20_000)
    padded = torch.cat([sound, torch.zeros(1, 21_600)], dim=1)
    alone = log_mel(sound, SPEC)
    told = log_mel(padded, SPEC, torch.tensor([20_000]))
    torch.testing.assert_close(told, alone, rtol=0, atol=2e-6)
    assert told[0, 0, -1, 0] == pytest.approx(4.2677393 / (2 * 4.5689974))
    untold = log_mel(padded, SPEC)
    assert untold[0, 0, -1, 0] < 0  # silence, not padding


def test_each_clip_has_its_own_length() -> None:
    sounds = [_voice(1, n)[0] for n in (41_600, 30_000, 0)]
    batch = torch.stack([torch.nn.functional.pad(sound, (0, 41_600 - len(sound))) for sound in sounds])
    found = log_mel(batch, SPEC, torch.tensor([41_600, 30_000, 0]))
    for one, sound in zip(found[:2], sounds[:2], strict=True):
        torch.testing.assert_close(one, log_mel(sound[None], SPEC)[0], rtol=0, atol=2e-6)
    assert found[2].unique().numel() == 1


def test_autocast_does_not_reach_it() -> None:
    waveform = _voice(1, 41_600)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = log_mel(waveform, SPEC)
    assert found.dtype == torch.float32
    assert torch.equal(found, log_mel(waveform, SPEC))


def test_buffers_follow_the_module_but_not_the_checkpoint() -> None:
    module = LogMel(SPEC)
    assert module.state_dict() == {}
    assert {name for name, _ in module.named_buffers()} == {"window", "filters"}


def test_refuses_other_shapes_and_types() -> None:
    with pytest.raises(ValueError, match=r"expected \(clips, samples\)"):
        log_mel(torch.zeros(400), SPEC)
    with pytest.raises(ValueError, match="int16 or a float"):
        log_mel(torch.zeros(1, 400, dtype=torch.int64), SPEC)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu() -> None:
    waveform = _voice(4, 41_600)
    found = log_mel(waveform.cuda(), SPEC).cpu()
    torch.testing.assert_close(found, log_mel(waveform, SPEC), rtol=0, atol=5e-4)
