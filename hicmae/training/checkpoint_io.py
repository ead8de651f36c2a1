"""Checkpoint files that are whole or not there at all: written aside, synced, renamed, and checked before use."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

TEMPORARY = ".*.ckpt.tmp"
"""Pattern of what a killed process may leave beside the checkpoints."""


class CheckpointNotWrittenError(OSError):
    """A checkpoint could not be written, most often because the disk is full; the ones before it are as they were."""


class AtomicCheckpointIO(CheckpointIO):
    """How the trainer writes and reads checkpoints.

    A checkpoint is ``torch.save``'s zip archive, whose members each carry a CRC-32. Reading checks all of them first
    and then unpickles plain values and tensors alone (``weights_only``): no checkpoint can run code.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``; ``CheckpointNotWrittenError`` leaves what was there before."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = temporary(path)
        try:
            with draft.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            sync_folder(path.parent)
        except (OSError, RuntimeError) as error:  # torch wraps what the file raised into a RuntimeError
            draft.unlink(missing_ok=True)
            raise _not_written(checkpoint, path, error) from error
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a whole checkpoint.

        Raises:
            FileNotFoundError: there is none of that name.
            ValueError: it is cut off or altered, or holds more than plain values and tensors.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint {path}; --ckpt_path auto finds the newest of the run by itself")
        if damage := find_damage(path):
            raise ValueError(
                f"{path} is damaged ({damage}); give the checkpoint before it, or --ckpt_path auto, which finds it"
            )
        loaded: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, without unpickling any of it; ``None``: every byte is as written.

    Reads the whole file and compares the CRC-32 of each member: 0.4 s for the 1.2 GB of the base model and its
    optimiser (docs/jobs.md).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # whatever zipfile stumbles over in a file that is none, or no longer one
        return str(error) or type(error).__name__
    return None if broken is None else f"{broken} does not match its checksum"


def temporary(path: Path) -> Path:
    """Where a file of that name is written before it gets the name."""
    return path.with_name(f".{path.name}.tmp")


def point_to(link: Path, target: Path) -> None:
    """Let ``link`` name ``target``, a file of the same folder, from one moment to the next."""
    draft = temporary(link)
    draft.unlink(missing_ok=True)
    draft.symlink_to(target.name)
    draft.replace(link)
    sync_folder(link.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk; a file's own sync does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_written(checkpoint: dict[str, Any], path: Path, error: Exception) -> CheckpointNotWrittenError:
    cause = error if isinstance(error, OSError) else error.__context__
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error).splitlines()[0]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(checkpoint)}
    needed, free = sum(storages.values()), shutil.disk_usage(path.parent).free
    return CheckpointNotWrittenError(
        f"could not write {path}: {reason}; it needs {needed / 1e6:.1f} MB and {free / 1e6:.1f} MB are free. The "
        "checkpoints before it are untouched: make room (or move the run's folder) and go on with --ckpt_path auto"
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _tensors(inner)
