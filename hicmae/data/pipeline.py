"""What happens in a data worker: read and decode a planned batch's clips, draw their augmentations, stack them.

The stages are small picklable callables that ``webdataset.DataPipeline`` composes. Letters: B clips, T frames,
S pixels of a frame's side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from hicmae.config import InputSpec
from hicmae.data.augment import ClipDraws, Draws, EvaluationDraws
from hicmae.data.batch import ClipBatch, Skip
from hicmae.data.labels import LabelSpec
from hicmae.data.order import clip_generator, generator
from hicmae.data.plan import PlannedBatch
from hicmae.data.source import ClipSource, ClipUnreadableError
from hicmae.media.clip import DecodedClip, DecodeError
from hicmae.media.decode import Decoder, decode_clip

_REPLACEMENTS = 100  # tried for one clip before giving up: so many bad clips in a row are no accident


@dataclass(frozen=True, kw_only=True)
class ClipDecoder:
    """Decodes one window of a stored clip."""

    spec: InputSpec
    decoder: Decoder = "auto"
    require_video: bool = False
    """Whether a clip without a picture is an error (``no_video_stream``)."""

    def __call__(self, source: ClipSource, number: int, position: float) -> DecodedClip:
        """Read clip ``number`` and decode its window at ``position`` (0 earliest, 1 latest).

        Raises:
            DecodeError, ClipUnreadableError: the clip cannot be used; both have a ``reason``.
        """
        clip = source.read(number)
        try:
            return decode_clip(
                clip.video,
                clip.audio,
                spec=self.spec,
                position=position,
                span_s=clip.span_s,
                decoder=self.decoder,
                name=clip.clip_id,
                require_video=self.require_video,
            )
        except DecodeError:
            raise
        except Exception as error:
            error.add_note(f"while decoding clip {clip.clip_id!r} of {source.name}")
            raise


@dataclass(frozen=True, kw_only=True)
class LoadedClip:
    """A decoded clip with all that was drawn for it."""

    number: int
    clip_id: str
    decoded: DecodedClip
    draws: ClipDraws
    labels: dict[str, int | float]
    segment: int = 0
    valid: bool = True


def stack_clips(clips: Sequence[LoadedClip], skipped: Sequence[Skip]) -> ClipBatch:
    """Stack B clips into a batch."""
    draws = [clip.draws for clip in clips]
    first = clips[0]
    return ClipBatch(
        clip_ids=[clip.clip_id for clip in clips],
        video=torch.from_numpy(np.stack([clip.decoded.video for clip in clips])),
        waveform=torch.from_numpy(np.stack([clip.decoded.waveform for clip in clips])),
        sound_samples=torch.tensor([clip.decoded.sound_samples for clip in clips]),
        has_video=torch.tensor([clip.decoded.has_video for clip in clips]),
        has_audio=torch.tensor([clip.decoded.has_audio for clip in clips]),
        crop_box=torch.from_numpy(np.stack([draw.crop_box for draw in draws])),
        flip=torch.tensor([draw.flip for draw in draws]),
        gain=torch.tensor([draw.gain for draw in draws], dtype=torch.float32),
        video_visible=stack_optional([draw.video_visible for draw in draws]),
        audio_visible=stack_optional([draw.audio_visible for draw in draws]),
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
    )


def stack_optional(rows: Sequence[NDArray[np.int64] | None]) -> Tensor | None:
    present = [row for row in rows if row is not None]
    return torch.from_numpy(np.stack(present)) if present else None


@dataclass(kw_only=True)
class BuildTrainingBatches:
    """Second stage of training: read, decode, draw, replace what cannot be used, stack."""

    source: ClipSource
    decode: ClipDecoder
    draws: Draws
    labels: LabelSpec | None
    seed: int

    def __call__(self, plans: Iterable[PlannedBatch]) -> Iterator[ClipBatch]:
        for plan in plans:
            yield self._build(plan)

    def _build(self, plan: PlannedBatch) -> ClipBatch:
        clips: list[LoadedClip] = []
        skipped: list[Skip] = []
        taken = set(plan.joint[plan.batch].reshape(-1).tolist())
        for number in plan.clips.tolist():
            loaded = self._load(number, plan.epoch)
            if isinstance(loaded, Skip):
                skipped.append(loaded)
                loaded = self._replace(loaded, plan, taken)
                taken.add(loaded.number)
            clips.append(loaded)
        return stack_clips(clips, skipped)

    def _load(self, number: int, epoch: int) -> LoadedClip | Skip:
        info = self.source.info(number)
        draws = self.draws(clip_generator(self.seed, epoch, info.clip_id))
        try:
            decoded = self.decode(self.source, number, draws.position)
        except (DecodeError, ClipUnreadableError) as error:
            return Skip(clip_id=info.clip_id, reason=error.reason, detail=str(error))
        labels = self.labels.encode(info.labels, clip_id=info.clip_id) if self.labels else {}
        return LoadedClip(number=number, clip_id=info.clip_id, decoded=decoded, draws=draws, labels=labels)

    def _replace(self, skip: Skip, plan: PlannedBatch, taken: set[int]) -> LoadedClip:
        """Another clip of this epoch, none of the joint batch: a twin would be a false negative in contrast."""
        candidates = np.setdiff1d(plan.joint, np.fromiter(taken, dtype=np.int64))
        if not len(candidates):
            candidates = plan.joint.reshape(-1)  # an epoch of one batch has nothing else
        rng = generator("replacement", self.seed, plan.epoch, skip.clip_id)
        last = skip
        for number in rng.permutation(candidates)[:_REPLACEMENTS].tolist():
            loaded = self._load(number, plan.epoch)
            if isinstance(loaded, LoadedClip):
                return loaded
            last = loaded
        raise RuntimeError(
            f"{self.source.name}: clip {skip.clip_id!r} could not be used ({skip.reason}), nor could "
            f"{min(_REPLACEMENTS, len(candidates))} clips tried in its place; the last one: {last.detail}. "
            "Check the data with 'hicmae shards verify'"
        )


@dataclass(kw_only=True)
class BuildEvaluationBatches:
    """Evaluation: every (clip, segment) of this rank once; the last batch is filled up with ``valid=False``."""

    source: ClipSource
    decode: ClipDecoder
    draws: EvaluationDraws
    labels: LabelSpec | None
    batch_size: int
    rank: int
    world_size: int

    def __len__(self) -> int:
        items = len(self.source) * self.draws.segments
        return -(-items // (self.world_size * self.batch_size))

    def __call__(self) -> Iterator[ClipBatch]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        items = len(self.source) * self.draws.segments
        start = self.rank * len(self) * self.batch_size
        for batch in range(number, len(self), workers):
            first = start + batch * self.batch_size
            yield self._build(range(first, min(items, first + self.batch_size)))

    def _build(self, items: range) -> ClipBatch:
        clips: list[LoadedClip] = []
        skipped: list[Skip] = []
        for item in items:
            number, segment = divmod(item, self.draws.segments)
            info = self.source.info(number)
            draws = self.draws(segment)
            labels = self.labels.encode(info.labels, clip_id=info.clip_id) if self.labels else {}
            try:
                decoded, valid = self.decode(self.source, number, draws.position), True
            except (DecodeError, ClipUnreadableError) as error:
                skipped.append(Skip(clip_id=info.clip_id, reason=error.reason, detail=str(error)))
                decoded, valid = _nothing(self.decode.spec), False
            clips.append(
                LoadedClip(
                    number=number, clip_id=info.clip_id, decoded=decoded, draws=draws, labels=labels,
                    segment=segment, valid=valid,
                )
            )  # fmt: skip
        padding = LoadedClip(
            number=-1, clip_id="", decoded=_nothing(self.decode.spec), draws=self.draws(0),
            labels=self.labels.filler() if self.labels else {}, valid=False,
        )  # fmt: skip
        return stack_clips(clips + [padding] * (self.batch_size - len(clips)), skipped)


def _nothing(spec: InputSpec) -> DecodedClip:
    """Zeros in the place of a clip."""
    return DecodedClip(
        video=np.zeros((spec.num_frames, spec.image_size, spec.image_size, 3), np.uint8),
        waveform=np.zeros(spec.audio_samples, np.int16),
        has_video=False,
        has_audio=False,
        start_s=0.0,
        frame_times_s=np.full(spec.num_frames, np.nan),
        sound_samples=0,
    )
