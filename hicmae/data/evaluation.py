"""Clips for validation and test: each clip and each segment exactly once over all ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hicmae.config import InputSpec
from hicmae.data.augment import EvaluationDraws, Withheld
from hicmae.data.batch import ClipBatch
from hicmae.data.labels import LabelSpec
from hicmae.data.loader import BatchLoader, DataStoppedError, LoaderSettings, stopped
from hicmae.data.pipeline import BuildEvaluationBatches
from hicmae.data.skips import SkipCounter
from hicmae.data.source import ClipSource


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
        loader: batch size, workers, decoder, rank.
        withheld: give picture (video) or sound (audio) of no clip, as if all lacked it.

    Raises:
        ValueError: an unusable label.
    """

    def __init__(
        self,
        source: ClipSource,
        *,
        spec: InputSpec,
        loader: LoaderSettings,
        segments: int = 2,
        labels: LabelSpec | None = None,
        withheld: Withheld | None = None,
    ) -> None:
        if labels is not None:
            labels.check(source)
        self.source = source
        self.loader = loader
        self._build = BuildEvaluationBatches(
            source=source,
            decode=loader.clip_decoder(spec),
            draws=EvaluationDraws(image_size=spec.image_size, segments=segments, withheld=withheld),
            labels=labels,
            batch_size=loader.batch_size,
            rank=loader.rank,
            world_size=loader.world_size,
        )
        self._skips = self._new_counter()
        # small validation sets are usual, and an idle worker does no harm: there are at most as many as batches
        workers = min(loader.num_workers, len(self._build))
        self._batches = BatchLoader([self._build], loader, num_workers=workers)

    def _new_counter(self) -> SkipCounter:
        # held against the whole pass: the share of one of many ranks may be a handful of clips
        items = len(self.source) * self._build.draws.segments
        return SkipCounter(self.loader.max_skip_fraction, items, self.source.name)

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

    @property
    def wait_seconds(self) -> float:
        """Time spent waiting for batches, in seconds, over all passes."""
        return self._batches.wait_seconds

    def __iter__(self) -> Iterator[ClipBatch]:
        """All batches of this rank, in the order of the source.

        Raises:
            DataStoppedError: the workers gave no batch for ``loader.timeout_s``; names rank, batch and files.
        """
        self._skips = self._new_counter()
        batches = iter(self._batches)
        for number in range(len(self)):
            try:
                batch = next(batches)
            except DataStoppedError as error:
                where = f"batch {number} of an evaluation"
                raise stopped(error, self.loader, self.source, where, self._clips_of(number)) from error
            self._skips.add(int((batch.index >= 0).sum()), batch.skipped)
            yield batch

    def _clips_of(self, batch: int) -> NDArray[np.int64]:
        size, segments = self.loader.batch_size, self._build.draws.segments
        first = (self.loader.rank * len(self) + batch) * size
        items = np.arange(first, min(first + size, len(self.source) * segments), dtype=np.int64)
        return np.unique(items // segments)

    def close(self) -> None:
        """End the workers; a later pass starts new ones."""
        self._batches.close()
