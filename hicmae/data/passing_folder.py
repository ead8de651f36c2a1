"""Folders for as long as they are needed, also where processes are killed."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hicmae.data.file_lock import hold_folder, hold_lock_if_free

_FRESH_S = 5.0  # a folder this young may belong to a process that has not locked it yet


@contextmanager
def passing_folder(parent: Path, prefix: str, *, stays_with: str | None = None) -> Iterator[Path]:
    """A new folder, gone afterwards. A process that is killed leaves its own behind, which the next one removes.

    Args:
        parent: where it is made.
        prefix: of its name. Folders of others that are called alike are left alone.
        stays_with: a folder that was left behind with this in it stays: what it holds is nowhere else.
    """
    _remove_left_behind(parent, prefix, stays_with)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    try:
        with ExitStack() as held:
            # Some file systems of clusters have no locks: there, nobody gets the lock to remove it either.
            with suppress(OSError):
                held.enter_context(hold_folder(folder))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_behind(parent: Path, prefix: str, stays_with: str | None) -> None:
    try:
        there = [folder for folder in parent.iterdir() if folder.name.startswith(prefix)]
    except OSError:
        return  # a folder to write into, but not to list
    for folder in there:
        try:
            if not (folder / ".lock").exists():
                continue
            if time.time() - folder.stat().st_mtime < _FRESH_S or (stays_with and (folder / stays_with).exists()):
                continue
            with hold_lock_if_free(folder / ".lock") as lock:
                if lock is not None:
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # another user's, or just removed by another process
