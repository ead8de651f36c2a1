"""Features of clips for the page: every layer of both encoders, and fusion; and what the clips look like.

Shapes: N clips, L layers, D width.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from hicmae.backbone import MODALITIES, Backbone, Modality
from hicmae.checkpoint import BackboneWeights, read_backbone
from hicmae.config import InputSpec
from hicmae.data.source import ClipInfo, ClipSource, ClipUnreadableError
from hicmae.media.batch_transform import BatchTransform
from hicmae.media.clip import DecodedClip, DecodeError
from hicmae.media.decode import decode_clip
from hicmae.report.run import NotAvailableError, Run

logger = logging.getLogger(__name__)

_AT_ONCE = 16
_SIDE = 96


@dataclass(frozen=True, kw_only=True)
class ClipFeatures:
    """What the model knows of some clips; a modality that the model was not trained with is ``None``."""

    infos: list[ClipInfo]
    video: NDArray[np.float32] | None
    """(L, N, D): mean over tokens of every layer of the video encoder, normed; at the tapped layers this is what the
    contrastive loss compares."""
    audio: NDArray[np.float32] | None
    """(L, N, D), of the audio encoder."""
    fused: NDArray[np.float32] | None
    """(N, 2 D): both streams after fusion."""
    taps: tuple[int, ...]
    """Layers that the contrastive loss compares, 0-based."""
    frames: list[Image.Image]
    """The frame in the middle, small."""
    log_mels: list[NDArray[np.float32]]
    """(frames, bins) of the sound, as the model takes it."""
    left_out: Counter[str]
    """Clips that could not be used, by reason."""
    weights: str
    """The file or folder of the run that the model is from."""


@dataclass(frozen=True, kw_only=True)
class LoadedBackbone:
    """A model and what it is fed."""

    backbone: Backbone
    """Evaluating."""
    spec: InputSpec
    modalities: tuple[Modality, ...]
    """What it sees and hears."""
    weights: str
    """The file or folder that it is from, in words."""


def compute_features(run: Run, source: ClipSource, numbers: Sequence[int], *, device: str) -> ClipFeatures:
    """``features_of`` the run's own model.

    Raises:
        NotAvailableError: no model, or not one usable clip.
    """
    return features_of(load_backbone_of(run), source, numbers, device=device)


def features_of(loaded: LoadedBackbone, source: ClipSource, numbers: Sequence[int], *, device: str) -> ClipFeatures:
    """Decode the window in the middle of each clip and run the backbone on whole windows, nothing masked.

    Raises:
        NotAvailableError: not one usable clip.
    """
    backbone, spec, modalities = loaded.backbone.to(device), loaded.spec, loaded.modalities
    transform = BatchTransform(spec).to(device)
    infos: list[ClipInfo] = []
    frames: list[Image.Image] = []
    log_mels: list[NDArray[np.float32]] = []
    layers: dict[str, list[NDArray[np.float32]]] = {"video": [], "audio": [], "fused": []}
    left_out: Counter[str] = Counter()
    batches = [numbers[start : start + _AT_ONCE] for start in range(0, len(numbers), _AT_ONCE)]
    for batch in track(batches, description="features of clips", console=Console(stderr=True), transient=True):
        clips = list(decode_middles(source, batch, spec, modalities, left_out))
        if not clips:
            continue
        video, log_mel = transform(
            torch.stack([torch.from_numpy(clip.video) for _, clip in clips]).to(device),
            torch.stack([torch.from_numpy(clip.waveform) for _, clip in clips]).to(device),
            sound_samples=torch.tensor([clip.sound_samples for _, clip in clips], device=device),
        )
        with torch.inference_mode():
            found = backbone(video if "video" in modalities else None, log_mel if "audio" in modalities else None)
        for name, values in found.layer_means.items():
            layers[name].append(values.float().cpu().numpy())
        if found.fused_video is not None:
            fused = torch.cat([found.fused_video.mean(1), found.fused_audio.mean(1)], dim=-1)
            layers["fused"].append(fused.float().cpu().numpy())
        infos += [info for info, _ in clips]
        frames += [small(clip.video[len(clip.video) // 2]) for _, clip in clips]
        log_mels += list(log_mel[:, 0].cpu().numpy())
    if not infos:
        raise NotAvailableError(f"not one of {len(numbers)} clips can be used: {counted(left_out)}")
    if left_out:
        logger.warning("%d clips are left out of the page's features: %s", left_out.total(), counted(left_out))
    return ClipFeatures(
        infos=infos,
        video=np.concatenate(layers["video"], axis=1) if layers["video"] else None,
        audio=np.concatenate(layers["audio"], axis=1) if layers["audio"] else None,
        fused=np.concatenate(layers["fused"]) if layers["fused"] else None,
        taps=backbone.config.taps,
        frames=frames,
        log_mels=log_mels,
        left_out=left_out,
        weights=loaded.weights,
    )


def decode_middles(
    source: ClipSource,
    numbers: Sequence[int],
    spec: InputSpec,
    modalities: Sequence[Modality],
    left_out: Counter[str],
) -> Iterator[tuple[ClipInfo, DecodedClip]]:
    """The window in the middle of each clip that has these modalities; others are counted in ``left_out``."""

    def decode(number: int) -> DecodedClip | str:
        info = source.info(number)
        try:
            stored = source.read(number)
            return decode_clip(
                stored.video, stored.audio, spec=spec, span_s=stored.span_s, square=stored.square, name=info.clip_id
            )
        except (DecodeError, ClipUnreadableError) as error:
            logger.debug("%s", error)
            return error.reason

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoders leave Python's lock
        for number, clip in zip(numbers, pool.map(decode, numbers), strict=True):
            if isinstance(clip, str):
                left_out[clip] += 1
            elif "video" in modalities and not clip.has_video:
                left_out["no picture"] += 1
            elif "audio" in modalities and not clip.has_audio:
                left_out["no sound"] += 1
            else:
                yield source.info(number), clip


def modalities_of(run: Run) -> tuple[Modality, ...]:
    """What the run's model sees and hears."""
    given = run.model.get("modalities") or MODALITIES
    return tuple(name for name in MODALITIES if name in given)


def counted(reasons: Counter[str]) -> str:
    """Reasons with their counts, the most frequent first."""
    return ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())


def load_backbone_of(run: Run) -> LoadedBackbone:
    """Of a pre-training the newest weights, as its reconstructions are of; of a fine-tuning those whose scores are
    shown.

    Raises:
        NotAvailableError: there are none, or they cannot be read.
    """
    export, best = run.root / "export", run.root / "checkpoints" / "best.ckpt"
    places = [run.last_checkpoint, export] if run.kind == "pretrain" else [export, best, run.last_checkpoint]
    there = [place for place in places if place is not None and place.exists()]
    if not there:
        raise NotAvailableError("there is no model: neither export/ nor a checkpoint")
    reasons = []
    for place in there:
        try:
            weights = read_backbone(place)
        except (ValueError, OSError) as error:
            reasons.append(str(error))
            continue
        said = str(place.relative_to(run.root))
        return loaded_backbone(weights, modalities_of(run), said)
    raise NotAvailableError(f"the model cannot be read: {'; '.join(reasons)}")


def loaded_backbone(weights: BackboneWeights, modalities: tuple[Modality, ...], said: str) -> LoadedBackbone:
    """The backbone of these weights, evaluating."""
    backbone = Backbone(weights.config)
    backbone.load_state_dict(weights.state)
    return LoadedBackbone(backbone=backbone.eval(), spec=weights.spec, modalities=modalities, weights=said)


def untrained(loaded: LoadedBackbone) -> LoadedBackbone:
    """The same architecture with random weights, the same every time; no other random number moves."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Backbone(loaded.backbone.config)
    return replace(loaded, backbone=backbone.eval(), weights="random weights")


def small(frame: NDArray[np.uint8]) -> Image.Image:
    """A frame at the size in which the page shows it."""
    return Image.fromarray(frame).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
