"""Clips to decode: synthetic talking faces, as the files of a corpus and as shards store them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import PretrainingDraws
from hicmae.data.clip_decoder import ClipDecoder
from hicmae.data.epoch import OrderSettings
from hicmae.data.loader import LoaderSettings
from hicmae.data.manifest import read_manifest, write_manifest
from hicmae.data.pipeline import BuildTrainingBatches
from hicmae.data.shard_source import ShardSource
from hicmae.data.shard_writer import write_shards
from hicmae.data.storage import StorageFormat
from hicmae.data.stream import TrainStream
from hicmae.data.synthetic.corpus import CorpusSettings, write_corpus

Kind = Literal["original", "h264"]
DIFFERENT = 8
"""Clips that are made; further ones are these under other names."""


@dataclass(frozen=True)
class Footage:
    """Clips for a model, made when they are first asked for."""

    folder: Path
    """Where they are written."""
    config: ModelConfig
    """Whose input they become."""
    batch: int
    """Clips that a batch is to hold, none of them twice."""

    @property
    def clips(self) -> int:
        """Clips in each folder of shards: an endless stream needs three batches of them (``data/mixture.py``)."""
        return max(DIFFERENT, 3 * self.batch)

    @cached_property
    def manifest(self) -> Path:
        """mp4 files of 224 x 224 pixels, 25 frames a second, 4 to 6 s, H.264 and AAC."""
        settings = CorpusSettings(
            speakers=DIFFERENT, val_speakers=0, test_speakers=0, unlabelled_speakers=0, clips_per_speaker=1, size=224,
            min_seconds=4.0, max_seconds=6.0,
        )  # fmt: skip
        made = read_manifest(write_corpus(self.folder / "corpus", settings, workers=_cores())).clips
        rows = [replace(made[i % len(made)], clip_id=f"clip{i:06d}") for i in range(self.clips)]
        return write_manifest(self.folder / "manifest.csv", rows)

    def shards(self, kind: Kind) -> Path:
        """A folder of shards: the files as they are, or frames of the model's size as H.264 with FLAC."""
        folder = self.folder / kind
        if not folder.exists():
            size = self.config.image_size
            stored = StorageFormat(video="h264", audio="flac", size=size) if kind == "h264" else StorageFormat()
            write_shards(read_manifest(self.manifest), folder, storage=stored, shard_mb=2, workers=_cores())
        return folder

    @property
    def spec(self) -> InputSpec:
        """What a window of a clip is."""
        return InputSpec.for_model(self.config)

    def builder(self, kind: Kind) -> BuildTrainingBatches:
        """What a decoding process does: read, decode, draw, and fill the memory of a batch."""
        return BuildTrainingBatches(
            source=ShardSource(self.shards(kind)),
            decode=ClipDecoder(spec=self.spec),
            draws=PretrainingDraws(model=self.config),
            labels=None,
            seed=0,
            windows_per_clip=1,
        )

    def stream(self, *, workers: int, batches: int) -> TrainStream:
        """The training stream over stored H.264, ``batches`` an epoch."""
        return TrainStream(
            ShardSource(self.shards("h264")),
            spec=self.spec,
            draws=PretrainingDraws(model=self.config),
            loader=LoaderSettings(batch_size=self.batch, num_workers=workers),
            order=OrderSettings(weights=(1.0,), epoch_clips=self.batch * batches),
        )


def _cores() -> int:
    return min(DIFFERENT, len(os.sched_getaffinity(0)))
