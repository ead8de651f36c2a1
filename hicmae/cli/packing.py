"""What commands that pack clips share: options, a bar with clips a second, and errors that say how to go on."""

from __future__ import annotations

import argparse
import errno
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from hicmae.data.packed import Reject
    from hicmae.data.storage import StorageFormat

AUDIO_BESIDE = {"original": "original", "h264": "aac", "jpeg": "wav"}
_SHOWN = 10


def add_storage_arguments(parser: argparse._ActionsContainer, *, default_format: str | None) -> None:
    """``--format``, ``--audio``, ``--size``, ``--square`` and ``--shard-mb``.

    Args:
        parser: gets them.
        default_format: None leaves ``format`` away where it is not given, for the command to choose.
    """
    parser.add_argument("--format", choices=("original", "h264", "jpeg"),
                        default=argparse.SUPPRESS if default_format is None else default_format,
                        help="how pictures are stored: the files as they are, or re-encoded as squares"
                        + (" (default: original; h264 where clips are parts of longer files)"
                           if default_format is None else ""))  # fmt: skip
    parser.add_argument("--audio", choices=("original", "aac", "flac", "wav"), default=argparse.SUPPRESS,
                        help="how sound is stored (default: original, with h264 aac, with jpeg wav)")  # fmt: skip
    parser.add_argument("--size", type=int, default=160, metavar="PIXELS", help="side of re-encoded squares")
    parser.add_argument("--square", type=_square, default="centre", metavar="centre|T,L,S",
                        help="what to take of the displayed picture: top, left and side are in pixels")  # fmt: skip
    parser.add_argument("--shard-mb", type=float, default=256.0, metavar="MB", help="size of a shard, in megabytes")


def storage_of(args: argparse.Namespace, *, picture: str) -> StorageFormat:
    """The format that these options ask for, with pictures stored as ``picture``."""
    from hicmae.data.storage import StorageFormat

    audio = args.audio if "audio" in args else AUDIO_BESIDE[picture]
    return StorageFormat.from_dict({"video": picture, "audio": audio, "size": args.size, "square": args.square})


def _square(text: str) -> tuple[int, int, int] | None:
    if text == "centre":
        return None
    try:
        top, left, side = (int(piece) for piece in text.split(","))
    except ValueError:
        message = f"{text!r} is neither 'centre' nor top,left,side in pixels, for instance 0,32,160"
        raise argparse.ArgumentTypeError(message) from None
    return top, left, side


@contextmanager
def work_that_can_go_on(kept: str) -> Iterator[None]:
    """Turns a killed process, and a full disk, into errors that say that the same command goes on; ``kept``: with what.

    Raises:
        ValueError: either of them.
    """
    from concurrent.futures.process import BrokenProcessPool

    try:
        yield
    except BrokenProcessPool as error:
        raise ValueError(
            "a process that packs clips was killed, as happens when memory runs out; run the same command again, with "
            f"fewer --workers: {kept} stay"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ValueError(
                f"no space left while writing ({error}); free some and run the same command again: {kept} stay"
            ) from error
        raise


class Bar:
    """A stage's bar, with clips a second since its first report, which counts what was there before."""

    def __init__(self, progress: Progress, stage: str) -> None:
        self._progress = progress
        self._task = progress.add_task(stage, total=None, speed="")
        self._first: int | None = None
        self._last = 0

    def __call__(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` clips are done."""
        if self._first is None:
            self._first, self._started = done, time.monotonic()
        self._last, self._now = done, time.monotonic()
        self._progress.update(self._task, completed=done, total=total, speed=self.speed())

    def speed(self) -> str:
        """``"12.3 clips/s"``."""
        clips, seconds = self._last - (self._first or 0), max(1e-9, self._now - self._started)
        return f"{clips / seconds:.1f} clips/s"


def progress_bars(console: Console) -> Progress:
    """Bars with time gone and time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console,
    )  # fmt: skip


def show_rejects(rejected: Sequence[Reject], console: Console) -> None:
    """How many by reason, and the first of them."""
    for reason, count in Counter(reject.reason for reject in rejected).most_common():
        console.print(f"  {reason}: {count}", highlight=False)
    for reject in rejected[:_SHOWN]:
        console.print(f"  {reject.clip_id}: {reject.detail}", highlight=False, markup=False, soft_wrap=True)
    if len(rejected) > _SHOWN:
        console.print(f"  ... and {len(rejected) - _SHOWN} more, in rejects.csv", highlight=False)
