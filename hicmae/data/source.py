"""Where clips come from: shards or single files, both read at random by clip number.

A source is picklable, holds no bytes, and keeps open file handles per process alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from hicmae.data.cache_settings import CacheSettings
from hicmae.data.clip_table import ClipTable
from hicmae.data.fetch_error import FetchError
from hicmae.data.manifest import Clip, Manifest, read_manifest, select
from hicmae.data.shard_index import ShardIndex
from hicmae.data.storage import StorageFormat
from hicmae.data.urls import is_url, shown

if TYPE_CHECKING:  # locks of files are not to be had on every system that reads local shards
    from hicmae.data.remote import RemoteReader

logger = logging.getLogger(__name__)

_OPEN_FILES = 64  # per process; a job has many processes and the system a limit
_SHOWN = 20


class ClipUnreadableError(ValueError):
    """The bytes of a clip cannot be had; ``reason`` is a short code for counting."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, reason)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """What is known of a clip without reading it."""

    clip_id: str
    subject: str
    split: str
    labels: Mapping[str, str | float]


@dataclass(frozen=True, kw_only=True)
class EncodedClip:
    """A clip as stored: bytes of media files, not decoded."""

    clip_id: str
    video: bytes | None
    """A media file with pictures, and with sound unless ``audio`` is given."""
    audio: bytes | None
    """A separate sound file."""
    span_s: tuple[float, float] | None
    """(start, end) of the clip within the file, in seconds (``END_OF_FILE_S``: to the end); None for the whole file."""
    square: tuple[int, int, int] | None = None
    """(top, left, side) in pixels of the displayed picture: what to take of it; None for the central square."""
    subject: str
    labels: Mapping[str, str | float]


@runtime_checkable
class ClipSource(Protocol):
    """Clips by number, 0 to ``len(source) - 1``."""

    @property
    def name(self) -> str:
        """For messages: which files these clips come from."""

    @property
    def fingerprint(self) -> str:
        """Changes with the clips and their order; a stream resumes on the same one alone."""

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Clips in each shard, in order; clips of a shard have consecutive numbers."""

    @property
    def dataset_sizes(self) -> tuple[int, ...]:
        """Clips of each data set that the source joins, in order; clips of a data set have consecutive numbers."""

    @property
    def shard_names(self) -> tuple[str, ...]:
        """Files that hold the clips, for reports."""

    def shard_of(self, number: int) -> int:
        """Which of ``shard_names`` holds a clip."""

    @property
    def storages(self) -> tuple[StorageFormat, ...]:
        """How the clips are stored: the format of each data set."""

    def __len__(self) -> int: ...

    def info(self, number: int) -> ClipInfo:
        """Name, subject, split and labels; touches no file."""

    def read(self, number: int) -> EncodedClip:
        """The clip's bytes; ``ClipUnreadableError`` when they cannot be had, ``FetchError`` when no clip can be."""

    @property
    def is_remote(self) -> bool:
        """Whether clips come from elsewhere, through a cache on this machine."""

    def prefetch(self, groups: Sequence[int]) -> None:
        """These groups of ``group_sizes`` are needed next, in this order; returns at once."""

    def check_cache(self, shards: int) -> None:
        """``ValueError`` with the numbers when the cache cannot hold so many shards of any."""


class ManifestSource:
    """The clips of a manifest, read from their own files.

    Args:
        manifest: a manifest, or the path of one.
        split: take this split alone; an empty one raises ``ValueError``.
    """

    def __init__(self, manifest: Manifest | str | os.PathLike[str], split: str | None = None) -> None:
        if not isinstance(manifest, Manifest):
            manifest = read_manifest(manifest)
        if split is not None:
            manifest = select(manifest, split)
        self.name = str(manifest.path)
        self._clips = manifest.clips
        rows = ([c.clip_id, str(c.video), str(c.audio), c.start_s, c.end_s, c.labels] for c in manifest.clips)
        self.fingerprint = _digest(json.dumps(row, sort_keys=True) for row in rows)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """One group: single files cost the same in any order."""
        return (len(self._clips),)

    @property
    def dataset_sizes(self) -> tuple[int, ...]:
        """One data set."""
        return (len(self._clips),)

    @property
    def shard_names(self) -> tuple[str, ...]:
        """The manifest: its files are not told apart."""
        return (self.name,)

    def shard_of(self, number: int) -> int:
        """0: there is one name."""
        return 0

    @property
    def storages(self) -> tuple[StorageFormat, ...]:
        """Original files."""
        return (StorageFormat(),)

    def __len__(self) -> int:
        return len(self._clips)

    def info(self, number: int) -> ClipInfo:
        """Name, subject, split and labels."""
        clip = self._clips[number]
        return ClipInfo(clip_id=clip.clip_id, subject=clip.subject, split=clip.split, labels=clip.labels)

    def read(self, number: int) -> EncodedClip:
        """The clip's files, whole."""
        clip = self._clips[number]
        return EncodedClip(
            clip_id=clip.clip_id,
            video=_read_file(clip, clip.video),
            audio=_read_file(clip, clip.audio),
            span_s=clip.span_s,
            subject=clip.subject,
            labels=clip.labels,
        )

    is_remote = False

    def prefetch(self, groups: Sequence[int]) -> None:
        """Nothing: the files are here."""

    def check_cache(self, shards: int) -> None:
        """Nothing: the files are here."""


def _read_file(clip: Clip, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ClipUnreadableError(f"clip {clip.clip_id!r}: {path} has gone since the start", "missing_file") from error
    except OSError as error:
        raise ClipUnreadableError(f"clip {clip.clip_id!r}: {path} cannot be read ({error})", "read_error") from error


class ShardReader(Protocol):
    """Reads parts of shards; picklable."""

    def read(self, shard: Path | str, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``; fewer only where the file ends. ``OSError`` when they cannot be had."""


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
            digests += [json.dumps([shard.name, shard.sha256]) for shard in index.shards] + [index.clips.digest()]
        self._first = np.cumsum([0, *self.dataset_sizes])
        if not self._first[-1]:
            raise ValueError(f"{self.name}: the index holds no clips; write the shards again, or see its rejects.csv")
        self.fingerprint = _digest(digests)
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
            square=folder.storage.square if folder.storage.video == "original" else None,
            subject=clips.subject(row),
            labels=clips.labels(row),
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
            raise ClipUnreadableError(f"{tar} cannot be read ({error})", "read_error") from error
        if len(data) != place[1]:
            raise ClipUnreadableError(
                f"clip {clips.clip_id(row)!r} lies beyond the end of {tar}; copy the shard again", "shard_truncated"
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


class SubsetSource:
    """Some clips of another source, renumbered; shards stay shards.

    Args:
        source: where the clips come from.
        numbers: clips to keep; they keep the source's order.
        name: for messages.
    """

    def __init__(self, source: ClipSource, numbers: Iterable[int], name: str) -> None:
        self.name = f"{source.name} ({name})"
        self._source = source
        self._numbers = np.unique(np.fromiter(numbers, dtype=np.int64))
        if not len(self._numbers):
            raise ValueError(f"{self.name}: no clips are left; the source has {len(source)}")
        if self._numbers[0] < 0 or self._numbers[-1] >= len(source):
            raise ValueError(f"{self.name}: clip numbers must lie in 0..{len(source) - 1}")
        sizes = np.diff(np.searchsorted(self._numbers, np.cumsum([0, *source.group_sizes])))
        self.group_sizes = tuple(int(size) for size in sizes if size)
        self._groups = np.flatnonzero(sizes).tolist()  # their numbers in the source
        edges = np.searchsorted(self._numbers, np.cumsum([0, *source.dataset_sizes]))
        self.dataset_sizes = tuple(int(size) for size in np.diff(edges) if size)
        self.fingerprint = _digest([source.fingerprint, self._numbers.tobytes().hex()])

    @property
    def shard_names(self) -> tuple[str, ...]:
        """As the source."""
        return self._source.shard_names

    def shard_of(self, number: int) -> int:
        """As the source."""
        return self._source.shard_of(int(self._numbers[number]))

    @property
    def storages(self) -> tuple[StorageFormat, ...]:
        """As the source."""
        return self._source.storages

    def __len__(self) -> int:
        return len(self._numbers)

    def info(self, number: int) -> ClipInfo:
        """As the source."""
        return self._source.info(int(self._numbers[number]))

    def read(self, number: int) -> EncodedClip:
        """As the source."""
        return self._source.read(int(self._numbers[number]))

    def prefetch(self, groups: Sequence[int]) -> None:
        """As the source."""
        self._source.prefetch([self._groups[group] for group in groups])

    @property
    def is_remote(self) -> bool:
        """As the source."""
        return self._source.is_remote

    def check_cache(self, shards: int) -> None:
        """As the source, for all of its shards."""
        self._source.check_cache(shards)


def select_split(source: ClipSource, split: str) -> SubsetSource:
    """The clips of one split; a split without clips raises ``ValueError`` that lists those there are."""
    splits = [source.info(i).split for i in range(len(source))]
    if split not in splits:
        there = ", ".join(f"{name or '(empty)'} ({count})" for name, count in sorted(Counter(splits).items()))
        raise ValueError(f"{source.name}: no clip has split {split!r}; splits there are: {there}")
    return SubsetSource(source, (i for i, own in enumerate(splits) if own == split), f"split {split}")


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


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode("utf-8") + b"\n")
    return digest.hexdigest()


def _some(items: Sequence[str]) -> str:
    more = len(items) - _SHOWN
    return "; ".join(items[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
