"""Tokens: the order of their values, the way back, and the position table."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hicmae.patches import audio_to_patches, patches_to_audio, patches_to_video, sinusoid_positions, video_to_patches
from tests.tiny_model import TINY, clips

# Sides that differ, so that no two axes can be mistaken for each other.
ODD = type(TINY)(
    image_size=12, num_frames=6, patch_size=4, tubelet_size=3, audio_frames=12, mel_bins=8, audio_patch_size=4,
    width=8, heads=2, depth=2, taps=(1,), decoder_width=8, decoder_heads=2, decoder_depth=2,
)  # fmt: skip


def test_video_tokens_hold_frame_row_column_channel():
    video, _ = clips(2, config=ODD)
    patches = video_to_patches(video, ODD)
    assert patches.shape == (2, 2 * 3 * 3, 3 * 4 * 4 * 3)
    for time, row, column in np.ndindex(2, 3, 3):
        tubelet = video[:, :, time * 3 : time * 3 + 3, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
        token = (time * 3 + row) * 3 + column
        assert torch.equal(patches[:, token], tubelet.permute(0, 2, 3, 4, 1).flatten(1))


def test_audio_tokens_hold_frame_bin():
    _, log_mel = clips(2, config=ODD)
    patches = audio_to_patches(log_mel, ODD)
    assert patches.shape == (2, 3 * 2, 16)
    for time, frequency in np.ndindex(3, 2):
        piece = log_mel[:, 0, time * 4 : time * 4 + 4, frequency * 4 : frequency * 4 + 4]
        assert torch.equal(patches[:, time * 2 + frequency], piece.flatten(1))


@pytest.mark.parametrize("config", [TINY, ODD])
def test_there_and_back(config):
    video, log_mel = clips(2, config=config)
    assert torch.equal(patches_to_video(video_to_patches(video, config), config), video)
    assert torch.equal(patches_to_audio(audio_to_patches(log_mel, config), config), log_mel)


def test_a_clip_of_another_shape_is_refused_rather_than_split_in_two():
    video, log_mel = clips(1)
    with pytest.raises(
        ValueError, match=r"video has shape \(1, 3, 8, 32, 32\), this model takes .* \(B, 3, 4, 32, 32\)"
    ):
        video_to_patches(torch.cat([video, video], dim=2), TINY)
    with pytest.raises(ValueError, match=r"log_mel has shape \(1, 1, 128, 32\).* \(B, 1, 64, 32\)"):
        audio_to_patches(torch.cat([log_mel, log_mel], dim=2), TINY)
    with pytest.raises(ValueError, match="video has shape"):
        video_to_patches(video.transpose(1, 2), TINY)


@pytest.mark.parametrize("width", [8, 9, 512])
def test_sinusoid_positions(width):
    table = sinusoid_positions(800, width)
    assert table.dtype == torch.float32
    assert table.shape == (800, width)
    for feature in range(0, width, max(1, width // 5)):
        angle = np.arange(800) / 10_000 ** (2 * (feature // 2) / width)
        expected = np.sin(angle) if feature % 2 == 0 else np.cos(angle)
        np.testing.assert_allclose(table[:, feature], expected, atol=1e-7)
