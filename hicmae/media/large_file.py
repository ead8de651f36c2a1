"""Media files in memory while they are small, and read where they are needed when they are not."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from hicmae.media.clip import DecodeError

HELD_BYTES = 64 << 20
"""Files up to this size are read into memory, which is faster; a worker then holds them twice, file and packets."""


class LargeFile:
    """A file that looks like its bytes where a part of them is asked for, and never holds them.

    Args:
        path: the file.
        name: what errors call it.

    Raises:
        DecodeError: ``missing_file`` where it cannot be opened.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        try:
            self._file = path.open("rb", buffering=0)
            self._size, self._changed_ns = self._look()
        except OSError as error:
            raise _missing(path, name, error) from None

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> bytes: ...
    def __getitem__(self, place: int | slice) -> int | bytes:
        """A byte, or the bytes of a slice without a step."""
        begin, end, step = (place if isinstance(place, slice) else slice(place, place + 1)).indices(self._size)
        assert step == 1, "steps are not supported"
        try:
            data = os.pread(self._file.fileno(), max(0, end - begin), begin)
        except OSError as error:
            raise _read_error(self.name, self.path, error) from None
        return data if isinstance(place, slice) else data[0]

    def reader(self) -> LargeFileReader:
        """A file object of its own; ``DecodeError`` (``changed_file``) where the file is not as it was."""
        if self._look() != (self._size, self._changed_ns):
            raise changed_file(self.name, f"{self.path} has changed since it was opened")
        return LargeFileReader(self)

    def _look(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    def mapped(self, offset: int = 0) -> npt.NDArray[np.uint8]:
        """The bytes from ``offset`` on as an array whose pages the system reads, and drops, as it likes."""
        return np.memmap(self.path, np.uint8, "r", offset)


class LargeFileReader(io.RawIOBase):
    """What FFmpeg reads through. Errors of the disk name the file."""

    def __init__(self, source: LargeFile) -> None:
        self._source = source
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The place in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; FFmpeg does not go beyond the end."""
        self._at = offset + (0, self._at, len(self._source))[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """The next bytes; all that are left for a negative number."""
        end = len(self._source) if size < 0 else self._at + size
        data = self._source[self._at : end]
        self._at += len(data)
        return data


MediaData = bytes | LargeFile
"""A media file, in memory or on the disk."""


def load_media(path: Path, *, name: str | None = None) -> MediaData:
    """A media file to decode, in memory where it is small.

    Raises:
        DecodeError: ``missing_file`` where it cannot be read.
    """
    name = name or str(path)
    try:
        if path.stat().st_size > HELD_BYTES:
            return LargeFile(path, name)
        return path.read_bytes()
    except OSError as error:
        raise _missing(path, name, error) from None


def in_memory(data: MediaData) -> bytes | memoryview:
    """The bytes as a buffer; those of a large file stay on the disk."""
    return data.mapped().data if isinstance(data, LargeFile) else data


def changed_file(name: str, found: str) -> DecodeError:
    """The error for a file that is written while it is read."""
    return DecodeError(name, "changed_file", found, "wait until it is complete")


def _missing(path: Path, name: str, error: OSError) -> DecodeError:
    return DecodeError(
        name,
        "missing_file",
        f"{path} cannot be read: {error.strerror}",
        "check the path and its permissions (paths in a manifest are relative to the manifest)",
    )


def _read_error(name: str, path: Path, error: OSError) -> DecodeError:
    return DecodeError(
        name, "read_error", f"{path} cannot be read: {error.strerror}", "check its disk, or copy it again"
    )
