"""How much arithmetic a clip costs: multiply-adds of the forward pass, counted from the configuration.

Counted are the matrix products: linear layers, and queries times keys and weights times values in attention. What is
left out (norms, GELU, softmax, residuals, positions, losses) is under 1% of it. A multiply-add is two floating-point
operations; a training step costs about three forward passes, as the backward pass has two products for each of the
forward's. Visible tokens alone are embedded, as the model does.

Letters: N tokens, C context tokens, D width.
"""

from __future__ import annotations

from collections.abc import Collection

from hicmae.config import ModelConfig


def _attention(tokens: int, context: int, width: int) -> int:
    """Queries, keys, values, both products of attention and the projection of its output."""
    return (2 * tokens + 2 * context) * width**2 + 2 * tokens * context * width


def _block(tokens: int, width: int, mlp_ratio: float) -> int:
    return _attention(tokens, tokens, width) + 2 * tokens * width * int(width * mlp_ratio)


def _cross_block(tokens: int, context: int, width: int, mlp_ratio: float) -> int:
    return _attention(tokens, context, width) + _block(tokens, width, mlp_ratio)


def _encoder(config: ModelConfig, tokens: int, patch_values: int) -> int:
    blocks = config.depth * _block(tokens, config.width, config.mlp_ratio)
    return tokens * patch_values * config.width + blocks


def _fusion(config: ModelConfig, video: int, audio: int) -> int:
    width, ratio = config.width, config.mlp_ratio
    streams = {
        "to_video": _cross_block(video, audio, width, ratio),
        "to_audio": _cross_block(audio, video, width, ratio),
    }
    return config.fusion_depth * streams.get(config.fusion_direction, sum(streams.values()))


def _decoder(config: ModelConfig, visible: int, decoded: int, patch_values: int) -> int:
    width, ratio = config.decoder_width, config.mlp_ratio
    skips = config.decoder_depth - 1 if config.skip_connections else 0
    tokens = visible + decoded
    from_encoder = (1 + skips) * visible * config.width * width
    blocks = (config.decoder_depth - skips) * _block(tokens, width, ratio)
    blocks += skips * _cross_block(tokens, visible, width, ratio)
    # The last block has neither queries nor anything after them for the visible tokens.
    unread = visible * (2 * width**2 + 2 * tokens * width + 2 * width * int(width * ratio))
    return from_encoder + blocks - unread + decoded * width * patch_values


def pretraining_macs(
    config: ModelConfig,
    *,
    video_visible: int,
    audio_visible: int,
    video_decoded: int | None = None,
    audio_decoded: int | None = None,
    modalities: Collection[str] = ("video", "audio"),
) -> int:
    """Multiply-adds of one clip's forward pass in pre-training.

    Args:
        config: the architecture.
        video_visible, audio_visible: tokens that the encoders see.
        video_decoded, audio_decoded: masked tokens that are decoded; ``None``: all of them.
        modalities: what is learnt from: video, audio, or both.

    Raises:
        ValueError: more tokens than the clip has.
    """
    total = 0
    for name, tokens, values, visible, decoded in (
        ("video", config.video_tokens, config.video_patch_values, video_visible, video_decoded),
        ("audio", config.audio_tokens, config.audio_patch_values, audio_visible, audio_decoded),
    ):
        masked = tokens - visible
        if not 0 <= visible <= tokens or not 0 <= (decoded or 0) <= masked:
            raise ValueError(f"{name}: {visible} visible and {decoded} decoded tokens, but a clip has {tokens}")
        if name in modalities:
            total += _encoder(config, visible, values)
            total += _decoder(config, visible, masked if decoded is None else decoded, values)
    return total + (_fusion(config, video_visible, audio_visible) if len(modalities) == 2 else 0)


def recognition_macs(config: ModelConfig, modalities: Collection[str] = ("video", "audio")) -> int:
    """Multiply-adds of one clip's forward pass through the backbone in fine-tuning and inference.

    The head, thousands of times less, is not counted.

    Args:
        config: the architecture.
        modalities: what the model sees and hears: video, audio, or both.
    """
    total = 0
    if "video" in modalities:
        total += _encoder(config, config.video_tokens, config.video_patch_values)
    if "audio" in modalities:
        total += _encoder(config, config.audio_tokens, config.audio_patch_values)
    if "video" in modalities and "audio" in modalities:
        total += _fusion(config, config.video_tokens, config.audio_tokens)
    return total
