"""What a training step was: who was in it, how they were augmented, what came out; one line of JSON a batch.

A callback for the command line: ``--trainer.callbacks+=tests.tracing.TraceBatches --trainer.callbacks.path=FILE``.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from hicmae.data.batch import ClipBatch

Key = tuple[int, int, int]
"""Epoch, batch within it, rank."""


class Died(BaseException):
    """Stands for a death at a chosen place; nothing but the test catches it."""


class TraceBatches(Callback):
    """Appends every batch to a file, on the disk before the next one begins."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        record = {
            "key": [trainer.current_epoch, batch_idx, trainer.global_rank],
            "step": trainer.global_step,
            "clips": batch.clip_ids,
            "frames": digest(batch.video),
            "sound": digest(batch.waveform),
            "crops": batch.crop_box.tolist(),
            "flips": batch.flip.tolist(),
            "gains": [gain.hex() for gain in batch.gain.tolist()],
            "masks": [digest(batch.video_visible), digest(batch.audio_visible)],
            "decoded": [digest(batch.video_decoded), digest(batch.audio_decoded)],
            "losses": {name: value.item().hex() for name, value in outputs.items() if value.numel() == 1},
            "lr": trainer.optimizers[0].param_groups[0]["lr"].hex(),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())


class DieAt(Callback):
    """Raises ``Died`` in the given hook once this process has trained so many batches."""

    def __init__(self, hook: str, batches: int) -> None:
        self._hook, self._batches, self._limit = hook, 0, batches
        if hook != "on_train_batch_start":
            setattr(self, hook, self._die)

    def on_train_batch_start(self, *args: Any) -> None:
        self._batches += 1
        if self._hook == "on_train_batch_start":
            self._die()

    def _die(self, *args: Any) -> None:
        if self._batches >= self._limit:
            raise Died


def digest(values: Tensor | None) -> str | None:
    """A fingerprint of every byte."""
    return None if values is None else hashlib.sha256(values.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def read_trace(path: Path) -> list[dict[str, Any]]:
    """The records of a file; a last line cut off by a death is left out."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def check_same(disturbed: Path, undisturbed: Path) -> int:
    """Assert that every record of a disturbed run, repeated ones too, is the undisturbed one's, and that none is
    missing; return how many were repeated."""
    expected = {tuple(record["key"]): record for record in read_trace(undisturbed)}
    seen: set[Key] = set()
    records = read_trace(disturbed)
    for record in records:
        key = tuple(record["key"])
        assert key in expected, f"an epoch, batch, rank that was not to be: {key}"
        differing = [name for name in record if record[name] != expected[key][name]]
        assert not differing, f"epoch, batch, rank {key}: {differing}"
        seen.add(key)
    assert seen == set(expected)
    return len(records) - len(seen)
