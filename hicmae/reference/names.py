"""The reference's names and shapes of parameters, and ours."""

from __future__ import annotations

import re

from torch import Tensor

from hicmae.config import ModelConfig

# Beginnings of parameter names, theirs and ours; the first that fits counts.
_BACKBONE_NAMES = [
    ("encoder.patch_embed.proj.", "backbone.video_encoder.embed."),
    ("encoder.", "backbone.video_encoder."),
    ("encoder_audio.patch_embed.proj.", "backbone.audio_encoder.embed."),
    ("encoder_audio.", "backbone.audio_encoder."),
    ("encoder_fusion.blocks.", "backbone.fusion.video_blocks."),
    ("encoder_fusion.blocks_audio.", "backbone.fusion.audio_blocks."),
    ("encoder_fusion.norm.", "backbone.fusion.video_norm."),
    ("encoder_fusion.norm_audio.", "backbone.fusion.audio_norm."),
    ("video_layer_weights", "backbone.video_layer_weights"),
    ("audio_layer_weights", "backbone.audio_layer_weights"),
]
_DECODER_NAMES = [
    ("mask_token_audio", "audio_decoder.mask_token"),
    ("mask_token", "video_decoder.mask_token"),
    ("encoder_to_decoder_audio.", "audio_decoder.from_encoder."),
    ("encoder_to_decoder.", "video_decoder.from_encoder."),
    ("decoder.blocks.0.", "video_decoder.first_block."),
    ("decoder_audio.blocks.0.", "audio_decoder.first_block."),
    ("decoder.blocks.", "video_decoder.skip_blocks."),
    ("decoder_audio.blocks.", "audio_decoder.skip_blocks."),
    ("decoder.", "video_decoder."),
    ("decoder_audio.", "audio_decoder."),
]
_CLASS_HEAD_NAMES = [("fc_norm.", "head.norm."), ("head.", "head.classifier.")]
# Their regression models name the head as their classifiers do.
_VALUE_HEAD_NAMES = [("fc_norm.", "head.norm."), ("head.", "head.regressor.")]
_PARTS = [(".cross_norm1.", ".cross_norm."), (".cross_norm2.", ".context_norm.")]
_SKIP_BLOCK = re.compile(r"(_decoder\.skip_blocks\.|^decoder(?:_audio)?\.blocks\.)(\d+)\.")


def is_decoder_name(theirs: str) -> bool:
    """Whether a name of the reference belongs to a decoder of pre-training."""
    return any(theirs.startswith(start) for start, _ in _DECODER_NAMES)


def our_name(theirs: str, *, dimensional: bool = False) -> str | None:
    """Our name of a parameter of the reference; ``None`` if there is none.

    ``dimensional``: the head predicts continuous values.
    """
    heads = _VALUE_HEAD_NAMES if dimensional else _CLASS_HEAD_NAMES
    for their_start, our_start in (*_DECODER_NAMES, *_BACKBONE_NAMES, *heads):
        if theirs.startswith(their_start):
            ours = our_start + theirs[len(their_start) :]
            for their_part, our_part in _PARTS:
                ours = ours.replace(their_part, our_part)
            return _shift_skip_block(ours, -1) if ".skip_blocks." in ours else ours
    return None


def reference_name(ours: str) -> str:
    """The reference's name of one of our parameters."""
    for their_start, our_start in (*_DECODER_NAMES, *_BACKBONE_NAMES, *_CLASS_HEAD_NAMES, *_VALUE_HEAD_NAMES):
        if ours.startswith(our_start):
            theirs = their_start + ours[len(our_start) :]
            for their_part, our_part in _PARTS:
                theirs = theirs.replace(our_part, their_part)
            return _shift_skip_block(theirs, 1) if ".skip_blocks." in ours else theirs
    raise ValueError(f"parameter {ours!r} has no counterpart in the reference")


def our_value(ours: str, value: Tensor) -> Tensor:
    """Their patch embeddings are convolutions (D, C, ...); ours are linear over (frame, row, column, channel)."""
    return value.movedim(1, -1).flatten(1) if ours.endswith(".embed.weight") and value.ndim > 2 else value


def reference_value(ours: str, value: Tensor, config: ModelConfig) -> Tensor:
    """The inverse of ``our_value``."""
    if ours == "backbone.video_encoder.embed.weight":
        patch = (config.tubelet_size, config.patch_size, config.patch_size, 3)
        return value.unflatten(1, patch).movedim(-1, 1).contiguous()
    if ours == "backbone.audio_encoder.embed.weight":
        return value.unflatten(1, (1, config.audio_patch_size, config.audio_patch_size)).contiguous()
    return value


def _shift_skip_block(name: str, by: int) -> str:
    """Their decoder counts its first, plain block as number 0; ours names it apart."""
    return _SKIP_BLOCK.sub(lambda found: f"{found[1]}{int(found[2]) + by}.", name, count=1)
