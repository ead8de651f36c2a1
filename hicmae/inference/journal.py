"""What is done of a job over many files, beside its output: a killed job goes on, and nothing is computed twice.

The folder ``OUT.journal`` holds ``job.json`` (the settings) and ``records``, to which each finished file is appended: a
head (magic, length of the text, length of the result, CRC-32 of both), the text (JSON) and the result. A record that
was being written when the job was killed counts for nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hicmae.data.file_lock import hold_folder
from hicmae.data.remembered import differences
from hicmae.data.shard_index import write_json
from hicmae.inference.items import MediaItem

_HEAD = struct.Struct("<4sIQI")  # magic, bytes of the text, bytes of the result, CRC-32
_MAGIC = b"HCMJ"
_AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class FileFailure:
    """A file of which nothing came."""

    name: str
    reason: str
    """A word to count by, see ``DecodeError``."""
    message: str
    """What is wrong with it, and what to do."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    fingerprint: str
    failure: FileFailure | None
    offset: int
    size: int


class Journal:
    """The finished files of a job. ``open_journal`` gives one to its only writer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[str, _Place] = {}
        self._file: BinaryIO = (folder / "records").open("a+b")
        self._file.truncate(self._read())

    def close(self) -> None:
        """Close the file of records."""
        self._file.close()

    def done(self, item: MediaItem) -> bool:
        """Whether this very file was finished, with a result or as a failure; one that has changed since was not."""
        place = self._places.get(item.name)
        return place is not None and place.fingerprint == item.fingerprint()

    def failure(self, item: MediaItem) -> FileFailure | None:
        """Why a finished item gave nothing; None where there is a result."""
        return self._places[item.name].failure

    def result(self, item: MediaItem) -> bytes:
        """What ``add`` was given for a finished item."""
        place = self._places[item.name]
        return os.pread(self._file.fileno(), place.size, place.offset)

    def add(self, item: MediaItem, result: bytes | FileFailure) -> None:
        """Note what became of an item."""
        failure = result if isinstance(result, FileFailure) else None
        payload = b"" if isinstance(result, FileFailure) else result
        about = {"name": item.name, "fingerprint": item.fingerprint(), "failure": vars(failure) if failure else None}
        text = json.dumps(about).encode("utf-8")
        begin = self._file.seek(0, os.SEEK_END)
        crc = zlib.crc32(payload, zlib.crc32(text))
        self._file.write(_HEAD.pack(_MAGIC, len(text), len(payload), crc) + text)
        self._file.write(payload)
        self._file.flush()
        self._note(about, begin + _HEAD.size + len(text), len(payload))

    def _note(self, about: Mapping[str, Any], offset: int, size: int) -> None:
        failure = FileFailure(**about["failure"]) if about["failure"] else None
        self._places[about["name"]] = _Place(
            fingerprint=about["fingerprint"], failure=failure, offset=offset, size=size
        )  # fmt: skip

    def _read(self) -> int:
        """Read the records; where the last whole one ends."""
        file = self._file
        end = 0
        while True:
            file.seek(end)
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return end
            magic, text_bytes, size, expected = _HEAD.unpack(head)
            if magic != _MAGIC or end + _HEAD.size + text_bytes + size > os.fstat(file.fileno()).st_size:
                return end
            text = file.read(text_bytes)
            crc, left = zlib.crc32(text), size
            while left:
                block = file.read(min(left, _AT_ONCE))
                crc, left = zlib.crc32(block, crc), left - len(block)
            if crc != expected:
                return end
            self._note(json.loads(text), end + _HEAD.size + text_bytes, size)
            end += _HEAD.size + text_bytes + size


def journal_folder(out: Path) -> Path:
    """Where the journal of a job lies that writes ``out``."""
    return out.with_name(f"{out.name}.journal")


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
