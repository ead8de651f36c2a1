"""What is drawn for a clip: where its window lies, its crop, its gain and its masks. The drawing is done here, the
work on pixels and samples later, on the whole batch.

Each object takes the clip's own generator (``order.clip_generator``), so that a clip's draws depend on seed, epoch
and clip alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hicmae.config import ModelConfig
from hicmae.masking import decoded_count, random_decoded, random_mask, running_cells, tube_mask, visible_count
from hicmae.media.crops import multi_scale_crop_box, random_resized_crop_box
from hicmae.media.rand_augment import FrameOp, RandAugment, draw_ops
from hicmae.media.random_erasing import Erasure, draw_erasure
from hicmae.media.spec_augment import SpecAugment, draw_stripes

Withheld = Literal["video", "audio"]
"""The half of a clip that a model does not get, though the clip has it."""


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
    video_decoded: NDArray[np.int64] | None = None
    """int64 (M',), ascending: masked video tokens that are decoded; None: all."""
    audio_decoded: NDArray[np.int64] | None = None
    """int64 (M',), ascending: masked audio tokens that are decoded; None: all."""
    frame_ops: tuple[FrameOp, ...] = ()
    """RandAugment: what is done to all frames, before the crop."""
    erasure: Erasure | None = None
    """Random erasing: the box that becomes noise, after the crop."""
    stripes: NDArray[np.float32] | None = None
    """SpecAugment: float32 (K, 4), the stripes masked; None where it is off."""
    withheld: Withheld | None = None
    """What the model gets as if the clip lacked it: black or silence."""


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
    video_decode_ratio: float = 1.0
    """Share of the masked video tokens that is decoded; 1: all (the paper's)."""
    audio_decode_ratio: float = 1.0
    """Share of the masked audio tokens that is decoded; 1: all (the paper's)."""

    def __post_init__(self) -> None:
        time, rows, columns = self.model.video_grid
        for name, tokens, slots in (("video", rows * columns, time), ("audio", self.model.audio_tokens, 1)):
            masked = tokens - visible_count(tokens, getattr(self, f"{name}_mask_ratio"))
            try:
                decoded_count(masked * slots, getattr(self, f"{name}_decode_ratio"))
            except ValueError as error:
                raise ValueError(f"{name}_decode_ratio: {error}") from None

    def __call__(self, rng: np.random.Generator) -> ClipDraws:
        """Draws for one clip."""
        position = float(rng.random())
        crop_box = multi_scale_crop_box(rng, self.model.image_size)
        gain = float(rng.beta(10, 10) + 0.5)
        video_visible = tube_mask(rng, self.model.video_grid, self.video_mask_ratio)
        audio_visible = random_mask(rng, self.model.audio_tokens, self.audio_mask_ratio)
        # Last, and a generator for each, so that switching one on does not shift the draws of anything else.
        for_video, for_audio = (np.random.default_rng(seed) for seed in rng.integers(2**63, size=2))
        return ClipDraws(
            position=position,
            crop_box=crop_box,
            gain=gain,
            video_visible=video_visible,
            audio_visible=audio_visible,
            video_decoded=running_cells(for_video, self.model.video_grid, video_visible, self.video_decode_ratio)
            if self.video_decode_ratio < 1
            else None,
            audio_decoded=random_decoded(for_audio, self.model.audio_tokens, audio_visible, self.audio_decode_ratio)
            if self.audio_decode_ratio < 1
            else None,
        )


@dataclass(frozen=True, kw_only=True)
class RecognitionAugment:
    """What fine-tuning does to its training clips beside window, crop and flip. The defaults are the paper's
    (section 4.2); what the paper does not use is off."""

    rand_augment: RandAugment | None = RandAugment()  # noqa: RUF009  frozen
    """Operations on all frames of a clip; None: none."""
    erase_probability: float = 0.25
    """Share of clips of which a box becomes noise; 0 is off."""
    waveform_gain: bool = False
    """Multiply the sound by Beta(10, 10) + 0.5, as pre-training does."""
    spec_augment: SpecAugment | None = None
    """Stripes of the spectrogram masked; None: none."""
    drop_video: float = 0.0
    """Share of clips whose picture is withheld; never both picture and sound, nor the only one that a clip has."""
    drop_audio: float = 0.0
    """Share of clips whose sound is withheld."""

    def __post_init__(self) -> None:
        for name in ("erase_probability", "drop_video", "drop_audio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie between 0 and 1")
        if self.drop_video + self.drop_audio > 1:
            raise ValueError(
                f"drop_video={self.drop_video} and drop_audio={self.drop_audio} are together more than 1, but a clip "
                "keeps one of the two; lower them"
            )


@dataclass(frozen=True, kw_only=True)
class RecognitionDraws:
    """Fine-tuning: random window, random resized crop, flip in half of the clips, and what ``augmentation`` adds."""

    image_size: int
    """Side of the decoded frames, in pixels."""
    augmentation: RecognitionAugment = RecognitionAugment()

    def __call__(self, rng: np.random.Generator) -> ClipDraws:
        """Draws for one clip."""
        position = float(rng.random())
        crop_box = random_resized_crop_box(rng, self.image_size)
        flip = bool(rng.random() < 0.5)
        # A generator for each of what follows, so that switching one on does not shift the draws of another.
        for_frames, for_erasing, for_gain, for_stripes, for_dropping = (
            np.random.default_rng(seed) for seed in rng.integers(2**63, size=5)
        )
        settings = self.augmentation
        erased = for_erasing.random() < settings.erase_probability
        return ClipDraws(
            position=position,
            crop_box=crop_box,
            flip=flip,
            gain=float(for_gain.beta(10, 10) + 0.5) if settings.waveform_gain else 1.0,
            frame_ops=draw_ops(for_frames, settings.rand_augment) if settings.rand_augment else (),
            erasure=draw_erasure(for_erasing, self.image_size) if erased else None,
            stripes=draw_stripes(for_stripes, settings.spec_augment) if settings.spec_augment else None,
            withheld=self._withheld(for_dropping.random()),
        )

    def _withheld(self, place: float) -> Withheld | None:
        """From a number drawn evenly from 0 to 1: its lower end drops the picture, its upper end the sound."""
        if place < self.augmentation.drop_video:
            return "video"
        return "audio" if place >= 1 - self.augmentation.drop_audio else None


@dataclass(frozen=True, kw_only=True)
class EvaluationDraws:
    """Nothing random: the whole frame, and ``segments`` windows spread evenly over the clip (one: its middle)."""

    image_size: int
    """Side of the decoded frames, in pixels."""
    segments: int = 2
    """Windows a clip; the paper averages the probabilities of 2."""
    withheld: Withheld | None = None
    """What the model gets of no clip, whichever of both the clip has."""

    def __post_init__(self) -> None:
        if self.segments < 1:
            raise ValueError(f"segments={self.segments} must be at least 1")

    def __call__(self, segment: int) -> ClipDraws:
        """The window number ``segment``."""
        position = segment / (self.segments - 1) if self.segments > 1 else 0.5
        box = np.array([0, 0, self.image_size, self.image_size], dtype=np.float32)
        return ClipDraws(position=position, crop_box=box, withheld=self.withheld)
