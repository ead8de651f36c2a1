"""Where shards from afar are kept on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from hicmae.data.fetch import FetchSettings


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """Where shards from afar are kept, and how patiently they are fetched."""

    folder: Path
    """On a local disk; shared by all processes of a machine, and by all jobs."""
    max_bytes: int
    """Bytes that shards may take there, those being fetched included."""
    wait_s: float = 120.0
    """How long to wait for another process that fetches a shard and gives no sign of life, and for room."""
    fetch: FetchSettings = field(default_factory=FetchSettings)

    @classmethod
    def of(cls, folder: Path | None, gigabytes: float) -> Self | None:
        """The settings that a job's ``cache_dir`` and ``cache_gb`` (10^9 bytes) mean; None without a folder."""
        return None if folder is None else cls(folder=folder, max_bytes=int(gigabytes * 1e9))

    def __post_init__(self) -> None:
        if self.max_bytes <= 0:
            raise ValueError(f"max_bytes={self.max_bytes} must be above 0; two shuffle windows of shards have to fit")
        if not self.wait_s > 0:
            raise ValueError(f"wait_s={self.wait_s} must be a number of seconds above 0")
