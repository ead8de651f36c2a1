"""What the data were, said at the end of every epoch: clips, hours, bytes, skips by reason, waiting, slow shards.

Counts are joint, over all ranks; they are in the log, in every logger, and in the checkpoint, from which they go on.
"""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from hicmae.data.batch import ClipBatch
from hicmae.data.seen import Seen
from hicmae.training.run_directory import run_directory

logger = logging.getLogger(__name__)

_KEY = "data_seen"


class DataReport(Callback):
    """Logs ``data_epoch/*`` and ``data_total/*`` after every epoch, and writes the slowest shards where asked for.

    The data module's ``train_loader`` counts in ``seen``; its ``slowest_shards`` says how many shards to list in
    ``data/slowest_shards.csv`` (0: none).
    """

    def __init__(self) -> None:
        self.total = Seen()
        """All finished epochs, over all ranks, resumed parts included."""
        self._carried = Seen()  # of the current epoch, from before an interruption
        self._trained = Seen()  # of the current epoch, by this process: a checkpoint may be taken one batch later
        self._started = time.perf_counter()
        self._seconds_carried = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        if (stream := _stream(trainer)) is not None:
            self._trained = stream.seen.without_costs()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stream = _stream(trainer)
        if stream is None:
            return
        parts = _of_all_ranks(stream.seen)
        epoch = sum(parts, self._carried)
        if not epoch.batches:  # an epoch that was at its end when the run went on
            return
        total = self.total + epoch
        seconds = self._seconds_carried + time.perf_counter() - self._started
        line = _numbers("data_epoch", epoch, ranks=len(parts), seconds=seconds)
        so_far = _numbers("data_total", total)
        whole = stream.batch >= len(stream)
        for sink in trainer.loggers:
            sink.log_metrics((line if whole else {}) | so_far, step=trainer.global_step)
        if trainer.is_global_zero:
            name = f"epoch {trainer.current_epoch}" + ("" if whole else ", which a limit ended early")
            logger.info("data of %s: %s", name, _sentence(epoch, line))
            logger.info("data so far: %s", _sentence(total, so_far))
            _write_slowest(trainer, epoch)
        if whole:  # what is left of an epoch that a limit ended is counted with it when the run goes on
            stream.seen, self.total = Seen(), total.without_costs()
            self._carried, self._trained, self._seconds_carried = Seen(), Seen(), 0.0
            self._started = time.perf_counter()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Every rank comes here, though only one writes: the counts of all are needed.
        current = sum(_of_all_ranks(self._trained), self._carried)
        checkpoint[_KEY] = {
            "total": self.total.to_dict(),
            "epoch": current.to_dict(),
            "epoch_seconds": self._seconds_carried + time.perf_counter() - self._started,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if _KEY in checkpoint:
            saved = checkpoint[_KEY]
            self.total, self._carried = Seen.from_dict(saved["total"]), Seen.from_dict(saved["epoch"])
            self._seconds_carried = saved["epoch_seconds"]


def _stream(trainer: Trainer) -> Any:
    return getattr(trainer.datamodule, "train_loader", None)  # type: ignore[attr-defined]


def _of_all_ranks(own: Seen) -> list[Seen]:
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [own]
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, own)
    return parts


def _numbers(prefix: str, seen: Seen, *, ranks: int = 1, seconds: float | None = None) -> dict[str, float]:
    line = {
        "clips": float(seen.clips),
        "video_hours": seen.video_seconds / 3600,
        "audio_hours": seen.audio_seconds / 3600,
        "read_gb": seen.bytes_read / 1e9,
        "skipped": float(seen.skipped.total()),
        "queue_depth": seen.queue_depth,
    }
    line |= {f"skipped_{reason}": float(count) for reason, count in seen.skipped.items()}
    if seconds is not None:
        line["wait_percent"] = 100 * seen.wait_seconds / ranks / max(seconds, 1e-9)
        line["read_mb_per_s"] = seen.bytes_read / 1e6 / max(seconds, 1e-9)
    return {f"{prefix}/{name}": value for name, value in line.items()}


def _sentence(seen: Seen, line: dict[str, float]) -> str:
    skips = ", ".join(f"{reason} {count}" for reason, count in seen.skipped.most_common())
    text = (
        f"{seen.clips} clips, {seen.video_seconds / 3600:.2f} h of video, {seen.audio_seconds / 3600:.2f} h of audio, "
        f"{seen.bytes_read / 1e9:.3f} GB read, {seen.skipped.total()} skipped" + (f" ({skips})" if skips else "")
    )
    if "data_epoch/wait_percent" in line:
        text += (
            f"; data-wait {line['data_epoch/wait_percent']:.1f}%, {line['data_epoch/read_mb_per_s']:.1f} MB/s, "
            f"{seen.queue_depth:.1f} batches ready"
        )
    return text


def _write_slowest(trainer: Trainer, epoch: Seen) -> None:
    count = getattr(trainer.datamodule, "slowest_shards", 0)  # type: ignore[attr-defined]
    if not count:
        return
    names: Sequence[str] = trainer.datamodule.source.shard_names  # type: ignore[attr-defined]
    ranked = sorted(epoch.shards.items(), key=lambda item: item[1].seconds_per_clip, reverse=True)[:count]
    path = run_directory(trainer) / "data" / "slowest_shards.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ["epoch", "shard", "clips", "read_ms_per_clip", "decode_ms_per_clip"]
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow(columns)
        for number, cost in ranked:
            name = names[number]
            read, decode = (1000 * s / max(1, cost.clips) for s in (cost.read_seconds, cost.decode_seconds))
            writer.writerow([trainer.current_epoch, name, cost.clips, f"{read:.2f}", f"{decode:.2f}"])
            logger.info("slow shard %s: %.1f ms to read, %.1f ms to decode a clip", name, read, decode)
