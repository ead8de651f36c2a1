"""The page: a player with the timeline beside it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from hicmae.inference.items import MediaItem
from hicmae.inference.prediction_files import About
from hicmae.inference.predictor import Predictor
from hicmae.inference.results import FilePrediction
from hicmae.serve import panels
from hicmae.serve.watch import SoFar, Watch

_LEAST_S = 0.8
"""Between two drawings of an unfinished timeline; also at least twice what a drawing takes."""
_SWEEP_S = (600, 12 * 3600)
"""How often leftovers are looked for, and how old they are when deleted: a page whose closing was not noticed."""


class Visits:
    """What each open page works on: to stop it, and to delete its files, which are of people's faces."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._lock = threading.Lock()
        self._files: dict[str, set[Path]] = {}
        self._watches: dict[str, Watch] = {}

    def begin(self, visit: str, path: Path, watch: Watch) -> None:
        """A page brought another file; its earlier one is deleted."""
        self.end(visit, keep=path)
        with self._lock:
            self._files.setdefault(visit, set()).add(path)
            self._watches[visit] = watch

    def stop(self, visit: str) -> None:
        """Stop what a page waits for."""
        with self._lock:
            watch = self._watches.get(visit)
        if watch is not None:
            watch.stop()

    def end(self, visit: str, *, keep: Path | None = None) -> None:
        """Stop what a page waits for, and delete its files that no other page has brought too."""
        self.stop(visit)
        with self._lock:
            files = self._files.pop(visit, set()) - {keep}
            self._watches.pop(visit, None)
            for path in files - set().union(*self._files.values()):
                # An upload lies in a folder of its own, named by its content.
                if path.resolve().is_relative_to(self._folder) and path.resolve().parent != self._folder:
                    shutil.rmtree(path.parent, ignore_errors=True)


def build_page(predictor: Predictor, visits: Visits, *, settings: About, max_mb: int) -> gr.Blocks:
    """The page, to be launched.

    Args:
        predictor: what works on the files, one at a time.
        visits: knows where files are laid down.
        settings: goes into downloaded JSON.
        max_mb: what the page says of the size of files.
    """

    def watch_file(path: str | None, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        if path is None:
            return
        visit, name = str(request.session_hash), Path(path).name
        watch = Watch(predictor, MediaItem(name=name, video=Path(path)))
        visits.begin(visit, Path(path), watch)
        line, draw_at = "", 0.0
        for state in watch:
            if isinstance(state, SoFar):
                now = time.monotonic()
                if state.windows and now >= draw_at:
                    line = panels.timeline(panels.partial(name, state.windows, predictor.targets, predictor.name))
                    drawn = time.monotonic()
                    draw_at = drawn + max(_LEAST_S, 2 * (drawn - now))
                yield panels.progress(state, faces=predictor.faces), line, "", gr.update(visible=True)
            elif isinstance(state, FilePrediction):
                yield (
                    panels.verdict(state),
                    panels.timeline(state),
                    panels.details(state, settings),
                    gr.update(visible=False),
                )
            else:
                yield panels.failure(state), "", "", gr.update(visible=False)

    def stop(request: gr.Request) -> None:
        visits.stop(str(request.session_hash))

    def leave(request: gr.Request) -> None:
        visits.end(str(request.session_hash))

    def clear(request: gr.Request) -> tuple[Any, ...]:
        leave(request)
        return panels.WELCOME, "", "", gr.update(visible=False)

    with gr.Blocks(title="HiCMAE", analytics_enabled=False, delete_cache=_SWEEP_S, fill_width=True) as page:
        gr.HTML(panels.about(predictor, max_mb=max_mb))
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                video = gr.Video(
                    sources=["upload"], label="Video", show_label=False, elem_id="player", height=340,
                    include_audio=True, buttons=[],
                )  # fmt: skip
                cancel = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
                below = gr.HTML("", elem_id="details")
            with gr.Column(scale=3, min_width=420):
                status = gr.HTML(panels.WELCOME, elem_id="status")
                line = gr.HTML("", elem_id="line")
        outputs = [status, line, below, cancel]
        video.upload(
            watch_file, [video], outputs, show_progress="hidden", api_visibility="private",
            concurrency_limit=1, concurrency_id="prediction",
        )  # fmt: skip
        video.clear(clear, None, outputs, queue=False, show_progress="hidden", api_visibility="private")
        cancel.click(stop, None, None, queue=False, show_progress="hidden", api_visibility="private")
        page.unload(leave)
    return page
