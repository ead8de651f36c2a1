"""A GET request whose every wait ends: connecting, the answer's head, and each piece of its body."""

from __future__ import annotations

import base64
import http.client
import re
import socket
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

_ERROR_CODE = re.compile(rb"<Code>(\w{1,60})</Code>")  # of S3's error documents
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class HttpStatusError(Exception):
    """The server answered with a status other than success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the server answered {status} {text}".rstrip())
        self.status = status


@dataclass(frozen=True, kw_only=True)
class HttpAnswer:
    """A body to read from, and what its head said."""

    body: http.client.HTTPResponse
    partial: bool
    """Whether it starts where asked (206), not at the start of the file."""
    total: int | None
    """Bytes of the whole file, where the server says so."""
    version: str | None
    """A strong ETag: names this very content, for going on later."""


def open_http(url: str, *, start: int, version: str | None, connect_s: float, answer_s: float) -> HttpAnswer:
    """GET ``url``, from byte ``start`` on where the server can and the content is still ``version``.

    Proxies come from the environment as usual; redirects lead to http and https alone. ``user:password@`` in the URL
    is sent to that host and to no other.

    Raises:
        HttpStatusError: the status is not 200 or 206.
        TimeoutError: no connection within ``connect_s``, or no answer within ``answer_s``.
        OSError, http.client.HTTPException: the connection failed or broke.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host, fragment="")))
    request.add_header("Accept-Encoding", "identity")
    request.add_header("User-Agent", "hicmae")
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    if start and version:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", version)
    try:
        response = _opener(answer_s).open(request, timeout=connect_s)
    except urllib.error.HTTPError as error:
        with error:
            raise HttpStatusError(error.code, _explanation(error)) from None
    except urllib.error.URLError as error:
        raise error.reason if isinstance(error.reason, OSError) else OSError(str(error.reason)) from error
    span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    partial = response.status == 206
    if response.status not in (200, 206) or (partial and not (span and int(span[1]) == start)):
        response.close()
        raise HttpStatusError(response.status, "instead of the file")
    tag = response.headers.get("ETag", "")
    return HttpAnswer(
        body=response,
        partial=partial,
        total=int(span[2]) if partial and span else response.length,
        version=tag if tag.startswith('"') else None,
    )


def _explanation(error: urllib.error.HTTPError) -> str:
    try:
        found = _ERROR_CODE.search(error.read1(4096))
    except (OSError, http.client.HTTPException):
        found = None
    return f"{error.reason} ({found[1].decode()})" if found else str(error.reason)


def _opener(answer_s: float) -> urllib.request.OpenerDirector:
    """Opens http and https alone: no files, no FTP, not even when a server redirects there."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        _PlainHandler(answer_s),
        _SecureHandler(answer_s),
    ):
        opener.add_handler(handler)
    return opener


class _TimedConnection(http.client.HTTPConnection):
    def __init__(self, host: str, *, answer_s: float, **options: Any) -> None:
        super().__init__(host, **options)
        self.answer_s = answer_s

    def connect(self) -> None:
        super().connect()  # within the time-out given to the opener
        assert self.sock is not None
        self.sock.settimeout(self.answer_s)

    def getresponse(self) -> http.client.HTTPResponse:
        # the socket's time-out starts anew with every byte: a head that trickles would never end
        late = threading.Event()
        watch = threading.Timer(self.answer_s, _shut, [self.sock, late])
        watch.daemon = True
        watch.start()
        try:
            response = super().getresponse()
        except (OSError, http.client.HTTPException) as error:
            if late.is_set() or isinstance(error, TimeoutError):  # of a silent server, either may notice first
                raise TimeoutError("the head of the answer did not come") from None
            raise
        finally:
            watch.cancel()
        if late.is_set():  # a head cut off may still look like one
            response.close()
            raise TimeoutError("the head of the answer did not come whole")
        return response


class _SecureConnection(_TimedConnection, http.client.HTTPSConnection):
    pass


def _shut(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    with suppress(OSError):  # closed already
        sock.shutdown(socket.SHUT_RDWR)


class _PlainHandler(urllib.request.HTTPHandler):
    def __init__(self, answer_s: float) -> None:
        super().__init__()
        self._connection = partial(_TimedConnection, answer_s=answer_s)

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._connection, req)


class _SecureHandler(urllib.request.HTTPSHandler):
    def __init__(self, answer_s: float) -> None:
        super().__init__()
        self._connection = partial(_SecureConnection, answer_s=answer_s)

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._connection, req)
