"""How a job over many files is shown: a bar on a terminal, a line now and then elsewhere; failures as they happen."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from hicmae.inference.journal import FileFailure

_EVERY_S = 10.0


class JobProgress:
    """A ``job.Listener`` that writes to stderr. Use it as a context manager.

    Args:
        verb: what is done to the files, for instance ``embedding``.
    """

    def __init__(self, verb: str, *, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._verb = verb
        self._lock = threading.Lock()
        self._files = self._done = self._failed = 0
        self._windows = 0
        self._at: dict[str, int] = {}
        self._began = self._told = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if self.console.is_terminal:
            note = TextColumn("{task.fields[note]}")
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), note, TimeRemainingColumn())
            self._bar = Progress(*columns, console=self.console)
            self._task = self._bar.add_task(verb, total=None, note="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and self._files:
            self._line()

    def begin(self, files: int, done: int) -> None:
        """See ``job.Listener``."""
        self._files, self._done = files, done
        if done:
            self._say(f"{done} of {files} files were done before")
        if self._bar is not None:
            self._bar.update(self._task, total=files, completed=done)

    def windows(self, name: str, done: int, total: int) -> None:
        """See ``job.Listener``."""
        with self._lock:
            self._windows += done - self._at.get(name, 0)
            self._at[name] = done
            note = f"{self._rate()}, {name}: {done}/{total}" if total > 1 else self._rate()
            if self._bar is not None:
                self._bar.update(self._task, note=note)
            elif time.monotonic() - self._told > _EVERY_S:
                self._line(note)

    def finished(self, name: str, failure: FileFailure | None) -> None:
        """See ``job.Listener``."""
        with self._lock:
            self._done += 1
            self._at.pop(name, None)
            self._failed += failure is not None
            if failure is not None:
                self._say(f"failed: {failure.message}")
            if self._bar is not None:
                self._bar.update(self._task, completed=self._done)
            elif time.monotonic() - self._told > _EVERY_S:
                self._line()

    def _rate(self) -> str:
        seconds = max(1e-9, time.monotonic() - self._began)
        return f"{self._windows / seconds:.1f} windows/s"

    def _line(self, note: str | None = None) -> None:
        self._told = time.monotonic()
        failed = f", {self._failed} failed" if self._failed else ""
        self._say(f"{self._verb}: {self._done} of {self._files} files{failed}, {note or self._rate()}")

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)
