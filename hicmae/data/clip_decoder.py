"""One clip in a data worker: read, decoded into its rows of the batch, and stacked with the others.

Letters: B clips, T frames, S pixels of a frame's side.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hicmae.config import InputSpec
from hicmae.data.augment import ClipDraws, Withheld
from hicmae.data.batch import ClipBatch, Skip
from hicmae.data.batch_memory import BatchMemory
from hicmae.data.costs import Costs
from hicmae.data.pixels import Pixels, choose_pixels
from hicmae.data.source import ClipSource, ClipUnreadableError
from hicmae.media.clip import ClipSlot, DecodedClip, DecodeError
from hicmae.media.decode import Decoder, PixelFormat, decode_windows
from hicmae.media.spec_augment import no_stripes
from hicmae.media.yuv import fill_black


@dataclass(frozen=True, kw_only=True)
class ClipDecoder:
    """Decodes windows of a stored clip."""

    spec: InputSpec
    decoder: Decoder = "auto"
    require_video: bool = False
    """Whether a clip without a picture is an error (``no_video_stream``)."""
    pixels: Pixels = "auto"
    """In which form frames are shipped."""
    modalities: tuple[str, ...] = ("video", "audio")
    """What is decoded; the other half of every clip counts as missing."""

    def format_of(self, source: ClipSource) -> PixelFormat:
        """The form in which clips of ``source`` are shipped."""
        return choose_pixels(self.pixels, source, self.spec, self.decoder)

    def __call__(
        self,
        source: ClipSource,
        number: int,
        positions: Sequence[float],
        *,
        slots: Sequence[ClipSlot],
        pixels: PixelFormat,
        costs: Costs,
    ) -> list[DecodedClip]:
        """Read clip ``number`` once and decode its windows at ``positions`` (0 earliest, 1 latest) into ``slots``.

        Raises:
            DecodeError, ClipUnreadableError: the clip cannot be used; both have a ``reason``.
        """
        started = time.perf_counter()
        read, size = started, 0
        try:
            clip = source.read(number)
            read, size = time.perf_counter(), len(clip.video or b"") + len(clip.audio or b"")
            return decode_windows(
                clip.video,
                clip.audio,
                spec=self.spec,
                positions=positions,
                span_s=clip.span_s,
                square=clip.square,
                decoder=self.decoder,
                pixels=pixels,
                slots=slots,
                name=clip.clip_id,
                require_video=self.require_video,
                picture="video" in self.modalities,
                sound="audio" in self.modalities,
            )
        except (DecodeError, ClipUnreadableError):
            raise
        except Exception as error:
            error.add_note(f"while reading clip {source.info(number).clip_id!r} of {source.name}")
            raise
        finally:
            ended = time.perf_counter()
            if not size:  # reading failed
                read = ended
            costs.add(source.shard_of(number), size=size, read_seconds=read - started, decode_seconds=ended - read)


@dataclass(frozen=True, kw_only=True)
class LoadedClip:
    """A decoded window with all that was drawn for it."""

    number: int
    clip_id: str
    decoded: DecodedClip
    """Lies in the batch's memory."""
    draws: tuple[ClipDraws, ...]
    """For each view; the first says which window all of them show."""
    labels: dict[str, int | float]
    segment: int = 0
    valid: bool = True


def stack_clips(
    clips: Sequence[LoadedClip], memory: BatchMemory, spec: InputSpec, *, skipped: Sequence[Skip], costs: Costs
) -> ClipBatch:
    """Make a batch of B clips, whose frames and sound lie in ``memory`` already."""
    draws = [draw for clip in clips for draw in clip.draws]
    decoded = [clip.decoded for clip in clips]
    drawn_for = [(draw, clip.decoded) for clip in clips for draw in clip.draws]
    first = clips[0]
    return ClipBatch(
        clip_ids=[clip.clip_id for clip in clips],
        video=memory.video,
        waveform=memory.waveform,
        sound_samples=torch.tensor([clip.sound_samples for clip in decoded]),
        has_video=torch.tensor([clip.has_video for clip in decoded]),
        has_audio=torch.tensor([clip.has_audio for clip in decoded]),
        crop_box=torch.from_numpy(np.stack([draw.crop_box for draw in draws])),
        flip=torch.tensor([draw.flip for draw in draws]),
        gain=torch.tensor([draw.gain for draw in draws], dtype=torch.float32),
        video_visible=stack_optional([draw.video_visible for draw in draws]),
        audio_visible=stack_optional([draw.audio_visible for draw in draws]),
        video_decoded=stack_optional([draw.video_decoded for draw in draws]),
        audio_decoded=stack_optional([draw.audio_decoded for draw in draws]),
        views=len(first.draws),
        # What a clip lacks always looks and sounds the same.
        frame_ops=_unless_empty([d.frame_ops if c.has_video else () for d, c in drawn_for]),
        erasures=_unless_empty([d.erasure if c.has_video else None for d, c in drawn_for]),
        stripes=stack_optional(
            [d.stripes if c.has_audio or d.stripes is None else no_stripes(len(d.stripes)) for d, c in drawn_for]
        ),
        labels={
            name: torch.tensor(
                [clip.labels[name] for clip in clips],
                dtype=torch.int64 if isinstance(value, int) else torch.float32,
            )
            for name, value in first.labels.items()
        },
        index=torch.tensor([clip.number for clip in clips]),
        segment=torch.tensor([clip.segment for clip in clips]),
        valid=torch.tensor([clip.valid for clip in clips]),
        skipped=list(skipped),
        video_seconds=sum(float(np.ptp(c.frame_times_s)) + spec.frame_interval_s for c in decoded if c.has_video),
        audio_seconds=sum(clip.sound_samples for clip in decoded) / spec.sample_rate_hz,
        bytes_read=costs.bytes_read,
        read_seconds=costs.read_seconds,
        decode_seconds=costs.decode_seconds,
        shard_costs=costs.shards,
    )


def stack_optional(rows: Sequence[NDArray[Any] | None]) -> Tensor | None:
    present = [row for row in rows if row is not None]
    return torch.from_numpy(np.stack(present)) if present else None


def _unless_empty(rows: list[Any]) -> list[Any]:
    return rows if any(rows) else []


def black_clip(slot: ClipSlot, pixels: PixelFormat) -> DecodedClip:
    """Black and silence in the place of a clip."""
    fill_black(slot.video, pixels)
    slot.waveform[:] = 0
    return DecodedClip(
        video=slot.video,
        waveform=slot.waveform,
        has_video=False,
        has_audio=False,
        start_s=0.0,
        frame_times_s=np.full(len(slot.video), np.nan),
        sound_samples=0,
    )


def withhold(clip: DecodedClip, modality: Withheld, pixels: PixelFormat) -> DecodedClip:
    """The clip as if it had been decoded without picture, or without sound; its memory is overwritten."""
    if modality == "video":
        fill_black(clip.video, pixels)
        return replace(clip, has_video=False, frame_times_s=np.full(len(clip.video), np.nan))
    clip.waveform[:] = 0
    return replace(clip, has_audio=False, sound_samples=0)
