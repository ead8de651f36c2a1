"""Where clips come from: shards or single files, both read at random by clip number.

A source is picklable, holds no bytes, and keeps open file handles per process alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from hicmae.data.manifest import Clip, Manifest, read_manifest, select
from hicmae.data.storage import StorageFormat


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
        rows = (
            [c.clip_id, str(c.video), str(c.audio), c.start_s, c.end_s, c.labels, *([c.square] if c.square else [])]
            for c in manifest.clips
        )
        self.fingerprint = digest_of(json.dumps(row, sort_keys=True) for row in rows)

    @property
    def media_digest(self) -> str:
        """Changes with sizes and spans of the clips' files, and not with where they lie or in which order."""
        rows = (
            [c.clip_id, *map(_size_of, (c.video, c.audio)), c.start_s, c.end_s, c.square]
            for c in sorted(self._clips, key=lambda clip: clip.clip_id)
        )
        return digest_of(map(json.dumps, rows))

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
            square=clip.square,
            subject=clip.subject,
            labels=clip.labels,
        )

    is_remote = False

    def prefetch(self, groups: Sequence[int]) -> None:
        """Nothing: the files are here."""

    def check_cache(self, shards: int) -> None:
        """Nothing: the files are here."""


def _size_of(path: Path | None) -> int | None:
    return path.stat().st_size if path is not None and path.exists() else None


def _read_file(clip: Clip, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ClipUnreadableError(f"clip {clip.clip_id!r}: {path} has gone since the start", "missing_file") from error
    except OSError as error:
        raise ClipUnreadableError(f"clip {clip.clip_id!r}: {path} cannot be read ({error})", "read_error") from error


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
        self.fingerprint = digest_of([source.fingerprint, self._numbers.tobytes().hex()])

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


def digest_of(parts: Iterable[str]) -> str:
    """A short name for these texts, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode("utf-8") + b"\n")
    return digest.hexdigest()
