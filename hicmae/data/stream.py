"""The training stream: an order that is a pure function, resumed to the very batch."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hicmae.config import InputSpec
from hicmae.data.augment import Draws
from hicmae.data.batch import ClipBatch
from hicmae.data.epoch import EpochOrder, OrderSettings
from hicmae.data.fetch_ahead import FetchAhead
from hicmae.data.labels import LabelSpec
from hicmae.data.loader import BatchLoader, DataStoppedError, LoaderSettings, stopped
from hicmae.data.pipeline import BuildTrainingBatches
from hicmae.data.plan import Cut, PlanBatches, joint_batch_of, resumed_cut
from hicmae.data.seen import Seen
from hicmae.data.skips import SkipCounter
from hicmae.data.source import ClipSource

logger = logging.getLogger(__name__)


class TrainStream:
    """An iterable of training batches with a place that can be saved.

    A pass over it gives the batches of one epoch for one rank. ``epoch`` and ``batch`` say where it stands; they count
    batches handed out, not those that workers have prepared. All ranks have the same place at all times.

    Args:
        source: the clips.
        spec: size and timing of the input.
        draws: what is drawn for a clip: ``PretrainingDraws`` or ``RecognitionDraws``.
        labels: the labels to learn; all are checked before the first batch.
        loader: batch size, workers, decoder, rank.
        order: which clips an epoch has, and how they are mixed.
        windows_per_clip: batches that a decoded batch of clips gives, each with another window of its clips; they are
            handed out one after another.
        views_per_clip: views of each window, all in its batch; see ``ClipBatch.each_view``. The loader's batch size
            counts clips.

    Raises:
        ValueError: too few clips for a batch on every rank, more workers than batches, an unusable label, a cache too
            small for two windows of shards.
    """

    def __init__(
        self,
        source: ClipSource,
        *,
        spec: InputSpec,
        draws: Draws,
        loader: LoaderSettings,
        order: OrderSettings = OrderSettings(),  # noqa: B008  frozen
        labels: LabelSpec | None = None,
        windows_per_clip: int = 1,
        views_per_clip: int = 1,
    ) -> None:
        if windows_per_clip < 1:
            raise ValueError(f"windows_per_clip={windows_per_clip} must be at least 1")
        self.source = source
        self.order = EpochOrder.of(source, order, seed=loader.seed)
        self.loader = loader
        self._windows = windows_per_clip
        joint_batches = self.order.batches(world_size=loader.world_size, batch_size=loader.batch_size)
        if loader.num_workers > joint_batches:
            raise ValueError(
                f"num_workers={loader.num_workers} are more than the {joint_batches} batches that each rank gets in an "
                f"epoch ({self.order.clips} clips, {loader.world_size} ranks, batches of {loader.batch_size}); set "
                f"num_workers to at most {joint_batches}"
            )
        if labels is not None:
            labels.check(source)
        source.check_cache(self.order.window_shards)
        self._length = joint_batches * windows_per_clip
        self._skips = SkipCounter(loader.max_skip_fraction, joint_batches * loader.batch_size, source.name)
        self._fingerprint = {
            "index": source.fingerprint,
            "clips": len(source),
            "seed": loader.seed,
            "shuffle_shards": order.shuffle_shards,
            "sampling": order.sampling,
            "weights": None if order.weights is None else list(order.weights),
            "epoch_clips": self.order.clips,
            "windows_per_clip": windows_per_clip,
            "views_per_clip": views_per_clip,
        }
        self.seen = Seen()
        """What was handed out since this was last replaced."""
        self._epoch = 0
        self._batch = 0
        self._shift = 0
        self._pass = 0
        self._position = torch.zeros(4, dtype=torch.int64).share_memory_()
        stages: list[Callable[..., Any]] = [
            PlanBatches(
                order=self.order,
                batch_size=loader.batch_size,
                rank=loader.rank,
                world_size=loader.world_size,
                position=self._position,
            ),
            BuildTrainingBatches(
                source=source,
                decode=loader.clip_decoder(spec),
                draws=draws,
                labels=labels,
                seed=loader.seed,
                windows_per_clip=windows_per_clip,
                views_per_clip=views_per_clip,
            ),
        ]
        if source.is_remote:
            stages.insert(1, FetchAhead(source=source, order=self.order))
        self._batches = BatchLoader(stages, loader, num_workers=loader.num_workers)

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
    def wait_seconds(self) -> float:
        """Time spent waiting for batches, in seconds, over all epochs: the job stood still for so long."""
        return self._batches.wait_seconds

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
            self._epoch, self._batch, self._shift = epoch, 0, 0
            self._pass += 1

    def __iter__(self) -> Iterator[ClipBatch]:
        """The rest of the current epoch; after its end, the next one. Nothing is read before the first batch is
        asked for, and starting another pass ends this one.

        Raises:
            DataStoppedError: the workers gave no batch for ``loader.timeout_s``; names rank, batch and files.
        """
        if self._batch >= self._length:
            self._epoch, self._batch, self._shift = self._epoch + 1, 0, 0
        self._pass += 1
        own_pass = self._pass
        first, window = divmod(self._batch, self._windows)
        self._position.copy_(torch.tensor([self._epoch, first, self._shift, window]))
        groups = iter(self._batches)
        while self._batch < self._length:
            waited = self.wait_seconds
            try:
                group = next(groups)
            except DataStoppedError as error:
                joint_batch = self._batch // self._windows
                where = f"batch {joint_batch} of epoch {self._epoch}"
                raise stopped(error, self.loader, self.source, where, self._clips_of(joint_batch)) from error
            for batch in group:
                if own_pass != self._pass:
                    raise RuntimeError("this pass over the stream has ended: set_epoch or another pass came after it")
                # a clip that cannot be used is told once, so the windows of those that can count once as well
                self._skips.add(0 if self._batch % self._windows else len(batch), batch.skipped)
                self._batch += 1
                self.seen.add(batch, wait_seconds=self.wait_seconds - waited, ready_batches=self._batches.ready)
                waited = self.wait_seconds
                yield batch

    def _clips_of(self, joint_batch: int) -> NDArray[np.int64]:
        cut = Cut(batch=joint_batch, shift=self._shift)
        sizes = {"world_size": self.loader.world_size, "batch_size": self.loader.batch_size}
        clips: NDArray[np.int64] = cut.joint_batches(self.order(self._epoch), **sizes)[joint_batch, self.loader.rank]
        return clips

    def state_dict(self) -> dict[str, Any]:
        """The place in the stream, and what must be equal to resume there; the same on every rank."""
        return {
            "epoch": self._epoch,
            "batch": self._batch,
            "batches": self._length,
            "place": self._batch // self._windows * self.loader.joint_batch + self._shift,
            "world_size": self.loader.world_size,
            "batch_size": self.loader.batch_size,
            **self._fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved place.

        With another joint batch than the saved run's, the rest of the epoch's order is cut into the new ones, and a
        warning says so: see ``plan.resumed_cut``.

        Raises:
            ValueError: names each setting in which the saved stream differs from this one.
        """
        state = {"views_per_clip": 1} | state  # saved before there were views
        differing = {name: (state.get(name), own) for name, own in self._fingerprint.items() if state.get(name) != own}
        if differing:
            what = ", ".join(f"{name} was {was!r} and is {now!r}" for name, (was, now) in differing.items())
            raise ValueError(
                f"{self.source.name}: cannot resume at epoch {state.get('epoch')}, batch {state.get('batch')}: {what}. "
                "Use the same data and settings as the saved run, or start a new run from its weights"
            )
        cut = resumed_cut(state, joint_batch=self.loader.joint_batch)
        if joint_batch_of(state) != self.loader.joint_batch:
            self._warn_of_new_cut(state, cut)
        self._epoch, self._batch, self._shift = state["epoch"], cut.batch * self._windows + cut.window, cut.shift
        self._pass += 1

    def _warn_of_new_cut(self, state: dict[str, Any], cut: Cut) -> None:
        if self.loader.rank:
            return
        old, new = joint_batch_of(state), self.loader.joint_batch
        rest = self._length // self._windows - cut.batch
        done = cut.batch * new + cut.shift
        unused = self.order.clips - done - rest * new
        logger.warning(
            "%s: the saved run had joint batches of %d clips (%d ranks x %d), this one has %d (%d x %d). Epoch %d goes "
            "on after %d of its %d clips: the rest makes %d joint batches, and the last %d clips are left out. What "
            "was handed out does not come again in this epoch. Later epochs have %d joint batches",
            self.source.name, old, state["world_size"], state["batch_size"], new, self.loader.world_size,
            self.loader.batch_size, state["epoch"], done, self.order.clips, rest, unused, self._length // self._windows,
        )  # fmt: skip

    def close(self) -> None:
        """End the workers; a later pass starts new ones."""
        self._pass += 1
        self._batches.close()
