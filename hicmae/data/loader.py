"""What the loaders of training and evaluation share: their settings and their worker processes."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

# WebDataset reads this once, at import: no shell pipes, no unpickling
os.environ.setdefault("WDS_SECURE", "1")

import webdataset as wds

from hicmae.config import InputSpec
from hicmae.data.clip_decoder import ClipDecoder
from hicmae.data.fetch_error import FetchError
from hicmae.data.pixels import Pixels
from hicmae.data.processes import live_as_long_as_the_job, worker_context
from hicmae.data.skips import UnusableDataError
from hicmae.data.source import ClipSource
from hicmae.media.decode import Decoder

_WAIT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """How clips are read and decoded, and by whom.

    Raises:
        ValueError: a value out of its range.
    """

    batch_size: int
    """Clips a batch, on one rank."""
    num_workers: int = 0
    """Decoding processes; 0 decodes in this one. The batches are the same with any number."""
    prefetch: int = 2
    """Batches that each worker prepares ahead."""
    seed: int = 0
    """Order and draws depend on it."""
    rank: int = 0
    """Which of ``world_size`` processes this is."""
    world_size: int = 1
    """Processes of the job."""
    decoder: Decoder = "auto"
    """``auto``, ``pyav`` or ``decord``."""
    pixels: Pixels = "auto"
    """How frames are shipped: ``rgb``, ``yuv`` (half of the bytes, for clips stored as h264 at the model's size), or
    ``auto``, which takes the latter where it is possible. The model's inputs are the same."""
    require_video: bool = False
    """Whether clips without a picture count as unusable (``no_video_stream``)."""
    modalities: tuple[str, ...] = ("video", "audio")
    """What is decoded of the clips: video, audio, or both. A clip that lacks a lone one counts as unusable."""
    pin_memory: bool = False
    """Hand out batches in page-locked memory, for a GPU."""
    max_skip_fraction: float = 0.05
    """Share of clips that may be unusable before ``UnusableDataError`` ends the job."""
    timeout_s: float = 600.0
    """How long to wait for a batch of the workers, in seconds, before ``DataStoppedError`` ends the job."""

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("num_workers", 0), ("prefetch", 1), ("world_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"rank={self.rank} must lie within 0..{self.world_size - 1} (world_size={self.world_size})"
            )
        if not 0.0 <= self.max_skip_fraction <= 1.0:
            raise ValueError(f"max_skip_fraction={self.max_skip_fraction} must lie between 0 and 1")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s={self.timeout_s} must be above 0")

    @property
    def joint_batch(self) -> int:
        """Clips of a batch over all ranks."""
        return self.batch_size * self.world_size

    def clip_decoder(self, spec: InputSpec) -> ClipDecoder:
        """What reads and decodes clips by these settings."""
        return ClipDecoder(
            spec=spec,
            decoder=self.decoder,
            require_video=self.require_video,
            pixels=self.pixels,
            modalities=self.modalities,
        )


class DataStoppedError(RuntimeError):
    """The workers gave no batch for ``timeout_s``, or one of them died."""


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """An error that the user is to read, on its way from a worker: torch would make its traceback the message."""

    error: Exception


def _hand_over_failures(batches: Iterable[Any]) -> Iterator[Any]:
    """Last stage of every pipeline: what ends a pass for a reason that the user can change comes as it was raised."""
    try:
        yield from batches
    except (FetchError, UnusableDataError) as error:
        yield _Failure(error=error)


class BatchLoader:
    """Runs stages in worker processes, which live through all passes and share no threads with this process.

    Args:
        stages: the first yields, each further one takes what the one before yields. Each of W workers runs a copy,
            which yields every W-th batch.
        settings: prefetch, pinned memory, time-out.
        num_workers: processes; 0 runs the stages in this one, without a time-out.
    """

    def __init__(self, stages: Sequence[Callable[..., Any]], settings: LoaderSettings, *, num_workers: int) -> None:
        self._timeout_s = settings.timeout_s
        own_processes: dict[str, Any] = {}
        if num_workers:
            own_processes = {
                "persistent_workers": True,
                "prefetch_factor": settings.prefetch,
                "multiprocessing_context": worker_context(),
                "worker_init_fn": live_as_long_as_the_job,
                "timeout": settings.timeout_s,
            }
        self.wait_seconds = 0.0
        """Time spent waiting for batches, in seconds, over all passes."""
        self.ready = 0
        """Batches that lay ready when the latest one was asked for; 0 without worker processes."""
        self._loader: Any = DataLoader(
            wds.DataPipeline(*stages, _hand_over_failures),
            batch_size=None,
            num_workers=num_workers,
            pin_memory=settings.pin_memory,
            **own_processes,
        )

    def __iter__(self) -> Iterator[Any]:
        """A pass of the pipeline, in order.

        Raises:
            DataStoppedError: no batch for ``timeout_s``, or a dead worker; the workers have been ended.
            FetchError, UnusableDataError: as a worker raised them.
        """
        if self._loader._iterator is not None:
            self._loader._iterator._timeout = self._timeout_s  # ending the pass before is one wait
        batches = iter(self._loader)
        while True:
            self.ready = self._count_ready(batches)
            started = time.perf_counter()
            try:
                batch = self._next(batches)
            except StopIteration:
                return
            self.wait_seconds += time.perf_counter() - started
            if isinstance(batch, _Failure):
                self.close()
                raise batch.error
            yield batch

    def _count_ready(self, batches: Any) -> int:
        if not self._loader.num_workers:
            return 0
        ahead = sum(len(task) == 2 for task in batches._task_info.values())  # came before their turn
        try:
            return int(ahead + batches._data_queue.qsize())
        except NotImplementedError:  # macOS cannot tell
            return ahead

    def _next(self, batches: Any) -> Any:
        if not self._loader.num_workers:
            return next(batches)
        deadline = time.monotonic() + self._timeout_s
        while True:
            # The loader looks for dead workers when a wait ends, and the fork server keeps their signals from us:
            # many short waits, so that one is found long before the time-out.
            batches._timeout = min(_WAIT_S, self._timeout_s)
            try:
                return next(batches)
            except (EOFError, ConnectionError, FileNotFoundError) as error:  # what a batch's memory is had through
                raise self._died() from error
            except RuntimeError as error:
                if str(error).startswith("DataLoader worker"):
                    raise self._died() from error
                if not str(error).startswith("DataLoader timed out"):
                    raise
            if time.monotonic() >= deadline:
                self.close()
                raise DataStoppedError(f"the decoding processes gave no batch for {self._timeout_s:g} s (timeout_s)")

    def _died(self) -> DataStoppedError:
        self.close()
        return DataStoppedError("a decoding process died, perhaps for want of memory")

    def close(self) -> None:
        """End the worker processes now, not when the garbage collector comes by; a later pass starts new ones."""
        if self._loader._iterator is not None:
            workers = getattr(self._loader._iterator, "_workers", ())
            self._loader._iterator._shutdown_workers()  # waits for seconds, then asks stuck ones to end
            for worker in workers:
                if worker.is_alive():
                    worker.kill()
                    worker.join(_WAIT_S)  # gone when this returns, but for one that hangs in the kernel
        self._loader._iterator = None


def describe_clips(source: ClipSource, numbers: NDArray[np.int64]) -> str:
    """Which files clips lie in, for messages."""
    counts = Counter(source.shard_names[source.shard_of(number)] for number in numbers.tolist())
    return ", ".join(f"{name} ({count} clip{'s' * (count > 1)})" for name, count in sorted(counts.items()))


def stopped(
    error: DataStoppedError, settings: LoaderSettings, source: ClipSource, batch: str, clips: NDArray[np.int64]
) -> DataStoppedError:
    """The same error, saying where the data stopped: rank, batch, and the files that hold its clips."""
    return DataStoppedError(
        f"rank {settings.rank} of {settings.world_size}: {error}. It waited for {batch}, whose clips lie in: "
        f"{describe_clips(source, clips)}. See whether these files can be read from this machine, and whether it has "
        "memory left; where reading is slow and not stuck, raise data.timeout_s"
    )
