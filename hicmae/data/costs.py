"""What a batch cost the worker that made it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Costs:
    """Sums over the clips of a batch, those that could not be used included."""

    bytes_read: int = 0
    read_seconds: float = 0.0
    decode_seconds: float = 0.0
    shards: dict[int, tuple[int, float, float]] = field(default_factory=dict)
    """By number of the shard: clips, seconds of reading, seconds of decoding."""

    def add(self, shard: int, *, size: int, read_seconds: float, decode_seconds: float) -> None:
        """Count a clip of ``size`` bytes."""
        self.bytes_read += size
        self.read_seconds += read_seconds
        self.decode_seconds += decode_seconds
        clips, read, decode = self.shards.get(shard, (0, 0.0, 0.0))
        self.shards[shard] = (clips + 1, read + read_seconds, decode + decode_seconds)
