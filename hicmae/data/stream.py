"""The training stream: every clip once an epoch, in an order that is a pure function, resumed to the very batch."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch

# WebDataset reads this once, at import: no shell pipes, no unpickling
os.environ.setdefault("WDS_SECURE", "1")

import webdataset as wds

from hicmae.config import InputSpec
from hicmae.data.augment import Draws
from hicmae.data.batch import ClipBatch, Skip
from hicmae.data.labels import LabelSpec
from hicmae.data.order import batches_per_rank
from hicmae.data.pipeline import BuildTrainingBatches, ClipDecoder
from hicmae.data.plan import PlanBatches
from hicmae.data.processes import worker_context
from hicmae.data.source import ClipSource
from hicmae.media.decode import Decoder

logger = logging.getLogger(__name__)

_REPORTED_AT_START = "shard_truncated"
_FRACTION_OVER = 1000


class SkipCounter:
    """Counts skipped clips by reason, names them in the log, and stops the job where there are too many.

    The limit is a share of the clips seen, taken over at least ``min(1000, clips)`` clips, so that one bad clip in
    the first batch does not stop a job. Clips of a shard known to be cut off are counted and not held against it:
    the shard was reported at the start.
    """

    def __init__(self, max_fraction: float, clips: int, name: str) -> None:
        if not 0.0 <= max_fraction <= 1.0:
            raise ValueError(f"max_skip_fraction={max_fraction} must lie between 0 and 1")
        self.reasons: Counter[str] = Counter()
        self.names: dict[str, str] = {}
        self._max_fraction = max_fraction
        self._over = min(_FRACTION_OVER, clips)
        self._name = name
        self._seen = 0

    def add(self, size: int, skipped: Sequence[Skip]) -> None:
        """Count a batch of ``size`` clips; ``RuntimeError`` with the counts beyond the limit."""
        self._seen += size
        for skip in skipped:
            self.reasons[skip.reason] += 1
            if skip.clip_id not in self.names and skip.reason != _REPORTED_AT_START:
                logger.warning("skipped clip %s: %s", skip.clip_id, skip.detail)
            self.names[skip.clip_id] = skip.reason
        count = sum(number for reason, number in self.reasons.items() if reason != _REPORTED_AT_START)
        if count > self._max_fraction * max(self._seen, self._over):
            reasons = ", ".join(f"{reason}: {number}" for reason, number in self.reasons.most_common())
            raise RuntimeError(
                f"{self._name}: {count} of {self._seen} clips were skipped ({reasons}), more than "
                f"max_skip_fraction={self._max_fraction:g} allows; the log names them. Repair or drop them "
                "('hicmae shards verify' finds them), or raise max_skip_fraction"
            )


class TrainStream:
    """An iterable of training batches with a place that can be saved.

    A pass over it gives the batches of one epoch for one rank. ``epoch`` and ``batch`` say where it stands; they count
    batches handed out, not those that workers have prepared. All ranks have the same place at all times.

    Args:
        source: the clips.
        spec: size and timing of the input.
        draws: what is drawn for a clip: ``PretrainingDraws`` or ``RecognitionDraws``.
        labels: the labels to learn; all are checked before the first batch.
        batch_size: clips a batch, on one rank.
        seed: order and draws depend on it.
        shuffle_shards: shards that are mixed with one another (see ``order.epoch_order``).
        num_workers: decoding processes; 0 decodes in this one. The batches are the same with any number.
        prefetch: batches that each worker prepares ahead.
        rank, world_size: which of how many processes this is.
        decoder: ``auto``, ``pyav`` or ``decord``.
        require_video: whether clips without a picture are skipped (``no_video_stream``).
        pin_memory: hand out batches in page-locked memory, for a GPU.
        max_skip_fraction: share of clips that may be skipped before ``RuntimeError`` ends the job.

    Raises:
        ValueError: too few clips for a batch on every rank, more workers than batches, an unusable label.
    """

    def __init__(
        self,
        source: ClipSource,
        *,
        spec: InputSpec,
        draws: Draws,
        labels: LabelSpec | None = None,
        batch_size: int,
        seed: int = 0,
        shuffle_shards: int = 8,
        num_workers: int = 0,
        prefetch: int = 2,
        rank: int = 0,
        world_size: int = 1,
        decoder: Decoder = "auto",
        require_video: bool = True,
        pin_memory: bool = False,
        max_skip_fraction: float = 0.05,
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("shuffle_shards", shuffle_shards, 1),
                                   ("num_workers", num_workers, 0), ("prefetch", prefetch, 1)):  # fmt: skip
            if value < least:
                raise ValueError(f"{name}={value} must be at least {least}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank} must lie within 0..{world_size - 1} (world_size={world_size})")
        self._length = batches_per_rank(len(source), world_size=world_size, batch_size=batch_size)
        if num_workers > self._length:
            raise ValueError(
                f"num_workers={num_workers} are more than the {self._length} batches that each rank gets in an epoch "
                f"({len(source)} clips, {world_size} ranks, batches of {batch_size}); set num_workers to at most "
                f"{self._length}"
            )
        if labels is not None:
            labels.check(source)
        self.source = source
        self.batch_size = batch_size
        self.wait_seconds = 0.0
        """Time spent waiting for batches, in seconds, over all epochs: the job stood still for so long."""
        self._skips = SkipCounter(max_skip_fraction, self._length * batch_size, source.name)
        self._fingerprint = {
            "index": source.fingerprint,
            "clips": len(source),
            "seed": seed,
            "joint_batch": batch_size * world_size,
            "shuffle_shards": shuffle_shards,
        }
        self._epoch = 0
        self._batch = 0
        self._pass = 0
        self._position = torch.zeros(2, dtype=torch.int64).share_memory_()
        pipeline = wds.DataPipeline(
            PlanBatches(
                group_sizes=source.group_sizes,
                seed=seed,
                shuffle_shards=shuffle_shards,
                batch_size=batch_size,
                rank=rank,
                world_size=world_size,
                position=self._position,
            ),
            BuildTrainingBatches(
                source=source,
                decode=ClipDecoder(spec=spec, decoder=decoder, require_video=require_video),
                draws=draws,
                labels=labels,
                seed=seed,
            ),
        )
        self._loader = web_loader(pipeline, num_workers=num_workers, prefetch=prefetch, pin_memory=pin_memory)

    def __len__(self) -> int:
        """Batches an epoch, the same on every rank, wherever the stream stands."""
        return self._length

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return self._epoch

    @property
    def batch(self) -> int:
        """Batches of the current epoch handed out so far."""
        return self._batch

    @property
    def skipped(self) -> Counter[str]:
        """Clips skipped by this process so far, by reason."""
        return self._skips.reasons

    @property
    def skipped_clips(self) -> dict[str, str]:
        """Reason by name of each clip skipped so far."""
        return self._skips.names

    @property
    def sampler(self) -> TrainStream:
        """Lightning tells samplers the epoch: this makes it call ``set_epoch`` here."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of ``epoch``; within that epoch already, stay (so that a resumed one goes on)."""
        if epoch != self._epoch or self._batch >= self._length:
            self._epoch, self._batch = epoch, 0
            self._pass += 1

    def __iter__(self) -> Iterator[ClipBatch]:
        """The rest of the current epoch; after its end, the next one. Nothing is read before the first batch is
        asked for, and starting another pass ends this one."""
        if self._batch >= self._length:
            self._epoch, self._batch = self._epoch + 1, 0
        self._pass += 1
        own_pass = self._pass
        self._position[0], self._position[1] = self._epoch, self._batch
        batches = iter(self._loader)
        while self._batch < self._length:
            started = time.perf_counter()
            batch = next(batches)
            self.wait_seconds += time.perf_counter() - started
            if own_pass != self._pass:
                raise RuntimeError("this pass over the stream has ended: set_epoch or another pass came after it")
            self._batch += 1
            self._skips.add(len(batch), batch.skipped)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The place in the stream, and what must be equal to resume there; the same on every rank."""
        return {"epoch": self._epoch, "batch": self._batch, **self._fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved place. ``ValueError`` names each setting in which the saved stream differs from this one."""
        differing = {name: (state.get(name), own) for name, own in self._fingerprint.items() if state.get(name) != own}
        if differing:
            what = ", ".join(f"{name} was {was!r} and is {now!r}" for name, (was, now) in differing.items())
            raise ValueError(
                f"{self.source.name}: cannot resume at epoch {state.get('epoch')}, batch {state.get('batch')}: {what}. "
                "Use the same data and settings as the saved run, or start a new run from its weights"
            )
        self._epoch, self._batch = int(state["epoch"]), int(state["batch"])
        self._pass += 1

    def close(self) -> None:
        """End the workers; a later pass starts new ones."""
        self._pass += 1
        close_workers(self._loader)


def web_loader(pipeline: wds.DataPipeline, *, num_workers: int, prefetch: int, pin_memory: bool) -> wds.WebLoader:
    """A loader whose workers live through all epochs and share no threads with this process."""
    own_processes: dict[str, Any] = {}
    if num_workers:
        own_processes = {
            "persistent_workers": True,
            "prefetch_factor": prefetch,
            "multiprocessing_context": worker_context(),
        }
    return wds.WebLoader(pipeline, batch_size=None, num_workers=num_workers, pin_memory=pin_memory, **own_processes)


def close_workers(loader: wds.WebLoader) -> None:
    """End the loader's worker processes now, not when the garbage collector comes by."""
    iterator = loader.pipeline[0]._iterator
    if iterator is not None:
        iterator._shutdown_workers()
    loader.pipeline[0]._iterator = None
