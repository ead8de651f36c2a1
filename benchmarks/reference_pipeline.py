"""The reference's data pipeline, re-created from its description, and ours that gives the same tensors.

Facts (see docs/benchmarks/data.md): decord opens the film by its path and hands out 16 frames, every fourth from a
random start; each is cut to rows 0..160, columns 32..192 and becomes a PIL image, which is cropped and resized to
160 x 160 with a bilinear filter; the images are joined, made float, divided by 255 and normalised. Of a WAV file, the
time of these frames and of four more is read; its mean is removed, it is scaled by the gain, and Kaldi's log-mel
spectrogram is cut or padded to 256 rows and normalised.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchaudio.compliance import kaldi
from torchvision.transforms.v2 import functional as TF

from benchmarks.voxceleb_like import FRAMES_PER_SECOND, SAMPLE_RATE_HZ, SQUARE, Original
from hicmae.config import InputSpec
from hicmae.media.decode import decode_clip
from hicmae.media.log_mel import LogMel

STRIDE = 4


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What is random about a clip: both pipelines get the same."""

    start: int
    """First frame."""
    box: tuple[int, int, int, int]
    """Top, left, height, width of the crop."""
    gain: float


def draw(rng: np.random.Generator, clip: Original, spec: InputSpec) -> Draw:
    """A random window, one of the crops, and a gain."""
    sides = [int(spec.image_size * scale) for scale in (1, 0.875, 0.75, 0.66)]
    first = int(rng.integers(len(sides)))
    second = int(np.clip(first + rng.integers(-1, 2), 0, len(sides) - 1))
    height, width = sides[first], sides[second]
    return Draw(
        start=int(rng.integers(clip.frames - spec.num_frames * STRIDE + 1)),
        box=((spec.image_size - height) // 2, (spec.image_size - width) // 4, height, width),
        gain=float(rng.beta(10, 10) + 0.5),
    )


def reference_clip(clip: Original, drawn: Draw, spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Video, float32 (3, T, S, S), and log-mel, float32 (1, frames, bins), as the reference makes them."""
    import decord

    reader = decord.VideoReader(str(clip.video), num_threads=1)
    numbers = [drawn.start + STRIDE * i for i in range(spec.num_frames)]
    pictures = reader.get_batch(numbers).asnumpy()
    top, left, side = SQUARE
    y, x, height, width = drawn.box
    size = (spec.image_size, spec.image_size)
    images = []
    for picture in pictures:
        image = Image.fromarray(picture[top : top + side, left : left + side])
        images.append(image.crop((x, y, x + width, y + height)).resize(size, Image.Resampling.BILINEAR))
    stacked = np.concatenate([np.asarray(image) for image in images], axis=2)  # (S, S, T * 3)
    video = torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255.0)
    for channel, mean, std in zip(video, spec.image_mean * spec.num_frames, spec.image_std * spec.num_frames,
                                  strict=True):  # fmt: skip
        channel.sub_(mean).div_(std)
    video = video.view(spec.num_frames, 3, *size).transpose(0, 1)

    last = min(numbers[-1] + STRIDE, len(reader) - 1)
    begin_s, end_s = reader.get_frame_timestamp(numbers[0])[0], reader.get_frame_timestamp(last)[1]
    with wave.open(str(clip.sound), "rb") as file:
        file.setpos(round(float(begin_s) * SAMPLE_RATE_HZ))
        samples = round(float(end_s - begin_s) * SAMPLE_RATE_HZ)
        sound = np.frombuffer(file.readframes(samples), np.int16).astype(np.float32) / 32768
    waveform = torch.from_numpy((sound - sound.mean())[None] * np.float32(drawn.gain))
    energies = kaldi.fbank(
        waveform, htk_compat=True, sample_frequency=SAMPLE_RATE_HZ, use_energy=False, window_type="hanning",
        num_mel_bins=spec.mel_bins, dither=0.0, frame_shift=10,
    )  # fmt: skip
    energies = torch.nn.functional.pad(energies, (0, 0, 0, max(0, spec.audio_frames - len(energies))))
    log_mel = (energies[: spec.audio_frames] - spec.log_mel_mean) / (spec.log_mel_std * 2)
    return video, log_mel[None]


class SameTensors:
    """Ours, from the same original film and WAV file: the video bit for bit, the log-mel within ``LOG_MEL_BOUND``."""

    LOG_MEL_BOUND = 1e-4

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self.log_mel = LogMel(spec)
        self.mean = torch.tensor(spec.image_mean).view(3, 1, 1, 1)
        self.std = torch.tensor(spec.image_std).view(3, 1, 1, 1)

    @torch.no_grad()
    def __call__(self, clip: Original, drawn: Draw) -> tuple[Tensor, Tensor]:
        """As ``reference_clip``."""
        spec = self.spec
        latest = clip.frames - spec.num_frames * STRIDE
        decoded = decode_clip(
            clip.video.read_bytes(),
            clip.sound.read_bytes(),
            spec=spec,
            position=drawn.start / max(1, latest),
            square=SQUARE,
            name=clip.video.name,
        )
        assert round(decoded.start_s * FRAMES_PER_SECOND) == drawn.start, "the two pipelines see other windows"
        # Channels-last memory seen as (T, 3, S, S) takes the vectorised path, whose result is PIL's.
        frames = torch.from_numpy(decoded.video).permute(0, 3, 1, 2)
        frames = TF.resized_crop(frames, *drawn.box, [spec.image_size] * 2, antialias=True)
        video = frames.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format).contiguous()
        video.div_(255.0).sub_(self.mean).div_(self.std)
        sound = decoded.waveform[: decoded.sound_samples].astype(np.float32) / 32768
        waveform = torch.zeros(1, spec.audio_samples)
        waveform[0, : len(sound)] = torch.from_numpy((sound - sound.mean()) * np.float32(drawn.gain))
        return video, self.log_mel(waveform, torch.tensor([decoded.sound_samples]))[0]
