"""The backbone: what pre-training leaves and what downstream teams load (paper, section 3.4).

Shapes: B clips, T frames, N video and A audio tokens, D width, L encoder layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from hicmae.config import ModelConfig
from hicmae.encoder import Encoder, EncoderOutput
from hicmae.fusion import FusionEncoder
from hicmae.hub import HubModel
from hicmae.initial_values import PaperDraws
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
    """(B, 4 D) with both modalities: [video, audio, fused video, fused audio]; (B, D) with one. The first two are what
    ``Backbone.summarize`` makes of the layers' means."""


@dataclass
class LayerTokens:
    """Tokens of chosen encoder layers; ``None`` for a missing modality."""

    layers: tuple[int, ...]
    """Their numbers, 0-based, in the order in which they were asked for."""
    video: tuple[Tensor, ...] | None
    """For each of them (B, N, D)."""
    audio: tuple[Tensor, ...] | None
    """For each of them (B, A, D)."""


class Backbone(nn.Module, HubModel):
    """Encoders, fusion and the learned mix of encoder layers (hierarchical feature fusion).

    All parts are there whatever the modalities and whatever is pooled, so that weights of one fit the other; what is
    not used is not trained.

    Args:
        config: the architecture. Parts that a variant shares with the paper's model begin with the same values.
        modalities: what it was or will be trained with; it refuses anything else.
        drop_path: stochastic-depth rate of the last layer; it grows linearly from 0 over the encoder's layers and
            on over the fusion layers.
    """

    kind = "backbone"

    def __init__(
        self, config: ModelConfig, *, modalities: Sequence[Modality] = MODALITIES, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path={drop_path} must be at least 0 and below 1")
        draws = PaperDraws()
        self.config = config
        self.modalities = known_modalities(modalities)
        layers = config.depth + config.fusion_depth
        rates = [drop_path * layer / max(1, layers - 1) for layer in range(layers)]
        self.video_encoder = self._encoder(config.video_tokens, config.video_patch_values, rates[: config.depth])
        self.audio_encoder = self._encoder(config.audio_tokens, config.audio_patch_values, rates[: config.depth])
        self.fusion = FusionEncoder(
            width=config.width,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            drop_path=rates[config.depth :],
            direction=config.fusion_direction,
        )
        self.video_layer_weights = nn.Parameter(torch.full((config.depth,), 1 / config.depth))
        self.audio_layer_weights = nn.Parameter(torch.full((config.depth,), 1 / config.depth))
        initialize(self)
        if config.fusion_direction != "both":
            draws.share(self, lambda: Backbone(replace(config, fusion_direction="both")))
        if config.feature_fusion == "last":  # nobody reads them, and without gradient they would stall training
            self.video_layer_weights.requires_grad_(False)
            self.audio_layer_weights.requires_grad_(False)

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
            ValueError: without any modality, with one that the model was not trained with, or for a shape that the
                configuration does not have.
        """
        config = self.config
        self._check_given(video, log_mel)
        means: dict[Modality, Tensor] = {}
        pooled: list[Tensor] = []
        video_out: EncoderOutput | None = None
        audio_out: EncoderOutput | None = None
        fused_video: Tensor | None = None
        fused_audio: Tensor | None = None
        if video is not None:
            video_out = self.video_encoder(video_to_patches(video, config), with_layer_means=True)
            means["video"] = _means(video_out)
            pooled.append(self.summarize("video", means["video"]))
        if log_mel is not None:
            audio_out = self.audio_encoder(audio_to_patches(log_mel, config), with_layer_means=True)
            means["audio"] = _means(audio_out)
            pooled.append(self.summarize("audio", means["audio"]))
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

    def summarize(self, modality: Modality, layer_means: Tensor) -> Tensor:
        """What stands for an encoder among the pooled features: (L, B, D), every layer's mean -> (B, D)."""
        if self.config.feature_fusion == "last":
            return layer_means[-1]
        return mix_layers(layer_means, self.video_layer_weights if modality == "video" else self.audio_layer_weights)

    def get_intermediate_layers(
        self,
        video: Tensor | None = None,
        log_mel: Tensor | None = None,
        *,
        layers: int | Sequence[int] | None = None,
        norm: bool = True,
    ) -> LayerTokens:
        """Tokens of some encoder layers, as dense tasks and probes of single layers use them.

        Args:
            video: float (B, 3, T, H, W), colour-normalised, or ``None``.
            log_mel: float (B, 1, frames, bins), normalised, or ``None``.
            layers: a number: so many of the last layers; a sequence: these layers, 0-based, from the last one where
                negative; ``None``: ``config.taps``.
            norm: apply the encoder's final norm to each.

        Raises:
            ValueError: as ``forward``; or for layers that the encoders do not have, or have been named twice.
        """
        self._check_given(video, log_mel)
        wanted = self._layer_numbers(layers)

        def of(encoder: Encoder, patches: Tensor) -> tuple[Tensor, ...]:
            tapped = dict(zip(sorted(wanted), encoder(patches, taps=wanted, norm_taps=norm).taps, strict=True))
            return tuple(tapped[layer] for layer in wanted)

        return LayerTokens(
            layers=wanted,
            video=None if video is None else of(self.video_encoder, video_to_patches(video, self.config)),
            audio=None if log_mel is None else of(self.audio_encoder, audio_to_patches(log_mel, self.config)),
        )

    def _layer_numbers(self, layers: int | Sequence[int] | None) -> tuple[int, ...]:
        depth = self.config.depth
        if layers is None:
            return self.config.taps
        if isinstance(layers, int):
            if not 1 <= layers <= depth:
                raise ValueError(f"layers={layers}: the encoders have {depth} layers; ask for 1 to {depth} of the last")
            return tuple(range(depth - layers, depth))
        numbers = tuple(layer + depth if layer < 0 else layer for layer in layers)
        if not numbers or len(set(numbers)) != len(numbers) or any(not 0 <= number < depth for number in numbers):
            raise ValueError(
                f"layers={list(layers)} must name layers of 0..{depth - 1} (negative: from the last one), each once"
            )
        return numbers

    def _check_given(self, video: Tensor | None, log_mel: Tensor | None) -> None:
        if video is None and log_mel is None:
            raise ValueError("neither video nor log_mel was given; the backbone needs at least one of them")
        given: dict[Modality, Tensor | None] = {"video": video, "audio": log_mel}
        for modality, tensor in given.items():
            if tensor is not None and modality not in self.modalities:
                raise ValueError(
                    f"{modality} was given, but this backbone was trained with {' and '.join(self.modalities)} alone; "
                    f"leave {modality} out, as the transform does that is loaded with it"
                )


def known_modalities(modalities: Sequence[str]) -> tuple[Modality, ...]:
    """The modalities named, in the order of ``MODALITIES``.

    Raises:
        ValueError: none, or an unknown one.
    """
    known = tuple(modality for modality in MODALITIES if modality in modalities)
    if not known or set(modalities) - set(MODALITIES):
        raise ValueError(f"modalities={list(modalities)} must be video, audio or both")
    return known


def mix_layers(layer_means: Tensor, weights: Tensor) -> Tensor:
    """Softmax-weighted sum over layers: (L, B, D), (L,) -> (B, D) (paper, section 3.4)."""
    return torch.einsum("l,lbd->bd", weights.softmax(dim=0), layer_means)


def _means(output: EncoderOutput) -> Tensor:
    assert output.layer_means is not None
    return output.layer_means
