"""Whole shards on a local disk: fetched once a machine, checked, and never more of them than fit.

In the folder, ``shards/`` holds files named by their SHA-256, ``partial/`` those that are being fetched, each at its
full size from the start, so that what lies there is what is used. A lock in ``locks/`` says who is fetching a shard.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hicmae.data.cache_settings import CacheSettings
from hicmae.data.fetch import download, is_disk_full
from hicmae.data.fetch_error import FetchError
from hicmae.data.file_lock import HeldLock, hold_lock, hold_lock_if_free
from hicmae.data.urls import shown

_POLL_S = 0.05
_MB = 10**6


@dataclass(frozen=True, kw_only=True)
class RemoteShard:
    """A shard as its index names it."""

    url: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(f"{shown(self.url)}: {self.sha256[:80]!r} is not a SHA-256; write the index again")
        if self.bytes <= 0:
            raise ValueError(f"{shown(self.url)}: the index says {self.bytes} bytes; write the index again")


class ShardCache:
    """The shards kept on this machine. Picklable; any number of processes may use one folder at the same time."""

    def __init__(self, settings: CacheSettings) -> None:
        self.settings = settings
        self.folder = settings.folder.expanduser().absolute()
        self._shards, self._partial, self._locks, self._failed = (
            self.folder / name for name in ("shards", "partial", "locks", "failed")
        )
        try:
            for folder in (self._shards, self._partial, self._locks, self._failed):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{self.folder}: the cache folder cannot be made ({error.strerror}); name a folder on a local disk "
                "that you may write to"
            ) from error

    def used_bytes(self) -> int:
        """Bytes of all shards, those being fetched included."""
        # parts first: one that gets its name meanwhile is counted twice rather than not at all
        return sum(_size(path) for folder in (self._partial, self._shards) for path in folder.iterdir())

    def check_capacity(self, shard_bytes: Sequence[int], shards: int) -> None:
        """Refuse a cache that cannot hold the shards of a training window twice: those in use and those to come.

        Args:
            shard_bytes: size of every remote shard.
            shards: shards of a window; which ones is drawn each epoch, so the largest have to fit.

        Raises:
            ValueError: with the numbers.
        """
        needed = sum(sorted(shard_bytes, reverse=True)[: 2 * shards])
        if needed > self.settings.max_bytes:
            raise ValueError(
                f"{self.folder}: a cache of {self.settings.max_bytes / _MB:.1f} MB cannot hold two windows of {shards} "
                f"shards, which take up to {needed / _MB:.1f} MB ({len(shard_bytes)} shards, the largest "
                f"{max(shard_bytes) / _MB:.1f} MB); allow at least that much (cache_gb), or take fewer shuffle_shards"
            )

    def open(self, shard: RemoteShard) -> int:
        """A file descriptor of the whole shard, fetched first where it is not here; it outlives the shard's eviction.

        Raises:
            FetchError: it cannot be had; the message names URL, attempts and reason.
        """
        handle = self._open_cached(shard)
        if handle is not None:
            return handle
        since = time.time()
        try:
            with hold_lock(self._lock_of(shard), wait_s=self.settings.wait_s, what=shown(shard.url)) as lock:
                handle = self._open_cached(shard)
                if handle is not None:
                    return handle
                self._raise_failure(shard, since)
                return self._fetch(shard, lock)
        except TimeoutError as error:
            raise FetchError(str(error)) from error

    def fetch_if_free(self, shard: RemoteShard) -> None:
        """Fetch a shard unless it is here or another process is at it.

        Raises:
            FetchError: as ``open``.
        """
        if self._keep_cached(shard):
            return
        with hold_lock_if_free(self._lock_of(shard)) as lock:
            if lock is not None and not self._keep_cached(shard):
                os.close(self._fetch(shard, lock))

    def _path(self, shard: RemoteShard) -> Path:
        return self._shards / f"{shard.sha256}.tar"

    def _lock_of(self, shard: RemoteShard) -> Path:
        return self._locks / shard.sha256

    def _keep_cached(self, shard: RemoteShard) -> bool:
        """Whether it is here; as somebody wants it, others are evicted first."""
        path = self._path(shard)
        if _size(path) != shard.bytes:
            return False
        with suppress(FileNotFoundError):
            os.utime(path)
        return True

    def _open_cached(self, shard: RemoteShard) -> int | None:
        path = self._path(shard)
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        if os.fstat(handle).st_size != shard.bytes:  # somebody cut it; fetch it again
            os.close(handle)
            path.unlink(missing_ok=True)
            return None
        touch(handle)
        return handle

    def _fetch(self, shard: RemoteShard, lock: HeldLock) -> int:
        """Download, check, and only then give the shard its name; the caller holds its lock."""
        part = self._partial / shard.sha256
        failed = self._failed / shard.sha256
        try:
            try:
                self._reserve(part, shard, lock)
                with part.open("r+b", buffering=0) as file:
                    download(shard.url, file, settings=self.settings.fetch, size=shard.bytes, sha256=shard.sha256,
                             alive=lock.beat)  # fmt: skip
                    os.fsync(file.fileno())
                    handle = os.open(part, os.O_RDONLY)
                touch(handle)
                part.replace(self._path(shard))
            finally:
                part.unlink(missing_ok=True)
        except FetchError as error:
            failed.write_text(str(error), encoding="utf-8")
            raise
        except OSError as error:
            if not is_disk_full(error):
                raise
            free = shutil.disk_usage(self.folder).free
            raise FetchError(
                f"{shown(shard.url)}: no room for {shard.bytes} bytes in {self.folder}, where {free} are free; "
                "empty the disk, or allow the cache fewer bytes than the disk has"
            ) from error
        failed.unlink(missing_ok=True)
        return handle

    def _raise_failure(self, shard: RemoteShard, since: float) -> None:
        """Of many processes that wait for a shard one tries; when it has failed, the others need not try one by one."""
        failed = self._failed / shard.sha256
        try:
            if failed.stat().st_mtime >= since:
                raise FetchError(failed.read_text(encoding="utf-8") + " (found by another process)")
        except FileNotFoundError:
            pass

    def _reserve(self, part: Path, shard: RemoteShard, lock: HeldLock) -> None:
        """Make ``part`` at its full size, after evicting what was used longest ago."""
        limit = self.settings.max_bytes
        if shard.bytes > limit:
            raise FetchError(
                f"{shown(shard.url)} has {shard.bytes} bytes, the whole cache may take {limit}; allow more"
            )
        until = time.monotonic() + self.settings.wait_s
        while True:
            with hold_lock(self._locks / "room", wait_s=self.settings.wait_s, what=f"the cache {self.folder}"):
                self._remove_leftovers()
                excess = self.used_bytes() + shard.bytes - limit
                for path in sorted(self._shards.iterdir(), key=_last_used):
                    if excess <= 0:
                        break
                    excess -= _size(path)
                    path.unlink(missing_ok=True)
                if excess <= 0:
                    with part.open("wb") as file:
                        _allocate(file.fileno(), shard.bytes)
                    return
            if time.monotonic() > until:
                raise FetchError(
                    f"{shown(shard.url)}: no room for {shard.bytes} bytes in {self.folder} within "
                    f"{self.settings.wait_s:g} s: of {limit} bytes, {self.used_bytes()} are shards being fetched; "
                    "allow the cache more bytes"
                )
            lock.beat()
            time.sleep(_POLL_S)

    def _remove_leftovers(self) -> None:
        """Parts that nobody is fetching: their processes were killed."""
        for part in self._partial.iterdir():
            with hold_lock_if_free(self._locks / part.name) as lock:
                if lock is not None:
                    part.unlink(missing_ok=True)


def touch(handle: int) -> None:
    """Note that a shard was used, so that others are evicted first."""
    os.utime(handle)


def _allocate(handle: int, size: int) -> None:
    """Take the room now, so that a full disk is known before anything is fetched."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:  # macOS: a full disk shows while fetching
        os.truncate(handle, size)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _last_used(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
