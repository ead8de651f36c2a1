"""Where a model looks: its attention as matrices, from the same weights and beside the fast path, which keeps none.

The model's own attention never writes these matrices; they are computed again from the queries and keys of a layer's
input. Nothing random is drawn, no gradient is kept, and the modes of the modules are left as they were found.

Shapes: B clips, N tokens, C context tokens, V video tokens, A audio tokens, H heads, D width, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hicmae.encoder import Encoder
from hicmae.fusion import FusionEncoder
from hicmae.layers import CrossAttention, SelfAttention


@dataclass(frozen=True, kw_only=True)
class FusionAttention:
    """What each stream of the fusion reads of the other, layer by layer; rows sum to 1."""

    video_to_audio: list[Tensor]
    """For each layer float32 (B, H, V, A): which audio tokens a video token reads."""
    audio_to_video: list[Tensor]
    """For each layer float32 (B, H, A, V): which video tokens an audio token reads."""


@torch.no_grad()
def attention_weights(encoder: Encoder, patches: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
    """The self-attention of chosen layers, all tokens visible.

    Args:
        encoder: of one modality; may be training: stochastic depth is off for this pass alone.
        patches: (B, N, P), as the encoder takes them.
        layers: which, 0-based.

    Returns:
        For each layer float32 (B, H, N, N): row i says how token i divides its attention; rows sum to 1.

    Raises:
        ValueError: a layer that the encoder does not have.
    """
    depth = len(encoder.blocks)
    if strangers := [layer for layer in layers if not 0 <= layer < depth]:
        raise ValueError(f"the encoder has no layers {strangers}; it has 0 to {depth - 1}")
    found: dict[int, Tensor] = {}
    with _evaluating(encoder):
        x = encoder.embed(patches) + encoder.positions
        for layer in range(max(layers, default=-1) + 1):
            block: Any = encoder.blocks[layer]
            if layer in layers:
                found[layer] = self_attention_weights(block.attn, block.norm1(x))
            x = block(x)
    return {layer: found[layer] for layer in layers}


@torch.no_grad()
def fusion_attention(fusion: FusionEncoder, video: Tensor, audio: Tensor) -> FusionAttention:
    """The cross-attention of every fusion layer.

    Args:
        fusion: may be training, as above.
        video: (B, V, D), the video encoder's last layer, normed.
        audio: (B, A, D), the audio encoder's.
    """
    found = FusionAttention(video_to_audio=[], audio_to_video=[])
    with _evaluating(fusion):
        blocks: Any = zip(fusion.video_blocks, fusion.audio_blocks, strict=True)
        for video_block, audio_block in blocks:
            for block, x, context, place in (
                (video_block, video, audio, found.video_to_audio),
                (audio_block, audio, video, found.audio_to_video),
            ):
                normed = block.cross_norm(x), block.context_norm(context)
                place.append(cross_attention_weights(block.cross_attn, *normed))
            video, audio = video_block(video, audio), audio_block(audio, video)
    return found


def self_attention_weights(attention: SelfAttention, x: Tensor) -> Tensor:
    """(B, N, D), normed as the layer takes it -> float32 (B, H, N, N)."""
    q, k, _ = attention.ask(x, 0)
    return _softmax(q, k, attention.heads)


def cross_attention_weights(attention: CrossAttention, x: Tensor, context: Tensor) -> Tensor:
    """(B, N, D), (B, C, D), normed as the layer takes them -> float32 (B, H, N, C)."""
    q = F.linear(x, attention.q.weight, attention.q_bias)
    k = F.linear(context, attention.kv.weight[: attention.q.out_features])  # keys have no bias
    return _softmax(q, k, attention.heads)


def rollout(weights: Sequence[Tensor]) -> Tensor:
    """Attention through all layers (Abnar & Zuidema, 2020): how much of each input token is in each output token.

    The heads are averaged, and half of every token passes by the attention (the residual branch).

    Args:
        weights: for each layer, the first one first, (B, H, N, N).

    Returns:
        float32 (B, N, N), row i for output token i; rows sum to 1. Its mean over rows, (B, N), says what the mean over
        tokens, which the model's features are, is made of.
    """
    joined: Tensor | None = None
    for layer in weights:
        mean = layer.float().mean(dim=1)
        step = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2
        joined = step if joined is None else step @ joined
    if joined is None:
        raise ValueError("rollout needs the attention of at least one layer")
    return joined


def attention_received(weights: Tensor) -> Tensor:
    """The mean attention that each token receives, over heads and askers: (B, H, N, C) -> (B, C), which sum to 1."""
    return weights.float().mean(dim=(1, 2))


def attention_over_time(weights: Tensor, asking: tuple[int, ...], asked: tuple[int, ...]) -> Tensor:
    """How the moments of one stream divide their attention over the moments of the other.

    Args:
        weights: (B, H, N, C); the tokens of both streams lie in the order of their grids, time first.
        asking: grid of the N tokens, e.g. ``config.video_grid``.
        asked: grid of the C tokens, e.g. ``config.audio_grid``.

    Returns:
        float32 (B, moments asking, moments asked): mean over heads and over the tokens of an asking moment, sum over
        the tokens of an asked one; rows sum to 1.
    """
    mean = weights.float().mean(dim=1)  # (B, N, C)
    return mean.unflatten(1, (asking[0], -1)).mean(dim=2).unflatten(2, (asked[0], -1)).sum(dim=3)


def _softmax(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """(B, N, D), (B, C, D) -> float32 (B, H, N, C), whatever autocast says."""
    with torch.autocast(q.device.type, enabled=False):
        q, k = (x.float().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))  # (B, H, N, D / H)
        return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(dim=-1)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Everything below ``model`` evaluates for a while; afterwards each module is in its own mode again."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
