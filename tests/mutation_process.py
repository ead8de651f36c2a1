"""Decoding mutations in a process of their own, so that a crash, a hang or a full memory belongs to one of them."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PATIENCE_S = 40.0
"""Wall time after which a mutation hangs. The limit that is tested is one of processor time (10 s), which the other
processes of a busy machine do not use up."""

Item = tuple[str, str, int]


def outcomes(
    folder: Path, items: Sequence[Item], *, patience_s: float = PATIENCE_S
) -> Iterator[tuple[Item, dict[str, Any]]]:
    """The outcome of each mutation (see ``tests.mutations.outcome``), with results ``crash`` and ``hang`` added.

    Args:
        folder: where ``write_bases`` has put the base files.
        items: (base, kind, number) of each mutation.
        patience_s: wall seconds after which a mutation counts as a hang.
    """
    process: _Process | None = None
    try:
        for item in items:
            process = process or _Process(folder)
            answer = process.ask(item, patience_s)
            if answer["result"] in ("crash", "hang"):
                process = None
            yield item, answer
    finally:
        if process is not None:
            process.end()


class _Process:
    def __init__(self, folder: Path) -> None:
        self._errors = (folder / "errors.txt").open("w+")
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.mutations", str(folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            cwd=Path(__file__).parent.parent,
        )  # fmt: skip
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        # Importing torch takes seconds, which are not the first mutation's.
        if self._lines.get(timeout=120) != "ready\n":
            raise RuntimeError(f"the decoding process did not start: {self._last_words()}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")  # the process has ended

    def ask(self, item: Item, patience_s: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(item) + "\n")
            self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=patience_s)
        except queue.Empty:
            self.end()
            return {"result": "hang", "detail": f"no answer in {patience_s:g} s", "cpu_s": patience_s, "peak_mb": 0.0}
        if not line:
            status = self._process.wait()
            name = signal.Signals(-status).name if status < 0 else f"status {status}"
            detail = f"{name}: {self._last_words()}"
            self.end()
            return {"result": "crash", "detail": detail, "cpu_s": 0.0, "peak_mb": 0.0}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-2000:]

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._errors):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
