"""What a stream has handed out, in numbers: clips, seconds, bytes, skips, waiting, and which shards were slow.

A process counts for itself; ``hicmae.training.data_report`` adds the counts of all ranks up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from hicmae.data.batch import ClipBatch

NUMBERS = ("clips", "batches", "video_seconds", "audio_seconds", "bytes_read", "wait_seconds", "ready_batches")


@dataclass(kw_only=True)
class ShardCost:
    """What the clips of a shard cost the workers that read them."""

    clips: int = 0
    read_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def seconds_per_clip(self) -> float:
        """Reading and decoding, in seconds a clip."""
        return (self.read_seconds + self.decode_seconds) / max(1, self.clips)


@dataclass(kw_only=True)
class Seen:
    """Counts over some batches."""

    clips: int = 0
    batches: int = 0
    video_seconds: float = 0.0
    """Seconds of picture in the windows handed out."""
    audio_seconds: float = 0.0
    """Seconds of sound in the windows handed out."""
    bytes_read: int = 0
    """Stored bytes read for them, those of clips that could not be used included."""
    wait_seconds: float = 0.0
    """Seconds in which the job stood still for a batch."""
    ready_batches: int = 0
    """Sum over batches of how many more lay ready when it was asked for: the depth of the queue."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Clips that could not be used, by reason."""
    shards: dict[int, ShardCost] = field(default_factory=dict)
    """Costs by number of the shard, for this process alone."""

    @property
    def queue_depth(self) -> float:
        """Mean number of batches that lay ready when one was asked for; near 0, the workers are too slow."""
        return self.ready_batches / max(1, self.batches)

    def add(self, batch: ClipBatch, *, wait_seconds: float, ready_batches: int) -> None:
        """Count a batch that was handed out."""
        self.clips += int((batch.index >= 0).sum())
        self.batches += 1
        self.video_seconds += batch.video_seconds
        self.audio_seconds += batch.audio_seconds
        self.bytes_read += batch.bytes_read
        self.wait_seconds += wait_seconds
        self.ready_batches += ready_batches
        self.skipped.update(skip.reason for skip in batch.skipped)
        for shard, (clips, read, decode) in batch.shard_costs.items():
            self._add_cost(shard, ShardCost(clips=clips, read_seconds=read, decode_seconds=decode))

    def _add_cost(self, shard: int, cost: ShardCost) -> None:
        known = self.shards.setdefault(shard, ShardCost())
        known.clips += cost.clips
        known.read_seconds += cost.read_seconds
        known.decode_seconds += cost.decode_seconds

    def __add__(self, other: Seen) -> Seen:
        total = Seen(skipped=self.skipped + other.skipped)
        for name in NUMBERS:
            setattr(total, name, getattr(self, name) + getattr(other, name))
        for part in (self, other):
            for shard, cost in part.shards.items():
                total._add_cost(shard, cost)
        return total

    def without_costs(self) -> Self:
        """A copy that knows nothing of shards."""
        return self.from_dict(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint; the costs of shards are left out."""
        return {name: getattr(self, name) for name in NUMBERS} | {"skipped": dict(self.skipped)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(**(dict(values) | {"skipped": Counter(values["skipped"])}))
