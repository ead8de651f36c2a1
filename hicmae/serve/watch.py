"""A prediction that can be watched while it is made, and stopped."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hicmae.data.source import ClipUnreadableError
from hicmae.inference.items import MediaItem
from hicmae.inference.predictor import Predictor
from hicmae.inference.results import FilePrediction, WindowPrediction
from hicmae.media.clip import DecodeError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SoFar:
    """The windows that are known, while others are still to come."""

    windows: tuple[WindowPrediction, ...]
    """In order of time; empty while the file is being opened."""
    done: int
    total: int
    """Windows of the file; 0 while that is unknown."""
    seconds: float
    """Since the start."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Why there is no prediction, in a sentence for the user."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """The user did not want the rest."""

    done: int
    total: int


State = SoFar | FilePrediction | Failed | Stopped


class Watch:
    """One file on its way through a ``Predictor``: iterate over it for what is known, the last item is how it ended.

    The work is done in a thread, which has ended when the iteration has, also where it is broken off.
    """

    def __init__(self, predictor: Predictor, item: MediaItem) -> None:
        self._predictor = predictor
        self._item = item
        self._stop = threading.Event()
        self._news: queue.SimpleQueue[State] = queue.SimpleQueue()
        self._begin = time.monotonic()
        self._last = SoFar(windows=(), done=0, total=0, seconds=0.0)

    def stop(self) -> None:
        """End it at the next window. May be called from any thread, and more than once."""
        self._stop.set()

    def __iter__(self) -> Iterator[State]:
        thread = threading.Thread(target=self._work, name="prediction", daemon=True)
        thread.start()
        try:
            yield self._last
            while True:
                state = self._news.get()
                while not self._news.empty():  # only the latest is worth showing
                    state = self._news.get()
                yield state
                if not isinstance(state, SoFar):
                    return
        finally:
            self.stop()
            thread.join()

    def _work(self) -> None:
        windows: list[WindowPrediction] = []

        def on_window(window: WindowPrediction, done: int, total: int) -> None:
            windows.append(window)
            seconds = time.monotonic() - self._begin
            self._last = SoFar(windows=tuple(windows), done=done, total=total, seconds=seconds)
            if self._stop.is_set():
                raise _StopError
            self._news.put(self._last)

        try:
            self._news.put(self._predictor.predict(self._item, on_window))
        except _StopError:
            self._news.put(Stopped(done=self._last.done, total=self._last.total))
        except (DecodeError, ClipUnreadableError) as error:
            self._news.put(Failed(message=str(error)))
        except Exception:
            logger.exception("%s could not be worked on", self._item.name)
            self._news.put(Failed(message="something went wrong that should not; the terminal of the server says more"))


class _StopError(Exception):
    """Out of a prediction from within."""
