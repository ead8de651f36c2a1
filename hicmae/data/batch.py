"""What the data workers hand to the training process: small integer types, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from hicmae.media.rand_augment import FrameOp
from hicmae.media.random_erasing import Erasure
from hicmae.media.yuv import PixelFormat


@dataclass(frozen=True, kw_only=True)
class Skip:
    """A clip that could not be used, and why."""

    clip_id: str
    reason: str
    """Short code for counting: truncated, not_a_video, shard_truncated ..."""
    detail: str
    """A sentence with what was found."""


_OF_VIEWS = frozenset(
    ("crop_box", "flip", "gain", "video_visible", "audio_visible", "video_decoded", "audio_decoded", "stripes")
)


@dataclass(kw_only=True)
class ClipBatch:
    """B clips as the workers ship them; cropping, normalising and log-mel happen on the whole batch, on the device.

    With ``views`` above 1 a clip's pixels and sound are shipped once, and what is drawn for it (crop, flip, gain,
    masks, operations, boxes, stripes) once for each view: those fields have R rows a clip, one after another, where it
    says (B, ...) here. ``each_view`` makes of it a batch with a row of everything for each view, as models take it.

    Shape letters: B clips, R views, T frames, S pixels of a frame's side, V visible tokens, M' decoded tokens.
    """

    clip_ids: list[str]
    """B names; the empty string where ``valid`` is False for padding."""
    video: Tensor
    """uint8 (B, T, S, S, 3), RGB, or (B, T, 3*S/2, S), planar YUV, which ``BatchTransform`` takes too (``pixels`` says
    which); black where ``has_video`` is False."""
    waveform: Tensor
    """int16 (B, samples), mono; zeros where ``has_audio`` is False."""
    sound_samples: Tensor
    """int64 (B,): samples of ``waveform`` that are sound; what follows is padding."""
    has_video: Tensor
    """bool (B,): whether the model gets a picture of the clip."""
    has_audio: Tensor
    """bool (B,): whether the model gets any sound of it."""
    crop_box: Tensor
    """float32 (B, 4): top, left, height, width, in pixels of a frame."""
    flip: Tensor
    """bool (B,): mirror left and right."""
    gain: Tensor
    """float32 (B,): factor for the waveform."""
    video_visible: Tensor | None = None
    """int64 (B, V), ascending: video tokens that the encoder sees; None outside pre-training."""
    audio_visible: Tensor | None = None
    """int64 (B, V), ascending: audio tokens that the encoder sees; None outside pre-training."""
    video_decoded: Tensor | None = None
    """int64 (B, M'), ascending: masked video tokens that are decoded; None: all."""
    audio_decoded: Tensor | None = None
    """int64 (B, M'), ascending: masked audio tokens that are decoded; None: all."""
    views: int = 1
    """R, views of each clip that this batch stands for."""
    clip_of: Tensor | None = None
    """int64 (B,): number of the clip that a row shows, in a batch of several views; None: each row another clip."""
    frame_ops: list[tuple[FrameOp, ...]] = field(default_factory=list)
    """What is done to all frames of each of the B clips, before the crop; empty where nothing is done to any."""
    erasures: list[Erasure | None] = field(default_factory=list)
    """Box of each of the B clips that becomes noise, after the crop; empty where there is none."""
    stripes: Tensor | None = None
    """float32 (B, K, 4): stripes of the spectrogram that are masked; None without SpecAugment."""
    labels: dict[str, Tensor] = field(default_factory=dict)
    """int64 (B,) for each categorical label, float32 (B,) for each dimension."""
    index: Tensor
    """int64 (B,): number of the clip in its source; -1 for padding."""
    segment: Tensor
    """int64 (B,): which test segment of the clip."""
    valid: Tensor
    """bool (B,): False for padding and for test clips that could not be decoded; always True in training."""
    skipped: list[Skip] = field(default_factory=list)
    """Clips that this batch wanted and could not use."""
    video_seconds: float = 0.0
    """Seconds of picture in the batch's windows."""
    audio_seconds: float = 0.0
    """Seconds of sound in the batch's windows."""
    bytes_read: int = 0
    """Stored bytes that were read for the batch, those of clips that could not be used included. Of the batches that
    show several windows of the same clips, the first bears all costs."""
    read_seconds: float = 0.0
    """The worker's time spent reading them."""
    decode_seconds: float = 0.0
    """The worker's time spent decoding them."""
    shard_costs: dict[int, tuple[int, float, float]] = field(default_factory=dict)
    """By number of the shard: clips, seconds of reading, seconds of decoding."""

    @property
    def pixels(self) -> PixelFormat:
        """What ``video`` holds."""
        return "yuv420p" if self.video.ndim == 4 else "rgb24"

    def __len__(self) -> int:
        return len(self.clip_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """A copy with all tensors on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """A copy with all tensors in page-locked memory, from which copies to the device can overlap with work."""
        return self._map(lambda tensor: tensor.pin_memory())

    def first(self, count: int) -> Self:
        """The first ``count`` clips, with all their views."""
        drawn = count * self.views
        return replace(
            self._map(lambda tensor: tensor[:count], lambda tensor: tensor[:drawn]),
            clip_ids=self.clip_ids[:count],
            frame_ops=self.frame_ops[:drawn],
            erasures=self.erasures[:drawn],
        )

    def each_view(self) -> Self:
        """A batch with a row for each view, the views of a clip one after another; itself where each clip has one.

        Meant for the device: pixels and sound are repeated here.
        """
        if self.views == 1:
            return self

        def repeated(tensor: Tensor) -> Tensor:
            return tensor.unsqueeze(1).expand(-1, self.views, *tensor.shape[1:]).flatten(0, 1)

        return replace(
            self._map(repeated, lambda tensor: tensor),
            clip_ids=[clip_id for clip_id in self.clip_ids for _ in range(self.views)],
            clip_of=repeated(self.index),
            views=1,
        )

    def _map(self, function: Callable[[Tensor], Tensor], of_views: Callable[[Tensor], Tensor] | None = None) -> Self:
        """A copy with ``function`` of each tensor, or with ``of_views`` of those that have a row for each view."""
        changed: dict[str, Any] = {
            field.name: (of_views if of_views and field.name in _OF_VIEWS else function)(value)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **changed, labels={name: function(value) for name, value in self.labels.items()})
