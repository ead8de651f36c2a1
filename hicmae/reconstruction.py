"""From predictions back to pictures and spectrograms that a person can look at.

Shapes: B clips, T frames, N tokens, M masked tokens, P values per patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hicmae.masking import take_tokens
from hicmae.patches import audio_to_patches, patches_to_audio, patches_to_video, video_to_patches
from hicmae.pretraining import HiCMAE, Masks

_GREY = 0.5


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Input, what the encoder saw of it, and the input with masked patches as predicted.

    Of a modality that the model was not trained with it saw nothing, and predicts nothing: both are grey, or
    NaN, all over.
    """

    video: Tensor
    """float32 (B, 3, T, H, W), colours 0..1."""
    video_masked: Tensor
    """The same with grey masked patches."""
    video_predicted: Tensor
    """The same with predicted masked patches."""
    log_mel: Tensor
    """float32 (B, 1, frames, bins), normalised as the model's input."""
    log_mel_masked: Tensor
    """The same; masked patches are NaN."""
    log_mel_predicted: Tensor
    """The same with predicted masked patches."""


@torch.no_grad()
def reconstruct(
    model: HiCMAE, video: Tensor, log_mel: Tensor, video_visible: Tensor, audio_visible: Tensor
) -> Reconstruction:
    """Run the model and undo the normalisation of its predictions.

    The model predicts standardised patches; their mean and deviation are taken from the true patch, since the
    model is never asked for them.

    All masked tokens are decoded, whatever share of them training decodes.

    Args: as ``HiCMAE.forward``.
    """
    config = model.config
    masks = Masks.around(video_visible, audio_visible, config)
    video_masked, audio_masked = masks.video_masked, masks.audio_masked
    patches_in = video_to_patches(video.float(), config)
    mel = audio_to_patches(log_mel.float(), config)
    output = model.predict(patches_in, mel, masks)

    pixels = patches_in * model.image_std + model.image_mean  # (B, N, P)
    pixels_masked = pixels_predicted = torch.full_like(pixels, _GREY)
    if output.video is not None:
        predicted = output.video.float().unflatten(-1, (config.tubelet_size, -1))  # (B, M, F, P / F)
        if model.objective.frame_difference:
            predicted = predicted.cumsum(dim=-2)
        truth = take_tokens(pixels, video_masked).unflatten(-1, (-1, 3))  # per colour channel
        patches = predicted.flatten(-2).unflatten(-1, (-1, 3)) * truth.std(dim=-2, keepdim=True)
        patches = (patches + truth.mean(dim=-2, keepdim=True)).flatten(-2)
        pixels_masked = _put(pixels, video_masked, torch.full_like(patches, _GREY))
        pixels_predicted = _put(pixels, video_masked, patches)

    mel_masked = mel_predicted = torch.full_like(mel, float("nan"))
    if output.audio is not None:
        mel_truth = take_tokens(mel, audio_masked)
        mel_patches = output.audio.float() * mel_truth.std(dim=-1, keepdim=True)
        mel_patches = mel_patches + mel_truth.mean(dim=-1, keepdim=True)
        mel_masked = _put(mel, audio_masked, torch.full_like(mel_patches, float("nan")))
        mel_predicted = _put(mel, audio_masked, mel_patches)

    return Reconstruction(
        video=patches_to_video(pixels, config).clamp(0, 1),
        video_masked=patches_to_video(pixels_masked, config).clamp(0, 1),
        video_predicted=patches_to_video(pixels_predicted, config).clamp(0, 1),
        log_mel=log_mel.float(),
        log_mel_masked=patches_to_audio(mel_masked, config),
        log_mel_predicted=patches_to_audio(mel_predicted, config),
    )


def _put(tokens: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """A copy of (B, N, P) with (B, M, P) ``values`` at int64 (B, M) ``index``."""
    return tokens.scatter(1, index.unsqueeze(-1).expand_as(values), values)
