"""What is drawn for a clip: where its window lies, its crop, its gain and its masks. The drawing is done here, the
work on pixels and samples later, on the whole batch.

Each object takes the clip's own generator (``order.clip_generator``), so that a clip's draws depend on seed, epoch
and clip alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hicmae.config import ModelConfig
from hicmae.masking import random_mask, tube_mask
from hicmae.media.crops import multi_scale_crop_box, random_resized_crop_box


@dataclass(frozen=True, kw_only=True)
class ClipDraws:
    """The draws for one clip."""

    position: float
    """Which window of the clip, 0 (earliest) to 1 (latest)."""
    crop_box: NDArray[np.float32]
    """float32 (4,): top, left, height, width, in pixels of the decoded frame."""
    flip: bool = False
    """Mirror left and right."""
    gain: float = 1.0
    """Factor for the waveform."""
    video_visible: NDArray[np.int64] | None = None
    """int64 (V,), ascending: visible video tokens."""
    audio_visible: NDArray[np.int64] | None = None
    """int64 (V,), ascending: visible audio tokens."""


class Draws(Protocol):
    """Draws for training; picklable."""

    def __call__(self, rng: np.random.Generator) -> ClipDraws:
        """The draws for the clip that ``rng`` belongs to."""


@dataclass(frozen=True, kw_only=True)
class PretrainingDraws:
    """The paper's pre-training (section 4.2): random window, multi-scale crop, no flip, gain Beta(10, 10) + 0.5,
    tube masks for video and random masks for audio."""

    model: ModelConfig
    """Gives the size of the frames and the grids that the masks lie on."""
    video_mask_ratio: float = 0.9
    """Share of video tokens masked."""
    audio_mask_ratio: float = 0.8
    """Share of audio tokens masked."""

    def __call__(self, rng: np.random.Generator) -> ClipDraws:
        """Draws for one clip."""
        time, frequency = self.model.audio_grid
        return ClipDraws(
            position=float(rng.random()),
            crop_box=multi_scale_crop_box(rng, self.model.image_size),
            gain=float(rng.beta(10, 10) + 0.5),
            video_visible=tube_mask(rng, self.model.video_grid, self.video_mask_ratio),
            audio_visible=random_mask(rng, time * frequency, self.audio_mask_ratio),
        )


@dataclass(frozen=True, kw_only=True)
class RecognitionDraws:
    """Fine-tuning: random window, random resized crop, flip in half of the clips."""

    image_size: int
    """Side of the decoded frames, in pixels."""

    def __call__(self, rng: np.random.Generator) -> ClipDraws:
        """Draws for one clip."""
        return ClipDraws(
            position=float(rng.random()),
            crop_box=random_resized_crop_box(rng, self.image_size),
            flip=bool(rng.random() < 0.5),
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationDraws:
    """Nothing random: the whole frame, and ``segments`` windows spread evenly over the clip (one: its middle)."""

    image_size: int
    """Side of the decoded frames, in pixels."""
    segments: int = 2
    """Windows a clip; the paper averages the probabilities of 2."""

    def __post_init__(self) -> None:
        if self.segments < 1:
            raise ValueError(f"segments={self.segments} must be at least 1")

    def __call__(self, segment: int) -> ClipDraws:
        """The window number ``segment``."""
        position = segment / (self.segments - 1) if self.segments > 1 else 0.5
        box = np.array([0, 0, self.image_size, self.image_size], dtype=np.float32)
        return ClipDraws(position=position, crop_box=box)
