"""A reconstruction that plays: original, masked and predicted frames side by side over their spectrograms."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from hicmae.figures.spectrogram import spectrogram_picture
from hicmae.reconstruction import Reconstruction

_COLUMNS = ("original", "masked", "predicted")
_GAP, _CAPTION = 6, 14
_INK, _PAPER, _CURSOR = (40, 40, 40), (255, 255, 255), (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class AnimationSettings:
    """Size and pace."""

    panel: int = 160
    """Width of one of the three panels, in pixels."""
    frame_s: float = 0.16
    """Time from frame to frame, in seconds: that of the clip plays at its own pace."""
    quality: int = 60
    """Of the WebP, 0 to 100."""


def animate_reconstruction(
    shown: Reconstruction,
    *,
    clip: int = 0,
    settings: AnimationSettings = AnimationSettings(),
) -> bytes:
    """An animated WebP that repeats; a line in the spectrograms marks the frame's time. The same input gives the same
    bytes.

    Args:
        shown: what ``reconstruct`` returned.
        clip: which clip of the batch.
        settings: size and pace.
    """
    side, strip = settings.panel, settings.panel // 2
    width, height = 3 * side + 2 * _GAP, _CAPTION + side + _GAP + strip
    videos = [_frames(video[clip]) for video in (shown.video, shown.video_masked, shown.video_predicted)]
    low, high = float(shown.log_mel[clip].min()), float(shown.log_mel[clip].max())
    log_mels = [mel[clip, 0].cpu().numpy() for mel in (shown.log_mel, shown.log_mel_masked, shown.log_mel_predicted)]
    spectrograms = [spectrogram_picture(mel, (side, strip), limits=(low, high)) for mel in log_mels]
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    for place, name in enumerate(_COLUMNS):
        draw.text((place * (side + _GAP) + 2, 1), name, fill=_INK)
        page.paste(spectrograms[place], (place * (side + _GAP), _CAPTION + side + _GAP))
    pages = []
    for number in range(len(videos[0])):
        picture = page.copy()
        for place, frames in enumerate(videos):
            left = place * (side + _GAP)
            frame = Image.fromarray(frames[number]).resize((side, side), Image.Resampling.BICUBIC)
            picture.paste(frame, (left, _CAPTION))
            # The spectrogram spans a little more time than the frames, each of which stands for one interval.
            x = left + round((number + 0.5) / len(frames) * (side - 1))
            ImageDraw.Draw(picture).line((x, _CAPTION + side + _GAP, x, height), fill=_CURSOR)
        pages.append(picture)
    buffer = io.BytesIO()
    pages[0].save(
        buffer, format="WEBP", save_all=True, append_images=pages[1:], loop=0,
        duration=round(1000 * settings.frame_s), quality=settings.quality, method=4,
    )  # fmt: skip
    return buffer.getvalue()


def _frames(video: Tensor) -> np.ndarray:
    """(3, T, H, W), 0..1, to uint8 (T, H, W, 3)."""
    return (video.permute(1, 2, 3, 0).cpu().numpy() * 255).round().astype(np.uint8)
