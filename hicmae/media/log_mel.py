"""Log-mel spectrograms as Kaldi computes them, for a whole batch on any device.

The paper's settings (REFERENCE: mean of the waveform removed; 25 ms Hann windows every 10 ms; DC removal per
window; pre-emphasis 0.97; power spectrum; mel filters from 20 Hz; natural logarithm; no dither).

Shapes: B clips, F frames, M mel bins.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hicmae.config import InputSpec

WINDOW_SECONDS = 0.025
SHIFT_SECONDS = 0.010
PRE_EMPHASIS = 0.97
LOW_HZ = 20.0
# The smallest energy whose logarithm is taken: the spacing of float32 at one, as in Kaldi.
FLOOR = torch.finfo(torch.float32).eps


class LogMel(nn.Module):
    """Waveforms to normalised log-mel spectrograms; the window and the filters are computed once."""

    window: Tensor
    filters: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec
        self.window_samples = int(spec.sample_rate_hz * WINDOW_SECONDS)
        self.shift_samples = int(spec.sample_rate_hz * SHIFT_SECONDS)
        self.fft_samples = 1 << (self.window_samples - 1).bit_length()
        self.register_buffer(
            "window",
            torch.hann_window(self.window_samples, periodic=False, dtype=torch.float32),
            persistent=False,
        )
        self.register_buffer(
            "filters", mel_filters(spec.mel_bins, self.fft_samples, spec.sample_rate_hz), persistent=False
        )

    def forward(self, waveform: Tensor, samples: Tensor | None = None) -> Tensor:
        """Spectrograms, normalised as ``(x - spec.log_mel_mean) / (2 * spec.log_mel_std)``.

        Args:
            waveform: (B, samples), int16 or float in [-1, 1].
            samples: int64 (B,), how many samples of each clip are sound; what follows is padding. ``None``
                takes all for sound. Only frames that lie wholly within the sound are computed; the others are
                0 before normalising, which is how the paper's data ends.

        Returns:
            float32 (B, 1, F, M), cut or padded to ``spec.audio_frames``.

        Raises:
            ValueError: not two dimensions, or integers other than int16.
        """
        if waveform.ndim != 2:
            raise ValueError(f"waveform has shape {tuple(waveform.shape)}; expected (clips, samples)")
        if waveform.dtype == torch.int16:
            waveform = waveform.float() / 32768
        elif not waveform.is_floating_point():
            raise ValueError(f"waveform is {waveform.dtype}; expected int16 or a float within [-1, 1]")
        with torch.autocast(waveform.device.type, enabled=False):
            return self._spectrogram(waveform.float(), samples)

    def _spectrogram(self, waveform: Tensor, samples: Tensor | None) -> Tensor:
        spec = self.spec
        length = waveform.shape[1]
        if samples is None:
            waveform = waveform - waveform.mean(dim=1, keepdim=True)
        else:
            sounding = torch.arange(length, device=waveform.device) < samples[:, None]
            total = (waveform * sounding).sum(dim=1, keepdim=True)
            waveform = (waveform - total / samples.clamp(min=1)[:, None]) * sounding
        # Frames beyond those wanted are never computed.
        reach = (spec.audio_frames - 1) * self.shift_samples + self.window_samples
        waveform = waveform[:, :reach]
        if waveform.shape[1] < self.window_samples:
            energies = waveform.new_zeros(len(waveform), 0, spec.mel_bins)
        else:
            frames = waveform.unfold(1, self.window_samples, self.shift_samples)  # (B, F, window)
            frames = frames - frames.mean(dim=2, keepdim=True)
            # The first sample of a window is taken to follow itself.
            before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
            frames = (frames - PRE_EMPHASIS * before) * self.window
            power = torch.fft.rfft(frames, n=self.fft_samples).abs().pow(2.0)  # (B, F, fft / 2 + 1)
            energies = (power @ self.filters).clamp(min=FLOOR).log()  # (B, F, M)
        if samples is not None:
            first = torch.arange(energies.shape[1], device=waveform.device) * self.shift_samples
            whole = first + self.window_samples <= samples[:, None]
            energies = torch.where(whole[..., None], energies, 0.0)
        energies = F.pad(energies, (0, 0, 0, spec.audio_frames - energies.shape[1]))
        return ((energies - spec.log_mel_mean) / (2 * spec.log_mel_std)).unsqueeze(1)


def log_mel(waveform: Tensor, spec: InputSpec, samples: Tensor | None = None) -> Tensor:
    """Spectrograms of a batch: see ``LogMel``, which saves building the filters at every call."""
    return LogMel(spec).to(waveform.device)(waveform, samples)


def mel_filters(bins: int, fft_samples: int, sample_rate_hz: int) -> Tensor:
    """Triangular filters, evenly spaced on the mel scale from 20 Hz to half the sample rate.

    Returns:
        float32 (fft_samples / 2 + 1, bins). The last frequency, half the sample rate, weighs nothing.
    """
    low, high = _mel(LOW_HZ), _mel(sample_rate_hz / 2)
    step = (high - low) / (bins + 1)
    number = torch.arange(bins)
    left = low + number * step
    centre = low + (number + 1.0) * step
    right = low + (number + 2.0) * step
    frequency = sample_rate_hz / fft_samples * torch.arange(fft_samples / 2)
    mel = (1127.0 * (1.0 + frequency / 700.0).log()).unsqueeze(1)  # (fft / 2, 1)
    rising, falling = (mel - left) / (centre - left), (right - mel) / (right - centre)
    return F.pad(torch.minimum(rising, falling).clamp(min=0.0), (0, 0, 0, 1))


def _mel(frequency_hz: float) -> float:
    return 1127.0 * math.log(1.0 + frequency_hz / 700.0)
