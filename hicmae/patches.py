"""Frames and spectrograms as tokens and back, and their positions (paper, section 3.1).

A video token is a tubelet (2 frames x 16 x 16 pixels), flattened as (frame, row, column, channel); an audio token
is a 16 x 16 piece of the log-mel spectrogram, flattened as (frame, bin).

Shapes: B clips, T frames, N tokens, P values per token, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hicmae.config import ModelConfig


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...], meaning: str) -> None:
    # Without this a clip of twice the frames would be reshaped into two clips, silently.
    if tuple(tensor.shape[1:]) != expected:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, this model takes {meaning} = "
            f"(B, {', '.join(map(str, expected))}); use the transform that comes with the model"
        )


def video_to_patches(video: Tensor, config: ModelConfig) -> Tensor:
    """(B, 3, T, H, W) -> (B, N, P), P = tubelet * patch * patch * 3; another shape raises ``ValueError``."""
    side = config.image_size
    _check_shape("video", video, (3, config.num_frames, side, side), "(B, 3, T, H, W)")
    time, rows, columns = config.video_grid
    patch, tubelet = config.patch_size, config.tubelet_size
    split = video.reshape(-1, 3, time, tubelet, rows, patch, columns, patch)
    return split.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(-1, time * rows * columns, config.video_patch_values)


def patches_to_video(patches: Tensor, config: ModelConfig) -> Tensor:
    """(B, N, P) -> (B, 3, T, H, W); the inverse of ``video_to_patches``."""
    time, rows, columns = config.video_grid
    patch, tubelet = config.patch_size, config.tubelet_size
    split = patches.reshape(-1, time, rows, columns, tubelet, patch, patch, 3)
    joined = split.permute(0, 7, 1, 4, 2, 5, 3, 6)
    return joined.reshape(-1, 3, config.num_frames, config.image_size, config.image_size)


def audio_to_patches(log_mel: Tensor, config: ModelConfig) -> Tensor:
    """(B, 1, frames, bins) -> (B, N, P), P = patch * patch; another shape raises ``ValueError``."""
    _check_shape("log_mel", log_mel, (1, config.audio_frames, config.mel_bins), "(B, 1, frames, bins)")
    time, bins = config.audio_grid
    patch = config.audio_patch_size
    split = log_mel.reshape(-1, time, patch, bins, patch)
    return split.permute(0, 1, 3, 2, 4).reshape(-1, time * bins, config.audio_patch_values)


def patches_to_audio(patches: Tensor, config: ModelConfig) -> Tensor:
    """(B, N, P) -> (B, 1, frames, bins); the inverse of ``audio_to_patches``."""
    time, bins = config.audio_grid
    patch = config.audio_patch_size
    joined = patches.reshape(-1, time, bins, patch, patch).permute(0, 1, 3, 2, 4)
    return joined.reshape(-1, 1, config.audio_frames, config.mel_bins)


def sinusoid_positions(tokens: int, width: int) -> Tensor:
    """Fixed 1-D sinusoid table over the flattened token index (Vaswani et al., 2017, section 3.5).

    The angle of feature i is ``pos / 10000^(2 * floor(i / 2) / width)``: sine at even i, cosine at odd i.

    Returns:
        float32 (N, D).
    """
    feature = torch.arange(width, dtype=torch.float64)
    frequency = torch.exp(-math.log(10_000.0) * 2 * torch.div(feature, 2, rounding_mode="floor") / width)
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] * frequency
    table = torch.where(feature.long() % 2 == 0, angle.sin(), angle.cos())
    return table.float()
