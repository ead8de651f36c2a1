"""A web server on this machine that behaves badly when told to, and counts what it is asked for."""

from __future__ import annotations

import re
import threading
from collections import Counter, defaultdict, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class HostileServer:
    """Serves files of a folder.

    ``faults[name]`` are used up, one a request; one that begins with ``always`` stays. They are: a status, ``close``
    (no answer), ``silent``, ``stall`` or ``truncate`` (in the middle), ``trickle`` (a byte every 20 ms),
    ``trickle_head``, ``wrong`` (other bytes), ``longer``, ``shorter``, and ``to URL`` (a redirect).
    """

    def __init__(self, folder: Path, *, resumes: bool = True) -> None:
        self.requests: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.authorizations: list[str | None] = []
        self.faults: dict[str, deque[str]] = defaultdict(deque)
        self.lock = threading.Lock()
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self, "folder": folder, "resumes": resumes})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def next_fault(self, name: str) -> str:
        with self.lock:
            self.requests[name] += 1
            waiting = self.faults[name]
            if not waiting:
                return ""
            fault = waiting[0] if waiting[0].startswith("always ") else waiting.popleft()
        return fault.removeprefix("always ")

    def __enter__(self) -> HostileServer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: HostileServer
    folder: Path
    resumes: bool
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.split("?")[0].lstrip("/")
        self.owner.authorizations.append(self.headers.get("Authorization"))
        fault = self.owner.next_fault(name)
        self.close_connection = True
        file = self.folder / name
        if fault == "close":
            return
        if fault == "silent":
            self.owner.closing.wait(20)
            return
        if fault == "trickle_head":
            self._drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000)
            return
        if fault.isdigit() or not file.is_file():
            self.send_error(int(fault or 404))
            return
        if fault.startswith("to "):
            self.send_response(302)
            self.send_header("Location", fault.removeprefix("to "))
            self.end_headers()
            return
        data = file.read_bytes()
        tag = f'"{len(data)}-{file.stat().st_mtime_ns}"'
        start = self._start(tag)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        data = data[start:]
        if fault == "wrong":
            data = bytes(byte ^ 1 for byte in data)
        if fault == "longer":
            data += b"and more"
        if fault == "shorter":
            data = data[: len(data) // 2]
        self.send_header("Content-Length", str(len(data)))
        if self.resumes:
            self.send_header("ETag", tag)
        self.end_headers()
        if fault in ("stall", "truncate"):
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if fault == "stall":
                self.owner.closing.wait(20)
        elif fault == "trickle":
            self._drip(data)
        else:
            self.wfile.write(data)

    def _start(self, tag: str) -> int:
        asked = self.headers.get("Range")
        if asked is None:
            return 0
        self.owner.ranges.append(asked)
        match = re.fullmatch(r"bytes=(\d+)-", asked)
        assert match
        return int(match[1]) if self.resumes and self.headers.get("If-Range") == tag else 0

    def _drip(self, data: bytes) -> None:
        try:
            for i in range(len(data)):
                self.wfile.write(data[i : i + 1])
                self.wfile.flush()
                if self.owner.closing.wait(0.02):
                    return
        except OSError:
            pass  # the client has had enough
