"""Shard folders by URL: their index, and their clips through the cache of this machine."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hicmae.data.fetch import download
from hicmae.data.file_lock import hold_lock
from hicmae.data.prefetch import Prefetcher
from hicmae.data.shard_cache import RemoteShard, ShardCache, touch
from hicmae.data.shard_index import CLIPS_NAME, INDEX_NAME, SCHEMA, ShardIndex, write_json
from hicmae.data.urls import check_url, join_url, shown

_OPEN_FILES = 64  # per process; a job has many processes and the system a limit
_TOUCH_S = 1.0
_INDEX_LIMIT = 2**30
_TABLE_LIMIT = 2**36


class RemoteReader:
    """Reads bytes of remote shards by offset (a ``source.ShardReader``).

    A shard is fetched whole when its first bytes are asked for. Picklable; open files and the prefetching thread stay
    behind.

    Args:
        cache: where shards are kept.
    """

    def __init__(self, cache: ShardCache) -> None:
        self.cache = cache
        self._shards: dict[str, RemoteShard] = {}
        self._prefetcher = Prefetcher(cache)
        self._open: OrderedDict[str, _OpenShard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": OrderedDict()}

    def __len__(self) -> int:
        """Files that this process has open."""
        return len(self._open)

    def open_folder(self, url: str) -> tuple[ShardIndex, tuple[str, ...]]:
        """The index of a shard folder, and the URL of each of its shards, which can then be read.

        Raises:
            FetchError: the index cannot be had.
            ValueError: it is no index, is damaged, or the URL is of a kind that is not read.
        """
        base, folder = fetch_index(url, self.cache)
        try:
            index, _ = ShardIndex.read(folder)
        except ValueError as error:
            raise ValueError(f"{shown(base)}: {error}") from error
        shards = [RemoteShard(url=join_url(base, s.name), bytes=s.bytes, sha256=s.sha256) for s in index.shards]
        self._shards |= {shard.url: shard for shard in shards}
        return index, tuple(shard.url for shard in shards)

    def check_capacity(self, shards: int) -> None:
        """As ``ShardCache.check_capacity``, for all shards that may be read."""
        self.cache.check_capacity([shard.bytes for shard in self._shards.values()], shards)

    def read(self, shard: Path | str, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``; fewer where the shard ends.

        Raises:
            FetchError: the shard cannot be had; no other reader will fare better, so the job should end.
            OSError: the cached file cannot be read.
        """
        url = str(shard)
        opened = self._open.get(url)
        if opened is None:
            opened = _OpenShard(self.cache.open(self._shards[url]))
            self._close_evicted()
            self._open[url] = opened
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        else:
            self._open.move_to_end(url)
        return opened.read(offset, size)

    def prefetch(self, shards: Iterable[Path | str]) -> None:
        """Fetch these shards in the background, in this order; requests not yet begun are dropped.

        Every process of a machine may ask for the same: each shard is fetched by one of them. Others than remote shards
        are passed over.
        """
        self._prefetcher.request(self._shards[str(shard)] for shard in shards if str(shard) in self._shards)

    def _close_evicted(self) -> None:
        """An evicted shard takes room on the disk for as long as anyone has it open."""
        for url in [url for url, opened in self._open.items() if opened.is_evicted()]:
            self._open.pop(url).close()

    def __del__(self) -> None:
        for opened in vars(self).get("_open", {}).values():
            opened.close()


class _OpenShard:
    """One open file of the cache."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._touched = time.monotonic()

    def read(self, offset: int, size: int) -> bytes:
        now = time.monotonic()
        if now - self._touched >= _TOUCH_S:
            touch(self._handle)
            self._touched = now
        data = os.pread(self._handle, size, offset)
        while len(data) < size:  # one call reads at most 2 GiB
            more = os.pread(self._handle, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def is_evicted(self) -> bool:
        return os.fstat(self._handle).st_nlink == 0

    def close(self) -> None:
        os.close(self._handle)


def fetch_index(url: str, cache: ShardCache) -> tuple[str, Path]:
    """Fetch the index of a shard folder: the folder's URL, and a local folder with ``index.json`` and ``clips.arrow``.

    ``index.json`` is always fetched anew; what belongs to it is kept under its hash, so that a changed index never
    disturbs a running job. Indexes lie beside the shards and are not counted with them.

    Args:
        url: the folder, or its ``index.json``.
        cache: where it is kept.

    Raises:
        FetchError: it cannot be had.
        ValueError: the URL is of another kind, or there is no index.
    """
    check_url(url)
    base, question, query = url.partition("?")
    url = base.removesuffix(f"/{INDEX_NAME}").rstrip("/") + question + query
    index_url = join_url(url, INDEX_NAME)
    buffer = io.BytesIO()
    download(index_url, buffer, settings=cache.settings.fetch, limit=_INDEX_LIMIT)
    text = buffer.getvalue()
    try:
        values = json.loads(text)
        sha256 = str(values["clips"]["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{shown(index_url)}: not a shard index of schema {SCHEMA} ({error!r}); check the URL, or write it again"
        ) from error
    folder = cache.folder / "indexes" / hashlib.sha256(text).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder / "lock", wait_s=cache.settings.wait_s, what=shown(index_url)) as lock:
        if not (folder / INDEX_NAME).exists():
            part = folder / f"{CLIPS_NAME}.part"
            with part.open("wb") as file:
                download(join_url(url, CLIPS_NAME), file, settings=cache.settings.fetch, limit=_TABLE_LIMIT,
                         sha256=sha256, alive=lock.beat)  # fmt: skip
            part.replace(folder / CLIPS_NAME)
            write_json(folder / INDEX_NAME, values)  # last: where it lies, all is there
    return url, folder
