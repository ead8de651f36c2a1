"""Memory that a batch is decoded into: allocated once a batch, and where the training process can see it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from hicmae.config import InputSpec
from hicmae.media.clip import ClipSlot
from hicmae.media.yuv import PixelFormat, frame_shape


@dataclass(frozen=True, kw_only=True)
class BatchMemory:
    """The large tensors of a batch, not yet filled."""

    video: Tensor
    """uint8 (B, T, S, S, 3), or (B, T, 3*S/2, S) for planar frames."""
    waveform: Tensor
    """int16 (B, samples)"""
    pixels: PixelFormat

    @classmethod
    def allocate(cls, batch_size: int, spec: InputSpec, pixels: PixelFormat) -> Self:
        """Memory for ``batch_size`` clips; shared with the training process where this is a data worker."""
        frame = frame_shape(spec.image_size, pixels)
        return cls(
            video=_empty((batch_size, spec.num_frames, *frame), torch.uint8),
            waveform=_empty((batch_size, spec.audio_samples), torch.int16),
            pixels=pixels,
        )

    def slot(self, row: int) -> ClipSlot:
        """The place of one clip."""
        return ClipSlot(video=self.video[row].numpy(), waveform=self.waveform[row].numpy())


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    # A tensor in shared memory is handed over as it is; any other is copied there first. torch's own
    # ``default_collate`` does the same; ``share_memory_`` would touch every page once more.
    shared: Any = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(shared).view(shape)
