"""Windows of the training sequences in batches; whole sequences for validation.

Shapes: B windows, L steps, D width of a stream, K targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hicmae.continuous.prediction import LabelledVideo
from hicmae.continuous.windows import WindowSettings, cut_window, window_starts
from hicmae.data.order import generator


@dataclass(kw_only=True)
class WindowBatch:
    """B windows of training sequences."""

    features: dict[str, Tensor]
    """float32 (B, L, D) by stream."""
    present: dict[str, Tensor]
    """bool (B, L) by stream."""
    target: Tensor
    """float32 (B, L, K), 0 where there is no label."""
    labelled: Tensor
    """bool (B, L, K)"""

    def to(self, device: torch.device) -> WindowBatch:
        """A copy on another device."""
        return WindowBatch(
            features={name: value.to(device) for name, value in self.features.items()},
            present={name: value.to(device) for name, value in self.present.items()},
            target=self.target.to(device),
            labelled=self.labelled.to(device),
        )


class TrainingWindows(Dataset[WindowBatch]):
    """The windows of some sequences that hold at least one label."""

    def __init__(self, videos: Sequence[LabelledVideo], streams: Sequence[str], window: WindowSettings) -> None:
        self.videos = videos
        self.streams = streams
        self.window = window
        self.places: list[tuple[int, int]] = []
        self.without_label = 0
        """Windows left out because none of their steps has a label."""
        for number, video in enumerate(videos):
            assert video.labels is not None
            labels = video.labels[video.features.steps]
            there = np.isfinite(labels).sum(axis=1) > 0
            for start in window_starts(len(there), window).tolist():
                if there[start : start + window.length].any():
                    self.places.append((number, start))
                else:
                    self.without_label += 1

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> WindowBatch:
        place, start = self.places[number]
        video = self.videos[place]
        assert video.labels is not None
        features, present = video.window(self.streams, start, self.window.length)
        steps = video.features.steps[start : start + self.window.length]
        labels = cut_window(np.nan_to_num(video.labels[steps]), 0, self.window.length)
        labelled = cut_window(np.isfinite(video.labels[steps]), 0, self.window.length)
        return WindowBatch(
            features=features, present=present, target=torch.from_numpy(labels), labelled=torch.from_numpy(labelled)
        )


def collate(windows: list[WindowBatch]) -> WindowBatch:
    """Stack single windows into a batch."""
    names = list(windows[0].features)
    return WindowBatch(
        features={name: torch.stack([one.features[name] for one in windows]) for name in names},
        present={name: torch.stack([one.present[name] for one in windows]) for name in names},
        target=torch.stack([one.target for one in windows]),
        labelled=torch.stack([one.labelled for one in windows]),
    )


class EpochOrder(Sampler[int]):
    """Every window once an epoch, in an order that follows from seed and epoch."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The trainer says which epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        yield from generator("continuous", self.seed, self.epoch).permutation(self.size).tolist()


class ContinuousData(pl.LightningDataModule):
    """Training windows and validation sequences of one fold."""

    def __init__(
        self,
        train: Sequence[LabelledVideo],
        val: Sequence[LabelledVideo],
        *,
        streams: Sequence[str],
        window: WindowSettings,
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.windows = TrainingWindows(train, streams, window)
        self.val = val
        self.batch_size = batch_size
        self.seed = seed

    @property
    def batches_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return -(-len(self.windows) // self.batch_size)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Windows go to the device; a whole sequence stays on the disk."""
        return batch.to(device) if isinstance(batch, WindowBatch) else batch

    def train_dataloader(self) -> DataLoader[WindowBatch]:
        """Batches of windows, out of memory-mapped features: reading them takes no process of its own."""
        order = EpochOrder(len(self.windows), self.seed)
        return DataLoader(self.windows, batch_size=self.batch_size, sampler=order, collate_fn=collate)

    def val_dataloader(self) -> DataLoader[LabelledVideo]:
        """Whole sequences, one at a time."""
        return DataLoader(self.val, batch_size=None, shuffle=False)  # type: ignore[arg-type]
