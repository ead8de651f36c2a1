"""Clips masked as training masks them, and what the decoders make of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hicmae.config import InputSpec
from hicmae.data.augment import PretrainingDraws
from hicmae.data.order import clip_generator
from hicmae.data.source import ClipInfo, ClipSource
from hicmae.media.batch_transform import BatchTransform
from hicmae.media.clip import DecodedClip
from hicmae.pretraining import HiCMAE
from hicmae.reconstruction import Reconstruction, reconstruct
from hicmae.report.clip_features import counted, decode_middles
from hicmae.report.run import NotAvailableError


@dataclass(frozen=True, kw_only=True)
class MaskedClips:
    """Some clips and their reconstructions, in the same order."""

    infos: list[ClipInfo]
    decoded: list[DecodedClip]
    shown: Reconstruction


def reconstruct_clips(
    model: HiCMAE,
    spec: InputSpec,
    source: ClipSource,
    numbers: Sequence[int],
    *,
    most: int,
    ratios: Mapping[str, float],
    seed: int,
    device: str,
) -> MaskedClips:
    """The window in the middle of the first ``most`` of these clips that have picture and sound.

    Args:
        model, spec: with decoders, and its input.
        source, numbers: the clips.
        most: so many at most.
        ratios: ``video_mask_ratio`` and ``audio_mask_ratio`` where they are not the paper's.
        seed: of the masks, which depend on it and on the clip's name alone.
        device: where the model runs.

    Raises:
        NotAvailableError: not one of the clips can be used.
        ValueError: a ratio that masks nothing, or everything.
    """
    model.to(device)
    draws = PretrainingDraws(model=model.config, **ratios)
    left_out: Counter[str] = Counter()
    clips = list(decode_middles(source, numbers, spec, ("video", "audio"), left_out))[:most]
    if not clips:
        raise NotAvailableError(f"not one of {len(numbers)} clips can be used: {counted(left_out)}")
    video, log_mel = BatchTransform(spec)(
        torch.stack([torch.from_numpy(clip.video) for _, clip in clips]),
        torch.stack([torch.from_numpy(clip.waveform) for _, clip in clips]),
        sound_samples=torch.tensor([clip.sound_samples for _, clip in clips]),
    )
    drawn = [draws(clip_generator(seed, 0, info.clip_id)) for info, _ in clips]  # as validation masks them
    masks = [torch.from_numpy(np.stack([getattr(d, f"{name}_visible") for d in drawn])) for name in ("video", "audio")]
    shown = reconstruct(model, *(x.to(device) for x in (video, log_mel, *masks)))
    return MaskedClips(infos=[info for info, _ in clips], decoded=[clip for _, clip in clips], shown=shown)


def spread(numbers: Sequence[int], count: int) -> list[int]:
    """So many of them, evenly: clips beside one another are often of one person."""
    return [
        numbers[i] for i in np.unique(np.linspace(0, len(numbers) - 1, min(count, len(numbers))).round().astype(int))
    ]


def ratios_of(data: Mapping[str, object]) -> dict[str, float]:
    """The mask ratios that the data part of a run's configuration names."""
    names = ("video_mask_ratio", "audio_mask_ratio")
    return {name: float(str(data[name])) for name in names if data.get(name) is not None}
