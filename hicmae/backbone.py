"""The backbone: what pre-training leaves and what downstream teams load (paper, section 3.4).

Shapes: B clips, T frames, N video and A audio tokens, D width, L encoder layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hicmae.config import ModelConfig
from hicmae.encoder import Encoder, EncoderOutput
from hicmae.fusion import FusionEncoder
from hicmae.layers import initialize
from hicmae.patches import audio_to_patches, video_to_patches

Modality = Literal["video", "audio"]
MODALITIES: tuple[Modality, ...] = ("video", "audio")


@dataclass
class Features:
    """What the backbone knows of a batch of clips; fields of a missing modality are ``None``."""

    video_tokens: Tensor | None
    """(B, N, D), the video encoder's last layer, normed."""
    audio_tokens: Tensor | None
    """(B, A, D), the audio encoder's last layer, normed."""
    fused_video: Tensor | None
    """(B, N, D), video after fusion; needs both modalities."""
    fused_audio: Tensor | None
    """(B, A, D), audio after fusion; needs both modalities."""
    layer_means: dict[Modality, Tensor]
    """For each modality present (L, B, D): mean over tokens of every encoder layer, normed."""
    pooled: Tensor
    """(B, 4 D) with both modalities: [video, audio, fused video, fused audio]; (B, D) with one."""


class Backbone(nn.Module):
    """Encoders, fusion and the learned mix of encoder layers (hierarchical feature fusion).

    Args:
        config: the architecture.
        drop_path: stochastic-depth rate of the last layer; it grows linearly from 0 over the encoder's layers and
            on over the fusion layers.
    """

    def __init__(self, config: ModelConfig, *, drop_path: float = 0.0) -> None:
        super().__init__()
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path={drop_path} must be at least 0 and below 1")
        self.config = config
        layers = config.depth + config.fusion_depth
        rates = [drop_path * layer / max(1, layers - 1) for layer in range(layers)]
        self.video_encoder = self._encoder(config.video_tokens, config.video_patch_values, rates[: config.depth])
        self.audio_encoder = self._encoder(config.audio_tokens, config.audio_patch_values, rates[: config.depth])
        self.fusion = FusionEncoder(
            width=config.width,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            drop_path=rates[config.depth :],
        )
        self.video_layer_weights = nn.Parameter(torch.full((config.depth,), 1 / config.depth))
        self.audio_layer_weights = nn.Parameter(torch.full((config.depth,), 1 / config.depth))
        initialize(self)

    def _encoder(self, tokens: int, patch_values: int, drop_path: Sequence[float]) -> Encoder:
        config = self.config
        return Encoder(
            tokens=tokens,
            patch_values=patch_values,
            width=config.width,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            drop_path=drop_path,
        )

    def forward(self, video: Tensor | None = None, log_mel: Tensor | None = None) -> Features:
        """Features of whole clips, nothing masked.

        Args:
            video: float (B, 3, T, H, W), colour-normalised, or ``None``.
            log_mel: float (B, 1, frames, bins), normalised, or ``None``.

        Raises:
            ValueError: without any modality, or for a shape that the configuration does not have.
        """
        config = self.config
        if video is None and log_mel is None:
            raise ValueError("neither video nor log_mel was given; the backbone needs at least one of them")
        means: dict[Modality, Tensor] = {}
        pooled: list[Tensor] = []
        video_out: EncoderOutput | None = None
        audio_out: EncoderOutput | None = None
        fused_video: Tensor | None = None
        fused_audio: Tensor | None = None
        if video is not None:
            video_out = self.video_encoder(video_to_patches(video, config), with_layer_means=True)
            means["video"] = _means(video_out)
            pooled.append(mix_layers(means["video"], self.video_layer_weights))
        if log_mel is not None:
            audio_out = self.audio_encoder(audio_to_patches(log_mel, config), with_layer_means=True)
            means["audio"] = _means(audio_out)
            pooled.append(mix_layers(means["audio"], self.audio_layer_weights))
        if video_out is not None and audio_out is not None:
            fused_video, fused_audio = self.fusion(video_out.tokens, audio_out.tokens)
            pooled += [fused_video.mean(dim=1), fused_audio.mean(dim=1)]
        return Features(
            video_tokens=video_out.tokens if video_out else None,
            audio_tokens=audio_out.tokens if audio_out else None,
            fused_video=fused_video,
            fused_audio=fused_audio,
            layer_means=means,
            pooled=torch.cat(pooled, dim=-1),
        )


def mix_layers(layer_means: Tensor, weights: Tensor) -> Tensor:
    """Softmax-weighted sum over layers: (L, B, D), (L,) -> (B, D) (paper, section 3.4)."""
    return torch.einsum("l,lbd->bd", weights.softmax(dim=0), layer_means)


def _means(output: EncoderOutput) -> Tensor:
    assert output.layer_means is not None
    return output.layer_means
