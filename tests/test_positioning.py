"""Going on deep in an epoch costs arithmetic: no clip that was seen is read again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import PretrainingDraws
from hicmae.data.source import ClipInfo, EncodedClip
from hicmae.data.stream import TrainStream
from tests.corpus import clip_bytes

MODEL = ModelConfig.preset("micro", image_size=32, num_frames=2)
BATCH = 4


class Endless:
    """A source of many clips, all with the same content, that notes what is read."""

    name = "endless"
    fingerprint = "endless"

    def __init__(self, shards: int, clips_per_shard: int) -> None:
        self.group_sizes = (clips_per_shard,) * shards
        self.dataset_sizes = (shards * clips_per_shard,)
        self.read_numbers: list[int] = []

    def __len__(self) -> int:
        return sum(self.group_sizes)

    def info(self, number: int) -> ClipInfo:
        return ClipInfo(clip_id=f"clip{number}", subject="", split="", labels={})

    def read(self, number: int) -> EncodedClip:
        self.read_numbers.append(number)
        return EncodedClip(clip_id=f"clip{number}", video=clip_bytes(), audio=None, span_s=None)


def stream(source: Endless) -> TrainStream:
    return TrainStream(
        source, spec=InputSpec.for_model(MODEL), draws=PretrainingDraws(model=MODEL), batch_size=BATCH, seed=1
    )
