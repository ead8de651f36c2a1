"""Reconstructions that play: what the encoders saw of a clip, and what the decoders made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from markupsafe import Markup

from hicmae.config import InputSpec, ModelConfig
from hicmae.data.source import ClipSource
from hicmae.figures.reconstruction_animation import AnimationSettings, animate_reconstruction
from hicmae.pretraining import HiCMAE, Objective
from hicmae.report.markup import joined, paragraph, picture
from hicmae.report.masked_clips import ratios_of, reconstruct_clips, spread
from hicmae.report.material import Material
from hicmae.report.run import NotAvailableError, Run


@dataclass(frozen=True, kw_only=True)
class PlayedClip:
    """One reconstruction."""

    clip_id: str
    webp: bytes
    """Animated."""
    video_error: float
    """Mean absolute error of masked pixels, colours 0..1."""
    audio_error: float
    """Mean absolute error of masked values of the normalised log-mel."""


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
            '<figure class="played">{}<figcaption>{}<br><small>mean error where masked: colours {:.3f}, log-mel {:.3f}'
            "</small></figcaption></figure>"
        ).format(
            picture(clip.webp, "image/webp", alt=f"{clip.clip_id}: original, masked and predicted frames over "
                    "spectrograms", style="wide-image"),
            clip.clip_id, clip.video_error, clip.audio_error,
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
    """Reconstructions of ``count`` of these clips that have picture and sound.

    Raises:
        NotAvailableError: no checkpoint with decoders, or no usable clip.
    """
    model, spec, steps = load_pretraining_of(run)
    masked = reconstruct_clips(
        model, spec, source, spread(numbers, 4 * count), most=count, ratios=ratios_of(run.data),
        seed=int(run.data.get("seed") or 0), device=device,
    )  # fmt: skip
    shown = masked.shown
    settings = AnimationSettings(frame_s=spec.frame_interval_s)
    played = []
    for place, info in enumerate(masked.infos):
        grey = shown.video_masked[place] != shown.video[place]
        absent = shown.log_mel_masked[place].isnan()
        played.append(
            PlayedClip(
                clip_id=info.clip_id,
                webp=animate_reconstruction(shown, clip=place, settings=settings),
                video_error=_mean_error(shown.video_predicted[place], shown.video[place], grey),
                audio_error=_mean_error(shown.log_mel_predicted[place], shown.log_mel[place], absent),
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


def load_pretraining_of(run: Run) -> tuple[HiCMAE, InputSpec, int]:
    """The model of a run's newest checkpoint, its input, and the steps behind it.

    Raises:
        NotAvailableError: there is none, or it cannot be read.
    """
    path = run.last_checkpoint
    if path is None:
        raise NotAvailableError("there is no checkpoint with decoders (checkpoints/last.ckpt)")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        about, state = checkpoint["hicmae"], checkpoint["state_dict"]
        config, spec = ModelConfig.from_dict(about["model"]), InputSpec.from_dict(about["input"])
        model = HiCMAE(config, objective=Objective(**(run.model.get("objective") or {})), spec=spec)
        model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    except Exception as error:  # torch names a dozen kinds of damage by as many exceptions
        said = str(error).partition("\n")[0]
        raise NotAvailableError(f"{path.name} is no pre-training checkpoint, or is damaged ({said})") from error
    return model.eval(), spec, int(checkpoint.get("global_step", 0))


def _mean_error(predicted: torch.Tensor, true: torch.Tensor, where: torch.Tensor) -> float:
    return float((predicted - true).abs()[where].mean())
