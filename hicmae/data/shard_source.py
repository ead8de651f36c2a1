"""Clips of shard folders, here or behind a URL, read at random by byte offset from their index."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hicmae.data.cache_settings import CacheSettings
from hicmae.data.clip_table import ClipTable
from hicmae.data.fetch_error import FetchError
from hicmae.data.shard_index import ShardIndex
from hicmae.data.source import ClipInfo, ClipUnreadableError, EncodedClip, digest_of
from hicmae.data.storage import StorageFormat
from hicmae.data.urls import is_url, shown

if TYPE_CHECKING:  # locks of files are not to be had on every system that reads local shards
    from hicmae.data.remote import RemoteReader

logger = logging.getLogger(__name__)

_OPEN_FILES = 64  # per process; a job has many processes and the system a limit
_SHOWN = 20


class ShardReader(Protocol):
    """Reads parts of shards; picklable."""

    def read(self, shard: Path | str, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``; fewer only where the file ends. ``OSError`` when they cannot be had."""


@dataclass(frozen=True, kw_only=True)
class ClipPlace:
    """A clip as the index describes it."""

    clip_id: str
    roles: tuple[str, ...]
    """Members in the shard: ``video``, ``audio``."""
    span_s: tuple[float, float] | None
    square: tuple[int, int, int] | None


class ShardSource:
    """The clips of one or more shard folders, read by byte offset from their index.

    Args:
        paths: a shard folder, its ``index.json``, or the URL of either (``http``, ``https``, ``s3``, ``file``), or
            several of them.
        cache: where shards of URLs are kept on this machine.

    Raises:
        FetchError: the index of a URL cannot be had.
        ValueError: a URL of another kind, or one without a ``cache``; shards that are missing or larger than their
            index says (all are named), a clip id that occurs twice, or an index without clips. A local shard that is
            *shorter* than its index says is reported in the log: its readable clips are used, the others raise
            ``ClipUnreadableError`` (``shard_truncated``) when read.
    """

    def __init__(
        self, paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], cache: CacheSettings | None = None
    ) -> None:
        listed = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        if not listed:
            raise ValueError("no shard folder given; name at least one folder that holds an index.json")
        self.name = ", ".join(shown(str(path)) for path in listed)
        self._reader: ShardReader = FileHandles(_OPEN_FILES)
        self._remote: RemoteReader | None = None
        self._folders: list[_Folder] = []
        digests: list[str] = []
        checksums: list[str] = []
        for path in listed:
            tars: Sequence[Path] | Sequence[str]
            if is_url(path):
                self._remote = self._remote or _remote_reader(str(path), cache)
                index, tars = self._remote.open_folder(str(path))
            else:
                index, place = ShardIndex.read(path)
                tars = [place / shard.name for shard in index.shards]
                _check_tars(self.name, tars, index)
            self._folders.append(
                _Folder(
                    clips=index.clips,
                    tars=tuple(tars),
                    samples=tuple(shard.samples for shard in index.shards),
                    storage=index.storage,
                )
            )
            checksums += [shard.sha256 for shard in index.shards]
            digests += [json.dumps([shard.name, shard.sha256]) for shard in index.shards] + [index.clips.digest()]
        self._first = np.cumsum([0, *self.dataset_sizes])
        if not self._first[-1]:
            raise ValueError(f"{self.name}: the index holds no clips; write the shards again, or see its rejects.csv")
        self.fingerprint = digest_of(digests)
        self.media_digest = digest_of(sorted(map(str, checksums)))  # a damaged index may hold anything
        """Changes with the bytes of the shards, and not with where they lie or in which order they were named."""
        self._refuse_repeated_ids()

    def _refuse_repeated_ids(self) -> None:
        repeated = [name for folder in self._folders for name in folder.clips.repeated_ids()]
        seen: set[str] = set()
        for folder in self._folders if len(self._folders) > 1 else ():
            own = set(folder.clips.values("clip_id"))
            repeated += sorted(seen & own)
            seen |= own
        if repeated:
            raise ValueError(f"{self.name}: clip ids occur twice: {_some(repeated)}; name each folder once")

    @property
    def dataset_sizes(self) -> tuple[int, ...]:
        """Clips of each folder, in the order given."""
        return tuple(len(folder.clips) for folder in self._folders)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Clips of each shard that has any, in order."""
        return tuple(size for folder in self._folders for size in folder.samples if size)

    @property
    def shard_names(self) -> tuple[str, ...]:
        """The tars, in the order of ``shard_of``."""
        return tuple(shown(str(tar)) for folder in self._folders for tar in folder.tars)

    def shard_of(self, number: int) -> int:
        """Which of ``shard_names`` holds the clip."""
        dataset, row = self._locate(number)
        before = sum(len(folder.tars) for folder in self._folders[:dataset])
        return before + int(self._folders[dataset].clips.shard[row])

    @property
    def storages(self) -> tuple[StorageFormat, ...]:
        """The format of each folder."""
        return tuple(folder.storage for folder in self._folders)

    def _locate(self, number: int) -> tuple[int, int]:
        """(folder, row within it) of a clip."""
        if not 0 <= number < len(self):
            raise IndexError(f"{self.name}: clip {number} of {len(self)}")
        dataset = int(np.searchsorted(self._first, number, side="right")) - 1
        return dataset, number - int(self._first[dataset])

    def prefetch(self, groups: Sequence[int]) -> None:
        """Fetch the shards of these groups in the background, in this order; shards on this machine need nothing.

        Requests that have not begun are dropped, so each call says all that is wanted. Every process may ask: each
        shard is fetched once a machine.
        """
        if self._remote is not None:
            tars = [
                tar for folder in self._folders for tar, size in zip(folder.tars, folder.samples, strict=True) if size
            ]
            self._remote.prefetch([tars[group] for group in groups])

    @property
    def is_remote(self) -> bool:
        """Whether any shard is behind a URL."""
        return self._remote is not None

    def check_cache(self, shards: int) -> None:
        """``ValueError`` with the numbers when the cache cannot hold so many of the remote shards, whichever."""
        if self._remote is not None:
            self._remote.check_capacity(shards)

    def __len__(self) -> int:
        return int(self._first[-1])

    def info(self, number: int) -> ClipInfo:
        """Name, subject, split and labels, from the index."""
        dataset, row = self._locate(number)
        clips = self._folders[dataset].clips
        return ClipInfo(
            clip_id=clips.clip_id(row),
            subject=clips.subject(row),
            split=clips.split(row),
            labels=clips.labels(row),
        )

    def read(self, number: int) -> EncodedClip:
        """The clip's members, by offset, compared with their checksum; nothing is unpacked or unpickled."""
        dataset, row = self._locate(number)
        folder = self._folders[dataset]
        clips, tar = folder.clips, folder.tars[folder.clips.shard[row]]
        video = self._read_member(clips, row, "video", tar)
        audio = self._read_member(clips, row, "audio", tar)
        expected = clips.crc32(row)
        if expected is not None and zlib.crc32(audio or b"", zlib.crc32(video or b"")) != expected:
            raise ClipUnreadableError(
                f"clip {clips.clip_id(row)!r}: its bytes in {shown(str(tar))} are not those that were written "
                "(CRC-32 differs); copy the shard again",
                "checksum_mismatch",
            )
        return EncodedClip(
            clip_id=clips.clip_id(row),
            video=video,
            audio=audio,
            span_s=clips.span_s(row),
            square=folder.square(row),
            subject=clips.subject(row),
            labels=clips.labels(row),
        )

    def place(self, number: int) -> ClipPlace:
        """Which members the clip has, and which part of them it is; touches no shard."""
        dataset, row = self._locate(number)
        folder = self._folders[dataset]
        clips = folder.clips
        return ClipPlace(
            clip_id=clips.clip_id(row),
            roles=tuple(role for role in ("video", "audio") if clips.place(row, role) is not None),
            span_s=clips.span_s(row),
            square=folder.square(row),
        )

    def _read_member(self, clips: ClipTable, row: int, role: str, tar: Path | str) -> bytes | None:
        place = clips.place(row, role)
        if place is None:
            return None
        reader = self._remote if self._remote is not None and isinstance(tar, str) else self._reader
        try:
            data = reader.read(tar, *place)
        except FetchError:
            raise  # not a bad clip but no data: trying others would only take hours to end in the same way
        except OSError as error:
            raise ClipUnreadableError(f"{shown(str(tar))} cannot be read ({error})", "read_error") from error
        if len(data) != place[1]:
            raise ClipUnreadableError(
                f"clip {clips.clip_id(row)!r} lies beyond the end of {shown(str(tar))}; copy the shard again",
                "shard_truncated",
            )
        return data


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """One shard folder, open."""

    clips: ClipTable
    tars: tuple[Path | str, ...]
    """Paths, or URLs."""
    samples: tuple[int, ...]
    """Clips of each tar."""
    storage: StorageFormat

    def square(self, row: int) -> tuple[int, int, int] | None:
        """What a clip's decoder is to cut out; what was re-encoded has been cut already."""
        return (self.clips.square(row) or self.storage.square) if self.storage.video == "original" else None


def _remote_reader(url: str, cache: CacheSettings | None) -> RemoteReader:
    if cache is None:
        raise ValueError(
            f"{shown(url)}: shards of a URL need a cache on this machine; name its folder (data.cache_dir) and its size"
        )
    from hicmae.data.remote import RemoteReader
    from hicmae.data.shard_cache import ShardCache

    return RemoteReader(ShardCache(cache))


def _check_tars(name: str, tars: Sequence[Path], index: ShardIndex) -> None:
    """Refuse what is missing or foreign; report what is cut off."""
    problems = []
    for number, (tar, shard) in enumerate(zip(tars, index.shards, strict=True)):
        size = shard.bytes
        actual = tar.stat().st_size if tar.is_file() else -1
        if actual < 0:
            problems.append(f"{tar} is missing")
        elif actual > size:
            problems.append(f"{tar} has {actual} bytes, the index says {size}: it is not the shard that was indexed")
        elif actual < size:
            ends = index.clips.end()[index.clips.shard == number]
            readable = int((ends <= actual).sum())
            if not readable:
                problems.append(f"{tar} has {actual} of {size} bytes, and none of its {len(ends)} clips is whole")
            logger.warning(
                "%s is cut off: %d of %d bytes; %d of its %d clips can be read, the others count as skipped "
                "(shard_truncated). Copy the shard again, or write it again.",
                tar, actual, size, readable, len(ends),
            )  # fmt: skip
    if problems:
        raise ValueError(f"{name}: {_some(problems)}; copy these shards again, or run 'hicmae shards verify'")


class FileHandles:
    """Files kept open for reading at any place; the one used longest ago is closed first. Not pickled."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: OrderedDict[Path, int] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"_limit": self._limit, "_open": OrderedDict()}

    def __len__(self) -> int:
        return len(self._open)

    def read(self, shard: Path | str, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``; fewer where the file ends."""
        path = Path(shard)
        handle = self._open.get(path)
        if handle is None:
            handle = os.open(path, os.O_RDONLY)
            self._open[path] = handle
            if len(self._open) > self._limit:
                os.close(self._open.popitem(last=False)[1])
        else:
            self._open.move_to_end(path)
        data = os.pread(handle, size, offset)
        while len(data) < size:  # one call reads at most 2 GiB, and network file systems return less
            more = os.pread(handle, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def __del__(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


def _some(items: Sequence[str]) -> str:
    more = len(items) - _SHOWN
    return "; ".join(items[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
