"""A file of records to which one process appends; whatever kills that process, all records before the last are whole.

A record: a head (magic, length of the text, length of the data, CRC-32 of both), the text (JSON) and the data. What is
not whole at the end counts for nothing, and is overwritten.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_HEAD = struct.Struct("<4sIQI")  # magic, bytes of the text, bytes of the data, CRC-32
_MAGIC = b"HCMJ"
_AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Record:
    """Where a record is."""

    about: Mapping[str, Any]
    """JSON values."""
    offset: int
    size: int
    """Place of its data."""


class RecordFile:
    """Records in the order in which they were appended. Has one writer at a time; whoever opens it sees to that."""

    def __init__(self, path: Path) -> None:
        self.records: list[Record] = []
        self._file: BinaryIO = path.open("a+b")
        self._file.truncate(self._read())

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # of what an ``append`` that failed has left to write, which counts for nothing
            self._file.close()

    def append(self, about: Mapping[str, Any], data: bytes) -> Record:
        """Add a record."""
        text = json.dumps(about).encode("utf-8")
        begin = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(_HEAD.pack(_MAGIC, len(text), len(data), zlib.crc32(data, zlib.crc32(text))) + text)
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._file.name) from error  # the disk is full, for instance
        self.records.append(Record(about=about, offset=begin + _HEAD.size + len(text), size=len(data)))
        return self.records[-1]

    def data(self, record: Record) -> bytes:
        """What a record holds."""
        return os.pread(self._file.fileno(), record.size, record.offset)

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
            begin = end + _HEAD.size + text_bytes
            if magic != _MAGIC or begin + size > os.fstat(file.fileno()).st_size:
                return end
            text = file.read(text_bytes)
            crc, left = zlib.crc32(text), size
            while left:
                block = file.read(min(left, _AT_ONCE))
                crc, left = zlib.crc32(block, crc), left - len(block)
            if crc != expected:
                return end
            self.records.append(Record(about=json.loads(text), offset=begin, size=size))
            end = begin + size
