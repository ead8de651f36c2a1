"""What happens in a data worker: read and decode a planned batch's clips, draw their augmentations, stack them.

The stages are small picklable callables that ``webdataset.DataPipeline`` composes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from hicmae.data.augment import ClipDraws, Draws, EvaluationDraws
from hicmae.data.batch import ClipBatch, Skip
from hicmae.data.batch_memory import BatchMemory
from hicmae.data.clip_decoder import ClipDecoder, LoadedClip, black_clip, stack_clips, withhold
from hicmae.data.costs import Costs
from hicmae.data.labels import LabelSpec
from hicmae.data.order import clip_generator, generator
from hicmae.data.plan import PlannedBatch
from hicmae.data.skips import UnusableDataError
from hicmae.data.source import ClipSource, ClipUnreadableError
from hicmae.media.clip import ClipSlot, DecodeError
from hicmae.media.decode import PixelFormat

_REPLACEMENTS = 100  # tried for one clip before giving up: so many bad clips in a row are no accident


@dataclass(kw_only=True)
class BuildTrainingBatches:
    """Second stage of training: read, decode, draw, replace what cannot be used, stack."""

    source: ClipSource
    decode: ClipDecoder
    draws: Draws
    labels: LabelSpec | None
    seed: int
    windows_per_clip: int = 1
    """Windows of each clip that are decoded together; they go into as many batches, so that no batch holds two."""
    views_per_clip: int = 1
    """Views of each window: as many draws of crop, gain and masks, all of them in its batch."""
    pixels: PixelFormat = field(init=False)

    def __post_init__(self) -> None:
        for name in ("windows_per_clip", "views_per_clip"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        self.pixels = self.decode.format_of(self.source)

    def __call__(self, plans: Iterable[PlannedBatch]) -> Iterator[tuple[ClipBatch, ...]]:
        """For each planned batch, one batch for every window that is yet to be handed out."""
        for plan in plans:
            yield self._build(plan)

    def _build(self, plan: PlannedBatch) -> tuple[ClipBatch, ...]:
        # A resumed group is decoded whole: whether a clip can be used is decided by all its windows together.
        windows = range(self.windows_per_clip)
        memories = [BatchMemory.allocate(len(plan.clips), self.decode.spec, self.pixels) for _ in windows]
        costs = Costs()
        rows: list[list[LoadedClip]] = []
        skipped: list[Skip] = []
        taken = set(plan.joint[plan.batch].reshape(-1).tolist())
        times = plan.times if plan.times is not None else np.zeros_like(plan.clips)
        for row, (number, time) in enumerate(zip(plan.clips.tolist(), times.tolist(), strict=True)):
            slots = [memory.slot(row) for memory in memories]
            loaded = self._load(number, plan.epoch, windows, slots, costs, time)
            if isinstance(loaded, Skip):
                skipped.append(loaded)
                # Where clips come again, each time another one stands in, with draws that no other row has.
                stead = 0 if plan.times is None else -1 - (time * len(self.source) + number)
                loaded = self._replace(loaded, plan, taken, windows, slots, costs, stead)
                taken.add(loaded[0].number)
            rows.append(loaded)
        batches = []
        for memory, clips in zip(memories, zip(*rows, strict=True), strict=True):
            batches.append(stack_clips(clips, memory, self.decode.spec, skipped=skipped, costs=costs))
            skipped, costs = [], Costs()  # counted once
        return tuple(batches[plan.first_window :])

    def _load(
        self, number: int, epoch: int, windows: range, slots: Sequence[ClipSlot], costs: Costs, time: int = 0
    ) -> list[LoadedClip] | Skip:
        """The windows of a clip, decoded into ``slots``; ``time``: how often it came in this epoch before."""
        info = self.source.info(number)
        draws = [self._draw(info.clip_id, epoch, window, time) for window in windows]
        positions = [views[0].position for views in draws]
        try:
            decoded = self.decode(self.source, number, positions, slots=slots, pixels=self.pixels, costs=costs)
        except (DecodeError, ClipUnreadableError) as error:
            return Skip(clip_id=info.clip_id, reason=error.reason, detail=str(error))
        # Drawn to be dropped at random: not from a clip that has nothing else.
        decoded = [
            withhold(clip, views[0].withheld, self.pixels)
            if views[0].withheld and clip.has_video and clip.has_audio
            else clip
            for clip, views in zip(decoded, draws, strict=True)
        ]
        labels = self.labels.encode(info.labels, clip_id=info.clip_id) if self.labels else {}
        return [
            LoadedClip(number=number, clip_id=info.clip_id, decoded=clip, draws=views, labels=labels)
            for clip, views in zip(decoded, draws, strict=True)
        ]

    def _draw(self, clip_id: str, epoch: int, window: int, time: int) -> tuple[ClipDraws, ...]:
        """The draws for each view of a window. The first says which window it is and what of it is withheld."""
        views = range(self.views_per_clip)
        return tuple(self.draws(clip_generator(self.seed, epoch, clip_id, window, view, time)) for view in views)

    def _replace(
        self,
        skip: Skip,
        plan: PlannedBatch,
        taken: set[int],
        windows: range,
        slots: Sequence[ClipSlot],
        costs: Costs,
        stead: int,
    ) -> list[LoadedClip]:
        """Another clip of this epoch, none of the joint batch: a twin would be a false negative in contrast.

        ``stead``: stands for its ``time``, as in ``_load``; 0 where clips do not come again.
        """
        rng = generator("replacement", self.seed, plan.epoch, skip.clip_id, *([stead] if stead else []))
        candidates = _candidates(plan.joint.reshape(-1), taken, rng)
        last = skip
        for number in candidates:
            loaded = self._load(number, plan.epoch, windows, slots, costs, stead)
            if isinstance(loaded, list):
                return loaded
            last = loaded
        raise UnusableDataError(
            f"{self.source.name}: clip {skip.clip_id!r} could not be used ({skip.reason}), nor could "
            f"{len(candidates)} clips tried in its place; the last one: {last.detail}. "
            "Check the data with 'hicmae shards verify'"
        )


def _candidates(epoch: NDArray[np.int64], taken: set[int], rng: np.random.Generator) -> list[int]:
    """Clips of the epoch to try in another one's place, in order; none that is ``taken``, if there are others.

    Few are drawn rather than all put in order: an epoch of a million clips would cost tenths of a second a bad clip.
    """
    places = rng.choice(len(epoch), size=min(len(epoch), _REPLACEMENTS + len(taken)), replace=False)
    drawn = list(dict.fromkeys(epoch[places].tolist()))  # a clip may come several times in an epoch with weights
    others = [number for number in drawn if number not in taken]
    return (others or drawn)[:_REPLACEMENTS]  # an epoch of one batch has nothing else


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
    pixels: PixelFormat = field(init=False)

    def __post_init__(self) -> None:
        self.pixels = self.decode.format_of(self.source)

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
        memory = BatchMemory.allocate(self.batch_size, self.decode.spec, self.pixels)
        slots = [memory.slot(row) for row in range(self.batch_size)]
        costs = Costs()
        clips: list[LoadedClip] = []
        skipped: list[Skip] = []
        pairs = [divmod(item, self.draws.segments) for item in items]
        for number, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
            segments = [segment for _, segment in group]
            clips += self._load(number, segments, slots[len(clips) :][: len(segments)], skipped, costs)
        for slot in slots[len(items) :]:
            padding = LoadedClip(
                number=-1,
                clip_id="",
                decoded=black_clip(slot, self.pixels),
                draws=(self.draws(0),),
                labels=self.labels.filler() if self.labels else {},
                valid=False,
            )
            clips.append(padding)
        return stack_clips(clips, memory, self.decode.spec, skipped=skipped, costs=costs)

    def _load(
        self, number: int, segments: list[int], slots: list[ClipSlot], skipped: list[Skip], costs: Costs
    ) -> list[LoadedClip]:
        """Segments of a clip, decoded into ``slots``; black and silent ones where it cannot be used."""
        info = self.source.info(number)
        labels = self.labels.encode(info.labels, clip_id=info.clip_id) if self.labels else {}
        draws = [self.draws(segment) for segment in segments]
        positions = [draw.position for draw in draws]
        try:
            decoded = self.decode(self.source, number, positions, slots=slots, pixels=self.pixels, costs=costs)
            if withheld := self.draws.withheld:
                decoded = [withhold(clip, withheld, self.pixels) for clip in decoded]
            valid = True
        except (DecodeError, ClipUnreadableError) as error:
            skip = Skip(clip_id=info.clip_id, reason=error.reason, detail=str(error))
            skipped += [skip] * len(segments)  # each is a row of the evaluation
            decoded, valid = [black_clip(slot, self.pixels) for slot in slots], False
        return [
            LoadedClip(
                number=number, clip_id=info.clip_id, decoded=clip, draws=(draw,), labels=labels, segment=segment,
                valid=valid,
            )
            for clip, draw, segment in zip(decoded, draws, segments, strict=True)
        ]  # fmt: skip
