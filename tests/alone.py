"""Tests that measure time run alone, also where pytest-xdist runs the tests in several processes."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def in_turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Run the block beside others, or by itself: once those that run have ended, and before the next begin.

    Whoever waits to be alone holds the door meanwhile, or tests of other processes could follow one another for ever.
    Locks are given back by name: processes that a test has forked share them, and may outlive it.

    Args:
        folder: of the two files with which processes tell one another.
        alone: nothing may run beside the block.
    """
    with (folder / "door").open("a") as door, (folder / "room").open("a") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        try:
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)
