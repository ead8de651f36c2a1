"""Where a model looks and listens in one clip.

Shapes: T moments (video tokens lie in T x rows x columns, audio tokens in T x bands), F frames of a spectrogram.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hicmae.attention import attention_over_time, attention_received, attention_weights, fusion_attention, rollout
from hicmae.encoder import Encoder
from hicmae.media.batch_transform import BatchTransform
from hicmae.media.clip import DecodedClip, DecodeError
from hicmae.media.decode import decode_clip
from hicmae.media.large_file import load_media
from hicmae.patches import audio_to_patches, video_to_patches
from hicmae.report.clip_features import LoadedBackbone


@dataclass(frozen=True, kw_only=True)
class ClipAttention:
    """Attention in multiples of an even share: 1 is what a token would get if all got the same."""

    decoded: DecodedClip
    log_mel: NDArray[np.float32] | None
    """(F, bins) as the model takes it; ``None`` without sound."""
    video: NDArray[np.float32] | None
    """(T, rows, columns); ``None`` without picture."""
    audio: NDArray[np.float32] | None
    """(T, bands), low frequencies first; ``None`` without sound."""
    video_reads: NDArray[np.float32] | None
    """(T of video, T of audio): which moments of the sound the picture's read in fusion, mean over its layers;
    ``None`` without fusion or without both."""
    audio_reads: NDArray[np.float32] | None
    """(T of audio, T of video): the other way round."""
    seconds: float
    """Length of the window."""
    said: str
    """Which attention, in words."""


def attention_in(
    loaded: LoadedBackbone, path: str | Path, *, layer: int | None = None, position: float = 0.5, device: str = "cpu"
) -> ClipAttention:
    """The attention of a model in a window of a media file.

    Args:
        loaded: the model.
        path: with picture, sound, or both; what the model does not take is left out.
        layer: 0-based: the mean attention that each token receives in it; ``None``: attention rollout through all
            layers, averaged over output tokens: what the mean-pooled features are made of.
        position: which window, from 0 (earliest) to 1 (latest).
        device: where the model runs.

    Raises:
        DecodeError: the file cannot be decoded, or has nothing that the model takes.
        ValueError: no such layer, or a position outside 0..1.
    """
    config = loaded.backbone.config
    if layer is not None and not 0 <= layer < config.depth:
        raise ValueError(f"--layer {layer}: the encoders have layers 0 to {config.depth - 1}")
    if not 0 <= position <= 1:
        raise ValueError(f"--position {position} must lie between 0 and 1")
    clip = decode_clip(load_media(Path(path)), None, spec=loaded.spec, position=position, name=str(path))
    sees, hears = (there and name in loaded.modalities
                   for name, there in (("video", clip.has_video), ("audio", clip.has_audio)))  # fmt: skip
    if not sees and not hears:
        raise DecodeError(str(path), "nothing_for_model", f"it has nothing of {' and '.join(loaded.modalities)}, which "
                          "is what the model takes", "give another file, or another model")  # fmt: skip
    backbone, transform = loaded.backbone.to(device), BatchTransform(loaded.spec).to(device)
    video, log_mel = transform(
        torch.from_numpy(clip.video)[None].to(device),
        torch.from_numpy(clip.waveform)[None].to(device),
        sound_samples=torch.tensor([clip.sound_samples], device=device),
    )
    video_heat = audio_heat = video_reads = audio_reads = None
    if sees:
        video_heat = _heat(backbone.video_encoder, video_to_patches(video, config), layer, config.video_grid)
    if hears:
        audio_heat = _heat(backbone.audio_encoder, audio_to_patches(log_mel, config), layer, config.audio_grid)
    if sees and hears and config.fusion_depth:
        with torch.inference_mode():
            found = backbone(video, log_mel)
        fused = fusion_attention(backbone.fusion, found.video_tokens, found.audio_tokens)
        video_reads = _reads(fused.video_to_audio, config.video_grid, config.audio_grid)
        audio_reads = _reads(fused.audio_to_video, config.audio_grid, config.video_grid)
    return ClipAttention(
        decoded=clip,
        log_mel=log_mel[0, 0].cpu().numpy() if hears else None,
        video=video_heat,
        audio=audio_heat,
        video_reads=video_reads,
        audio_reads=audio_reads,
        seconds=loaded.spec.num_frames * loaded.spec.frame_interval_s,
        said="attention rollout through all layers" if layer is None else f"attention received in layer {layer}",
    )


def _heat(encoder: Encoder, patches: Tensor, layer: int | None, grid: tuple[int, ...]) -> NDArray[np.float32]:
    if layer is None:
        shares = rollout([*attention_weights(encoder, patches, range(len(encoder.blocks))).values()]).mean(dim=1)
    else:
        shares = attention_received(attention_weights(encoder, patches, (layer,))[layer])
    heat: NDArray[np.float32] = (shares[0] * shares.shape[-1]).reshape(grid).cpu().numpy()
    return heat


def _reads(weights: list[Tensor], asking: tuple[int, ...], asked: tuple[int, ...]) -> NDArray[np.float32] | None:
    if not weights:
        return None
    mean = torch.stack([attention_over_time(layer, asking, asked)[0] for layer in weights]).mean(dim=0)
    reads: NDArray[np.float32] = (mean * asked[0]).cpu().numpy()
    return reads
