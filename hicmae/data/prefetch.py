"""Fetching shards ahead of their use, on one thread of each process."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

from hicmae.data.shard_cache import RemoteShard, ShardCache

logger = logging.getLogger(__name__)


class Prefetcher:
    """Brings shards into the cache while others are read.

    The thread starts with the first request in a process and ends when nothing is left to do. It is pickled without its
    thread and its requests. What fails here is told in the log and left to the reader, who needs the shard and fails.
    """

    def __init__(self, cache: ShardCache) -> None:
        self._cache = cache
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"_cache": self._cache}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._cache = state["_cache"]
        self._forget()

    def _forget(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._wanted: deque[RemoteShard] = deque()
        self._thread: threading.Thread | None = None

    def request(self, shards: Iterable[RemoteShard]) -> None:
        """Fetch these next, in this order; what was requested before and has not begun is dropped."""
        if self._owner != os.getpid():
            self._forget()  # this process was forked: threads do not come along
        with self._lock:
            self._wanted = deque(shards)
            if self._wanted and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hicmae-prefetch", daemon=True)
                self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait until nothing is left to fetch; whether that came true in time."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return self._thread is None

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return
                shard = self._wanted.popleft()
            try:
                self._cache.fetch_if_free(shard)
            except OSError as error:
                logger.warning("not fetched ahead of its use: %s", error)
