"""One file from a URL, whole and checked: time-outs, stalls, retries, and errors that say what to do."""

from __future__ import annotations

import errno
import hashlib
import http.client
import logging
import random
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from hicmae.data.fetch_error import FetchError
from hicmae.data.http_client import HttpStatusError, open_http
from hicmae.data.s3 import signed_link
from hicmae.data.urls import check_url, local_path, shown

logger = logging.getLogger(__name__)

_PIECE_BYTES = 2**20
_LEAST_BYTES_PER_S = 1024
_LONGEST_PAUSE_S = 30.0
_TRIED_AGAIN = (408, 425, 429)  # and all from 500 on


@dataclass(frozen=True, kw_only=True)
class FetchSettings:
    """How patient a download is.

    An attempt fails when no connection comes about in ``connect_s``, or less than 1 KiB/s arrives over ``stall_s``.
    """

    attempts: int = 5
    connect_s: float = 10.0
    stall_s: float = 30.0
    backoff_s: float = 1.0
    """Pause before the second attempt, in seconds; doubled each time up to 30 s, and up to half shorter by chance."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts={self.attempts} must be at least 1")
        for name in ("connect_s", "stall_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be a number of seconds above 0")
        if not self.backoff_s >= 0:
            raise ValueError(f"backoff_s={self.backoff_s} must be 0 or more seconds")


class _Body(Protocol):
    def read1(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class _AttemptError(Exception):
    """This attempt failed and another may succeed; ``restart``: what has arrived so far is of no use."""

    def __init__(self, reason: str, *, restart: bool = False) -> None:
        super().__init__(reason)
        self.restart = restart


def download(
    url: str,
    file: BinaryIO,
    *,
    settings: FetchSettings,
    size: int | None = None,
    sha256: str | None = None,
    limit: int | None = None,
    alive: Callable[[], None] = lambda: None,
) -> int:
    """Fetch ``url`` into ``file`` from its start, and check it; an attempt goes on where the last one broke off.

    Args:
        file: open for writing at any place.
        size: bytes that it must have.
        sha256: the hash that it must have, in hexadecimal.
        limit: more bytes than these are an error.
        alive: called now and then while there is hope; it may raise.

    Returns:
        The number of bytes.

    Raises:
        FetchError: after the last attempt, or at once where another cannot help; with URL, attempts and reason.
        OSError: ``file`` cannot be written.
    """
    check_url(url)
    transfer = _Transfer(url, file, settings=settings, size=size, sha256=sha256, limit=limit, alive=alive)
    for attempt in range(1, settings.attempts + 1):
        alive()
        try:
            transfer.run()
        except _AttemptError as error:
            if error.restart:
                transfer.restart()
            if attempt == settings.attempts:
                tries = f"{attempt} attempt{'s' if attempt > 1 else ''}"
                raise FetchError(
                    f"{shown(url)} could not be fetched: gave up after {tries}; the last one: {error}"
                ) from error
            pause = min(_LONGEST_PAUSE_S, settings.backoff_s * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
            logger.warning("%s: attempt %d of %d failed: %s; next one in %.1f s",
                           shown(url), attempt, settings.attempts, error, pause)  # fmt: skip
            time.sleep(pause)
        else:
            break
    return transfer.received


class _Transfer:
    """What has arrived of one file, over all attempts."""

    def __init__(self, url: str, file: BinaryIO, *, settings: FetchSettings, size: int | None, sha256: str | None,
                 limit: int | None, alive: Callable[[], None]) -> None:  # fmt: skip
        self._url, self._file, self._settings = url, file, settings
        self._size, self._sha256, self._alive = size, sha256, alive
        self._limit = size if size is not None else limit
        self.restart()

    def restart(self) -> None:
        self.received = 0
        self._digest = hashlib.sha256()
        self._version: str | None = None
        self._announced: int | None = None  # bytes of the whole, as the server says

    def run(self) -> None:
        """One attempt."""
        with closing(self._open()) as body:
            self._file.seek(self.received)
            for piece in self._pieces(body):
                if self._limit is not None and self.received + len(piece) > self._limit:
                    raise _AttemptError(self._wrong_size(f"more than {self._limit}"), restart=True)
                self._file.write(piece)
                self._digest.update(piece)
                self.received += len(piece)
                self._alive()
        whole = self._size if self._size is not None else self._announced
        if whole is not None and self.received != whole:
            raise _AttemptError(f"cut off after {self.received} of {whole} bytes")
        if self._sha256 is not None and (actual := self._digest.hexdigest()) != self._sha256:
            raise _AttemptError(
                f"its SHA-256 is {actual}, the index says {self._sha256}: it was damaged on the way or is another "
                "file than was indexed; upload it and its index together, or run 'hicmae shards verify' at its origin",
                restart=True,
            )

    def _cannot_be(self, size: int) -> bool:
        return size != self._size if self._size is not None else self._limit is not None and size > self._limit

    def _wrong_size(self, what: str) -> str:
        return (
            f"it has {what} bytes, the index says {self._size}: it is not the file that was indexed; upload the folder "
            "and its index.json together"
            if self._size is not None
            else f"it has {what} bytes, which cannot be right for such a file"
        )

    def _open(self) -> _Body:
        """Ask for the rest of the file."""
        scheme = self._url.partition(":")[0]
        if scheme == "file":
            return self._open_local()
        link = signed_link(self._url) if scheme == "s3" else self._url
        try:
            answer = open_http(
                link, start=self.received, version=self._version,
                connect_s=self._settings.connect_s, answer_s=self._settings.stall_s,
            )  # fmt: skip
        except HttpStatusError as error:
            if error.status in _TRIED_AGAIN or error.status >= 500:
                raise _AttemptError(str(error)) from error
            if error.status == 416:
                raise _AttemptError(str(error), restart=True) from error
            raise FetchError(f"{shown(self._url)}: {error}; {_remedy(error.status)}") from error
        except ssl.SSLCertVerificationError as error:
            raise FetchError(
                f"{shown(self._url)}: the server's certificate is not trusted ({error.verify_message}); check the URL, "
                "or name your authority's certificates in SSL_CERT_FILE"
            ) from error
        except TimeoutError as error:
            patience = f"{self._settings.connect_s:g} s to connect, {self._settings.stall_s:g} s to answer"
            raise _AttemptError(f"no answer ({error}; allowed are {patience})") from error
        except (OSError, http.client.HTTPException) as error:
            raise _AttemptError(f"no connection ({error!r})") from error
        if not answer.partial and self.received:
            self.restart()  # the server does not resume, or has another version by now
        self._version = answer.version
        if answer.total is not None and self._cannot_be(answer.total):
            answer.body.close()
            raise _AttemptError(self._wrong_size(str(answer.total)), restart=True)
        self._announced = answer.total
        return answer.body

    def _open_local(self) -> _Body:
        path = local_path(self._url)
        try:
            file = path.open("rb")
            file.seek(self.received)
        except OSError as error:
            raise FetchError(f"{self._url}: {path} cannot be read ({error.strerror}); check the path") from error
        return file

    def _pieces(self, body: _Body) -> Iterator[bytes]:
        """The bytes as they come; a stall, however slowly it trickles, is a failure."""
        stall_s = self._settings.stall_s
        since, arrived = time.monotonic(), 0
        while True:
            try:
                piece = body.read1(_PIECE_BYTES)
            except TimeoutError as error:
                whole = self._size or self._announced or "unknown"
                raise _AttemptError(f"stalled: no bytes for {stall_s:g} s after {self.received} of {whole}") from error
            except (OSError, http.client.HTTPException) as error:
                raise _AttemptError(f"connection lost after {self.received} bytes ({error!r})") from error
            if not piece:
                return
            arrived += len(piece)
            elapsed = time.monotonic() - since
            if elapsed >= stall_s:
                if arrived < _LEAST_BYTES_PER_S * elapsed:
                    raise _AttemptError(f"stalled: {arrived} bytes in {elapsed:.0f} s, after {self.received}")
                since, arrived = time.monotonic(), 0
            yield piece


def _remedy(status: int) -> str:
    """What to check when a server will not give a file."""
    if status in (401, 403):
        return "check the credentials and whether they may read this path (a missing object of S3 also answers 403)"
    if status in (404, 410):
        return "check the URL: host or bucket, folder and name; the shards lie beside their index.json"
    if status in (301, 302, 303, 307, 308, 400):
        return "check the URL, and for s3:// the region (AWS_DEFAULT_REGION) and the endpoint (AWS_ENDPOINT_URL)"
    return "check the URL"


def is_disk_full(error: OSError) -> bool:
    """Whether a write failed for want of room, on the disk or within a quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
