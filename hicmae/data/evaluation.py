"""Clips for validation and test: each clip and each segment exactly once over all ranks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import webdataset as wds

from hicmae.config import InputSpec
from hicmae.data.augment import EvaluationDraws
from hicmae.data.batch import ClipBatch
from hicmae.data.labels import LabelSpec
from hicmae.data.pipeline import BuildEvaluationBatches, ClipDecoder
from hicmae.data.source import ClipSource
from hicmae.data.stream import SkipCounter, close_workers, web_loader
from hicmae.media.decode import Decoder


class EvaluationLoader:
    """An iterable over every (clip, segment) once; the same each time.

    Every rank gets the same number of batches of the same size. Rows with ``valid`` False stand for no clip (padding)
    or for a clip that could not be decoded, which ``skipped`` lists: leave them out of every count. Sum
    probabilities over the segments of a clip by ``index``.

    Args:
        source: the clips.
        spec: size and timing of the input.
        segments: windows a clip, spread evenly from its start to its end; one window is its middle.
        labels: the labels to compare with; None yields none. All are checked before the first batch.
        batch_size, num_workers, prefetch, rank, world_size, decoder, require_video, pin_memory, max_skip_fraction:
            as for ``TrainStream``.

    Raises:
        ValueError: an unusable label, or settings out of range.
    """

    def __init__(
        self,
        source: ClipSource,
        *,
        spec: InputSpec,
        segments: int = 2,
        labels: LabelSpec | None = None,
        batch_size: int,
        num_workers: int = 0,
        prefetch: int = 2,
        rank: int = 0,
        world_size: int = 1,
        decoder: Decoder = "auto",
        require_video: bool = False,
        pin_memory: bool = False,
        max_skip_fraction: float = 0.05,
    ) -> None:
        if batch_size < 1 or num_workers < 0:
            raise ValueError(f"batch_size={batch_size} must be at least 1, num_workers={num_workers} at least 0")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank} must lie within 0..{world_size - 1} (world_size={world_size})")
        if labels is not None:
            labels.check(source)
        self.source = source
        self.wait_seconds = 0.0
        """Time spent waiting for batches, in seconds, over all passes."""
        self._build = BuildEvaluationBatches(
            source=source,
            decode=ClipDecoder(spec=spec, decoder=decoder, require_video=require_video),
            draws=EvaluationDraws(image_size=spec.image_size, segments=segments),
            labels=labels,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
        )
        self._max_skip_fraction = max_skip_fraction
        self._skips = self._new_counter()
        # small validation sets are usual, and an idle worker does no harm: there are at most as many as batches
        self._loader = web_loader(
            wds.DataPipeline(self._build),
            num_workers=min(num_workers, len(self._build)),
            prefetch=prefetch,
            pin_memory=pin_memory,
        )

    def _new_counter(self) -> SkipCounter:
        # held against the whole pass: the share of one of many ranks may be a handful of clips
        items = len(self.source) * self._build.draws.segments
        return SkipCounter(self._max_skip_fraction, items, self.source.name)

    def __len__(self) -> int:
        """Batches a pass, the same on every rank."""
        return len(self._build)

    @property
    def skipped(self) -> Counter[str]:
        """(Clip, segment) pairs that the latest pass of this process could not decode, by reason."""
        return self._skips.reasons

    @property
    def skipped_clips(self) -> dict[str, str]:
        """Reason by name of each clip that the latest pass could not decode."""
        return self._skips.names

    def __iter__(self) -> Iterator[ClipBatch]:
        """All batches of this rank, in the order of the source."""
        self._skips = self._new_counter()
        batches = iter(self._loader)
        for _ in range(len(self)):
            started = time.perf_counter()
            batch = next(batches)
            self.wait_seconds += time.perf_counter() - started
            self._skips.add(int((batch.index >= 0).sum()), batch.skipped)
            yield batch

    def close(self) -> None:
        """End the workers; a later pass starts new ones."""
        close_workers(self._loader)
