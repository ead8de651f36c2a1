"""From what workers ship to what models take, for a whole batch on its device.

Shapes: B clips, T frames, S pixels of a frame's side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hicmae.config import InputSpec
from hicmae.media.crops import crop_and_normalize
from hicmae.media.log_mel import LogMel
from hicmae.media.rand_augment import FrameOp, apply_ops
from hicmae.media.random_erasing import Erasure, erase_
from hicmae.media.spec_augment import mask_stripes
from hicmae.media.yuv import to_rgb


class BatchTransform(nn.Module):
    """Augment, crop and colour-normalise frames; scale sound and turn it into a log-mel spectrogram.

    Deterministic: what is random is drawn in the workers and comes with the batch. The order is that of the paper's
    recipe: operations on whole frames, crop, flip, colours, erasing; gain, log-mel, stripes.
    """

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec
        self.log_mel = LogMel(spec)

    @torch.no_grad()
    def forward(
        self,
        video: Tensor,
        waveform: Tensor,
        *,
        sound_samples: Tensor | None = None,
        crop_box: Tensor | None = None,
        flip: Tensor | None = None,
        gain: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Model inputs.

        Args:
            video: uint8 (B, T, S, S, 3), or planar YUV (B, T, 3*S/2, S), which is converted first.
            waveform: int16 (B, samples).
            sound_samples: int64 (B,): samples of each clip that are sound; spectrogram rows past them are padded as
                the paper does at a clip's end. ``None``: all are.
            crop_box: float32 (B, 4): top, left, height, width, in pixels; ``None`` keeps whole frames.
            flip: bool (B,): mirror left and right.
            gain: float32 (B,): factor for the waveform.

        Returns:
            Video, float32 (B, 3, T, S, S), colour-normalised; log-mel, float32 (B, 1, frames, bins), normalised.
        """
        return self.frames(video, crop_box=crop_box, flip=flip), self.sound(
            waveform, sound_samples=sound_samples, gain=gain
        )

    @torch.no_grad()
    def frames(
        self,
        video: Tensor,
        *,
        crop_box: Tensor | None = None,
        flip: Tensor | None = None,
        frame_ops: Sequence[Sequence[FrameOp]] = (),
        erasures: Sequence[Erasure | None] = (),
    ) -> Tensor:
        """The video part of ``forward``, for models without sound.

        Args:
            video, crop_box, flip: as there.
            frame_ops: operations on each of the B clips; empty: none.
            erasures: box of each of the B clips that becomes noise; empty: none.
        """
        if video.ndim == 4:
            video = to_rgb(video)
        if frame_ops:
            video = apply_ops(video, frame_ops)
        pixels = crop_and_normalize(video, crop_box, self.spec, flip=flip)
        return erase_(pixels, erasures) if erasures else pixels

    @torch.no_grad()
    def sound(
        self,
        waveform: Tensor,
        *,
        sound_samples: Tensor | None = None,
        gain: Tensor | None = None,
        stripes: Tensor | None = None,
    ) -> Tensor:
        """The audio part of ``forward``, for models without video.

        Args:
            waveform, sound_samples, gain: as there.
            stripes: float32 (B, K, 4), what of the spectrogram is masked; ``None``: nothing.
        """
        scaled = waveform.float() / 32768
        if gain is not None:
            scaled = scaled * gain[:, None]
        log_mel: Tensor = self.log_mel(scaled, sound_samples)
        return log_mel if stripes is None else mask_stripes(log_mel, stripes)
