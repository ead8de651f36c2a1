"""What is done of a job over many files, beside its output: a killed job goes on, and nothing is computed twice.

The folder ``OUT.journal`` holds ``job.json`` (the settings) and ``records``, to which each finished file is appended.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hicmae.data.file_lock import hold_folder
from hicmae.data.remembered import differences
from hicmae.data.shard_index import write_json
from hicmae.inference.items import MediaItem
from hicmae.inference.record_file import Record, RecordFile


@dataclass(frozen=True, kw_only=True)
class FileFailure:
    """A file of which nothing came."""

    name: str
    reason: str
    """A word to count by, see ``DecodeError``."""
    message: str
    """What is wrong with it, and what to do."""


class Journal:
    """The finished files of a job. ``open_journal`` gives one to its only writer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = RecordFile(folder / "records")
        self._records: dict[str, Record] = {record.about["name"]: record for record in self._file.records}

    def close(self) -> None:
        """Close the file of records."""
        self._file.close()

    def names(self) -> list[str]:
        """The files that were finished, changed since or not."""
        return list(self._records)

    def done(self, item: MediaItem) -> bool:
        """Whether this very file was finished, with a result or as a failure; one that has changed since was not."""
        record = self._records.get(item.name)
        return record is not None and record.about["fingerprint"] == item.fingerprint()

    def failure(self, item: MediaItem) -> FileFailure | None:
        """Why a finished item gave nothing; None where there is a result."""
        failure = self._records[item.name].about["failure"]
        return FileFailure(**failure) if failure else None

    def result(self, item: MediaItem) -> bytes:
        """What ``add`` was given for a finished item."""
        return self._file.data(self._records[item.name])

    def add(self, item: MediaItem, result: bytes | FileFailure, *, fingerprint: str) -> None:
        """Note what became of an item, whose fingerprint was this before it was read."""
        failure = vars(result) if isinstance(result, FileFailure) else None
        about = {"name": item.name, "fingerprint": fingerprint, "failure": failure}
        self._records[item.name] = self._file.append(about, b"" if isinstance(result, FileFailure) else result)


class Parts:
    """What is done of one long file, for the process that works on it.

    Args:
        folder: of the journal.
        item: the file; parts of it as it was before are void.
    """

    def __init__(self, folder: Path, item: MediaItem) -> None:
        name = hashlib.blake2b(json.dumps([item.name, item.fingerprint()]).encode(), digest_size=12).hexdigest()
        self._path = folder / f"{name}.parts"
        self._file = RecordFile(self._path) if self._path.exists() else None

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def all(self) -> list[bytes]:
        """The parts, in the order in which they were added."""
        return [self._file.data(record) for record in self._file.records] if self._file is not None else []

    def add(self, part: bytes) -> None:
        """Keep the next part."""
        if self._file is None:
            self._file = RecordFile(self._path)
        self._file.append({}, part)


def journal_folder(out: Path) -> Path:
    """Where the journal of a job lies that writes ``out``."""
    return out.with_name(f"{out.name}.journal")


def failures_path(out: Path) -> Path:
    """The table of files of which nothing came, beside ``out``: its own, whatever else has the same stem."""
    return out.with_name(f"{out.name}.failures.csv")


@contextmanager
def open_journal(out: Path, settings: Mapping[str, Any]) -> Iterator[Journal]:
    """Hold the journal of the job that writes ``out``; remove it (``remove_journal``) once ``out`` is there.

    Args:
        out: the output; its folder is made when missing.
        settings: JSON values that decide the results, besides the files.

    Raises:
        ValueError: another process is at it, or an unfinished job there had other settings.
        OSError: the folder cannot be written.
    """
    folder = journal_folder(out)
    settings = json.loads(json.dumps(settings))
    with hold_folder(folder):
        if (file := folder / "job.json").exists():
            if what := differences(file, settings):
                raise ValueError(
                    f"{folder} holds an unfinished job with other settings ({what}); give another output, or remove "
                    "that folder"
                )
        else:
            write_json(file, settings)
        journal = Journal(folder)
        try:
            yield journal
        finally:
            journal.close()


def remove_journal(out: Path) -> None:
    """The job that writes ``out`` is done."""
    shutil.rmtree(journal_folder(out), ignore_errors=True)
