"""Reconstructions that play: what the encoders saw of a clip, and what the decoders made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup

from hicmae.backbone import MODALITIES
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import PretrainingDraws
from hicmae.data.order import clip_generator
from hicmae.data.source import ClipSource
from hicmae.figures.reconstruction_animation import AnimationSettings, animate_reconstruction
from hicmae.media.batch_transform import BatchTransform
from hicmae.pretraining import HiCMAE, Objective
from hicmae.reconstruction import reconstruct
from hicmae.report.clip_features import counted, decode_middles
from hicmae.report.markup import joined, paragraph, picture
from hicmae.report.material import Material
from hicmae.report.run import NotAvailableError, Run


@dataclass(frozen=True, kw_only=True)
class PlayedClip:
    """One reconstruction."""

    clip_id: str
    webp: bytes
    """Animated."""
    video_error: float | None
    """Mean absolute error of masked pixels, colours 0..1; ``None`` for a model without video."""
    audio_error: float | None
    """Mean absolute error of masked values of the normalised log-mel; ``None`` for a model without audio."""

    @property
    def errors(self) -> str:
        """Both in words, as far as the model predicts them."""
        named = (("colours", self.video_error), ("log-mel", self.audio_error))
        return ", ".join(f"{name} {error:.3f}" for name, error in named if error is not None)


@dataclass(frozen=True, kw_only=True)
class Played:
    """Reconstructions of one checkpoint."""

    clips: list[PlayedClip]
    steps: int
    """Optimiser steps behind the checkpoint."""


def make_reconstructions(material: Material) -> Markup:
    """Some clips of the data, masked as in training and always the same way."""
    clips, step = material.played.clips, material.played.steps
    figures = (
        Markup(
            '<figure class="played">{}<figcaption>{}<br><small>mean error where masked: {}'
            "</small></figcaption></figure>"
        ).format(
            picture(clip.webp, "image/webp", alt=f"{clip.clip_id}: original, masked and predicted frames over "
                    "spectrograms", style="wide-image"),
            clip.clip_id, clip.errors,
        )
        for clip in clips
    )  # fmt: skip
    ratios = [
        material.run.data.get(f"{name}_mask_ratio", default) for name, default in (("video", 0.9), ("audio", 0.8))
    ]
    text = (
        f"The checkpoint after {step} steps, on the window in the middle of {len(clips)} clips "
        f"({material.choice.said.partition(' of ')[2]}). Of the video {ratios[0]:.0%} of the patches are masked, of "
        f"the sound {ratios[1]:.0%}; each predicted patch is shown with the mean and deviation of the true one, which "
        "the model is not asked for."
    )
    return joined([Markup('<div class="plays">{}</div>').format(joined(figures)), paragraph(text, "note")])


def play_clips(run: Run, source: ClipSource, numbers: Sequence[int], count: int, *, device: str) -> Played:
    """Reconstructions of ``count`` of these clips that have what the model was trained with.

    Raises:
        NotAvailableError: no checkpoint with decoders, or no usable clip.
    """
    numbers = _spread(numbers, 4 * count)
    model, spec, steps = _load(run)
    model.to(device)
    left_out: Counter[str] = Counter()
    clips = list(decode_middles(source, numbers, spec, model.modalities, left_out))[:count]
    if not clips:
        raise NotAvailableError(f"not one of {len(numbers)} clips can be used: {counted(left_out)}")
    video, log_mel = BatchTransform(spec)(
        torch.stack([torch.from_numpy(clip.video) for _, clip in clips]),
        torch.stack([torch.from_numpy(clip.waveform) for _, clip in clips]),
        sound_samples=torch.tensor([clip.sound_samples for _, clip in clips]),
    )
    ratios = {
        f"{name}_mask_ratio": float(run.data[f"{name}_mask_ratio"])
        for name in ("video", "audio")
        if f"{name}_mask_ratio" in run.data
    }
    draws = PretrainingDraws(model=model.config, **ratios)
    seed = int(run.data.get("seed") or 0)
    drawn = [draws(clip_generator(seed, 0, info.clip_id)) for info, _ in clips]  # as validation masks them
    masks = [torch.from_numpy(np.stack([getattr(d, f"{name}_visible") for d in drawn])) for name in ("video", "audio")]
    shown = reconstruct(model, *(x.to(device) for x in (video, log_mel, *masks)))
    settings = AnimationSettings(frame_s=spec.frame_interval_s)
    played = []
    for place, (info, _) in enumerate(clips):
        grey = shown.video_masked[place] != shown.video[place]
        absent = shown.log_mel_masked[place].isnan()
        played.append(
            PlayedClip(
                clip_id=info.clip_id,
                webp=animate_reconstruction(shown, clip=place, settings=settings),
                video_error=_mean_error(shown.video_predicted[place], shown.video[place], grey)
                if "video" in model.modalities
                else None,
                audio_error=_mean_error(shown.log_mel_predicted[place], shown.log_mel[place], absent)
                if "audio" in model.modalities
                else None,
            )
        )
    return Played(clips=played, steps=steps)


def write_animations(material: Material, folder: Path) -> list[Path]:
    """The same animations as files, ``reconstruction_N.webp``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, clip in enumerate(material.played.clips):
        path = folder / f"reconstruction_{number}.webp"
        path.write_bytes(clip.webp)
        paths.append(path)
    return paths


def _load(run: Run) -> tuple[HiCMAE, InputSpec, int]:
    path = run.last_checkpoint
    if path is None:
        raise NotAvailableError("there is no checkpoint with decoders (checkpoints/last.ckpt)")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        about, state = checkpoint["hicmae"], checkpoint["state_dict"]
        config, spec = ModelConfig.from_dict(about["model"]), InputSpec.from_dict(about["input"])
        objective = Objective(**(run.model.get("objective") or {}))
        model = HiCMAE(config, objective=objective, spec=spec, modalities=about.get("modalities", MODALITIES))
        model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    except Exception as error:  # torch names a dozen kinds of damage by as many exceptions
        said = str(error).partition("\n")[0]
        raise NotAvailableError(f"{path.name} is no pre-training checkpoint, or is damaged ({said})") from error
    return model.eval(), spec, int(checkpoint.get("global_step", 0))


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """So many of them, evenly: clips beside one another are often of one person."""
    return [
        numbers[i] for i in np.unique(np.linspace(0, len(numbers) - 1, min(count, len(numbers))).round().astype(int))
    ]


def _mean_error(predicted: torch.Tensor, true: torch.Tensor, where: torch.Tensor) -> float:
    return float((predicted - true).abs()[where].mean())
