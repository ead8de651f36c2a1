"""A reconstruction that plays: original, masked and predicted frames side by side over their spectrograms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from hicmae.figures.moving_picture import webp_bytes
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
    pages_per_frame: int = 1
    """Pictures drawn for each frame, between which the line in the spectrograms moves on."""

    @property
    def page_s(self) -> float:
        """How long a picture is shown, in seconds."""
        return self.frame_s / self.pages_per_frame


def animate_reconstruction(
    shown: Reconstruction,
    *,
    clip: int = 0,
    settings: AnimationSettings = AnimationSettings(),
) -> bytes:
    """``reconstruction_pages`` as an animated WebP that repeats."""
    return webp_bytes(reconstruction_pages(shown, clip=clip, settings=settings), settings.page_s, settings.quality)


def reconstruction_pages(
    shown: Reconstruction,
    *,
    clip: int = 0,
    settings: AnimationSettings = AnimationSettings(),
) -> list[Image.Image]:
    """The pictures of the animation; a line in the spectrograms marks the time of each. The same input gives the same
    pictures.

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
            frame = Image.fromarray(frames[number]).resize((side, side), Image.Resampling.BICUBIC)
            picture.paste(frame, (place * (side + _GAP), _CAPTION))
        for part in range(settings.pages_per_frame):
            marked = picture.copy()
            # The spectrogram spans a little more time than the frames, each of which stands for one interval.
            time = (number + (part + 0.5) / settings.pages_per_frame) / len(videos[0])
            for place in range(len(videos)):
                x = place * (side + _GAP) + round(time * (side - 1))
                ImageDraw.Draw(marked).line((x, _CAPTION + side + _GAP, x, height), fill=_CURSOR)
            pages.append(marked)
    return pages


def _frames(video: Tensor) -> np.ndarray:
    """(3, T, H, W), 0..1, to uint8 (T, H, W, 3)."""
    return (video.permute(1, 2, 3, 0).cpu().numpy() * 255).round().astype(np.uint8)
