"""Clips to check an exported file with: noise, and real ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hicmae.backbone import MODALITIES, Modality
from hicmae.config import InputSpec
from hicmae.inference.items import MediaItem, media_item
from hicmae.inference.windows import WindowSettings, read_windows

SYNTHETIC_CLIPS = 3
_SMALLEST_SYNTHETIC_PICTURE = 48


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Clips as they are decoded, N of them."""

    name: str
    frames: Tensor
    """uint8 (N, T, S, S, 3)"""
    waveform: Tensor
    """int16 (N, samples)"""
    sound_samples: Tensor
    """int64 (N,): how many samples are sound; the rest is padding."""

    def batches(self, size: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Inputs of ``TransformGraph`` for all clips, so many at once; the last batch is filled up from the start."""
        for start in range(0, len(self.frames), size):
            rows = torch.arange(start, start + size) % len(self.frames)
            tensors = {"frames": self.frames, "waveform": self.waveform, "sound_samples": self.sound_samples}
            yield {name: tensor[rows].numpy() for name, tensor in tensors.items()}


def random_clips(spec: InputSpec, count: int = 3, *, seed: int = 0) -> Clips:
    """Noise in every pixel and sample; the sounds end at different places."""
    rng = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (count, spec.num_frames, spec.image_size, spec.image_size, 3), generator=rng)
    waveform = torch.randint(-20_000, 20_000, (count, spec.audio_samples), generator=rng)
    samples = torch.linspace(spec.audio_samples, spec.audio_samples // 10, count).long()
    return Clips(name="random", frames=frames.byte(), waveform=waveform.short(), sound_samples=samples)


def synthetic_clips(spec: InputSpec) -> Clips:
    """A few of the talking faces that ``hicmae demo-data`` makes, written as mp4 and decoded again."""
    from hicmae.data.synthetic import CorpusSettings, plan_clips, render_clip
    from hicmae.data.synthetic.corpus import write_mp4

    size = max(_SMALLEST_SYNTHETIC_PICTURE, spec.image_size + spec.image_size % 2)
    seconds = min(60.0, max(0.5, spec.window_seconds, spec.audio_seconds))
    settings = CorpusSettings(
        size=size,
        speakers=SYNTHETIC_CLIPS,
        val_speakers=0,
        test_speakers=0,
        clips_per_speaker=1,
        unlabelled_speakers=0,
        min_seconds=seconds,
        max_seconds=seconds,
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for plan in plan_clips(settings):
            paths.append(Path(folder) / f"{plan.clip_id}.mp4")
            write_mp4(paths[-1], *render_clip(plan, settings))
        return read_clips([media_item(path) for path in paths], spec, MODALITIES, name="synthetic")


def read_clips(
    items: Sequence[MediaItem], spec: InputSpec, modalities: Sequence[Modality], *, name: str = "given"
) -> Clips:
    """The window in the middle of every clip.

    Raises:
        DecodeError: a file that cannot be decoded.
        ValueError: a file that lacks one of ``modalities``.
    """
    frames, waveforms, samples = [], [], []
    for item in items:
        with read_windows(item, spec, WindowSettings(middle=True)) as windows:
            window = next(iter(windows))
        if missing := [modality for modality in modalities if modality not in window.modalities]:
            raise ValueError(
                f"{item.name} has no {' and no '.join(missing)}, which this model takes; give --check-clips other files"
            )
        shape = (spec.num_frames, spec.image_size, spec.image_size, 3)
        frames.append(np.zeros(shape, np.uint8) if window.frames is None else window.frames)
        waveforms.append(np.zeros(spec.audio_samples, np.int16) if window.waveform is None else window.waveform)
        samples.append(window.sound_samples)
    return Clips(
        name=name,
        frames=torch.from_numpy(np.stack(frames)),
        waveform=torch.from_numpy(np.stack(waveforms)),
        sound_samples=torch.tensor(samples),
    )
