"""Locks between the processes and threads of one machine that end with whoever holds them, even by kill -9."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.03
_BEAT_S = 1.0


class HeldLock:
    """A lock while it is held. The system frees it when the process ends in whatever way."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._beaten = 0.0

    def beat(self) -> None:
        """Tell those who wait that work goes on."""
        now = time.monotonic()
        if now - self._beaten >= _BEAT_S:
            os.utime(self._handle)
            self._beaten = now


@contextmanager
def hold_lock(path: Path, *, wait_s: float, what: str) -> Iterator[HeldLock]:
    """Hold the lock ``path`` (``flock``: threads exclude each other as well).

    Raises:
        TimeoutError: its holder has given no sign of life for ``wait_s`` seconds; the message says who holds ``what``.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        since = time.time()
        while not _try(handle):
            if time.time() - max(since, os.fstat(handle).st_mtime) > wait_s:
                raise TimeoutError(
                    f"{what} is held by {_holder(handle)}, which has done nothing for {wait_s:g} s (lock {path}); "
                    "end that process, or allow more wait_s"
                )
            time.sleep(_POLL_S)
        yield _sign(handle)
    finally:
        os.close(handle)


@contextmanager
def hold_lock_if_free(path: Path) -> Iterator[HeldLock | None]:
    """The same without waiting; None when another holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _sign(handle) if _try(handle) else None
    finally:
        os.close(handle)


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Be the only process of this machine that writes into ``folder``, which is made when missing.

    Raises:
        ValueError: another one does, and who.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with hold_lock_if_free(path) as lock:
        if lock is None:
            holder = path.read_text(encoding="utf-8", errors="replace") or "another process"
            raise ValueError(f"{folder} is being written by {holder}; wait for its end, or give another folder")
        yield


def remove_drafts(folder: Path) -> None:
    """Remove what killed processes have left unfinished in ``folder``, which ``hold_folder`` has given to this one."""
    for draft in folder.glob(".*.tmp*"):
        draft.unlink(missing_ok=True)


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(handle: int) -> HeldLock:
    text = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode("utf-8"), 0)
    return HeldLock(handle)


def _holder(handle: int) -> str:
    return os.pread(handle, 300, 0).decode("utf-8", "replace") or "an unknown process"
