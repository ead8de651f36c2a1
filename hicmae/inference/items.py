"""What a command is to work on: files, folders, globs, manifests and shards, as one list of clips."""

from __future__ import annotations

import functools
import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hicmae.data.manifest import Clip, read_manifest
from hicmae.data.shard_index import INDEX_NAME
from hicmae.data.shard_source import ShardSource
from hicmae.data.source import EncodedClip
from hicmae.data.tar_members import AUDIO_EXTENSIONS, VIDEO_EXTENSIONS
from hicmae.data.urls import is_url

Media = Path | bytes | Callable[[], bytes]
"""A media file: where it lies, what is in it, or how to get that."""

# Some hold what is read under another name (3gp is mp4, mka Matroska), the others fail by name rather than in silence.
_OTHER_KINDS = ("3gp", "3g2", "mka", "ogv", "mpg", "mpeg", "wmv", "m2ts", "vob", "asf", "aac", "wma", "aif", "aiff",
                "amr")  # fmt: skip
MEDIA_SUFFIXES = frozenset(f".{kind}" for kind in (*VIDEO_EXTENSIONS, *AUDIO_EXTENSIONS, *_OTHER_KINDS))
"""What is taken of a folder; a file that is named is read whatever it is called."""
_MANIFESTS = (".csv", ".parquet")
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class MediaItem:
    """One clip: a media file, or a part of one. At least one of ``video`` and ``audio`` is there. Pickles."""

    name: str
    """The path as it was given or found, or the clip's id in its manifest or shards; see ``as_text``."""
    video: Media | None = None
    """A media file with picture, sound, or both."""
    audio: Media | None = None
    """A sound file on the same clock; replaces the sound of ``video``."""
    span_s: tuple[float, float] | None = None
    """(start, end) of the clip within the file, in seconds; None for the whole file."""
    square: tuple[int, int, int] | None = None
    """(top, left, side) in pixels of the displayed picture: what to take of it; None for the central square."""

    def fingerprint(self) -> str:
        """Changes with the clip: its part of the file, and size and time of change of its files, or their bytes."""
        about = [self.name, self.span_s, self.square, _look_of(self.video), _look_of(self.audio)]
        return hashlib.blake2b(json.dumps(about).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def media_item(source: str | Path | MediaItem) -> MediaItem:
    """A single media file as an item; an item as it is."""
    return source if isinstance(source, MediaItem) else MediaItem(name=as_text(source), video=Path(source))


def as_text(path: str | Path) -> str:
    """A path for people and tables: bytes of it that are no UTF-8 become ``\\udcff`` and the like."""
    return str(path).encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True, kw_only=True)
class ShardMember:
    """A clip's picture or sound within shards; call it for the bytes."""

    folder: str
    number: int
    role: str
    """``video`` or ``audio``."""
    digest: str
    """Of the shards."""

    def __call__(self) -> bytes:
        """The bytes. ``ClipUnreadableError`` when they cannot be had."""
        data: bytes = getattr(_read_clip(self.folder, self.number), self.role)
        return data


def find_items(paths: Sequence[str | Path]) -> list[MediaItem]:
    """The clips that paths stand for, in the order of the paths; a file that is found twice is taken once.

    Args:
        paths: each a media file, a folder (all media files below it, by name, also through links to folders; hidden
            ones are left out), a pattern with ``*``, ``**``, ``?`` or ``[...]`` for such files, a manifest (``.csv``,
            ``.parquet``), a shard folder, its ``index.json``, or one of its tars. A manifest's clips are not looked at
            yet: what is missing shows when it is read.

    Raises:
        FileNotFoundError: there is no such path, or no media file fits the pattern.
        PermissionError: a folder below one that was given cannot be read.
        ValueError: a folder without media files, a manifest or an index with faults, a URL, or a name that two
            different clips have.
    """
    items: dict[str, MediaItem] = {}
    origin: dict[str, str] = {}
    files: set[str] = set()
    for path in paths:
        for item in _expand(path):
            if isinstance(item.video, Path) and item.name == as_text(item.video):
                if (real := os.path.realpath(item.video)) in files:
                    continue
                files.add(real)
            if item.name in items:
                if items[item.name] == item:
                    continue
                raise ValueError(
                    f"two clips are called {item.name!r}, in {origin[item.name]} and in {path}; rows go by their "
                    "names, so work on one of them at a time, with two outputs"
                )
            items[item.name] = item
            origin[item.name] = str(path)
    return list(items.values())


def _expand(path: str | Path) -> Iterable[MediaItem]:
    if is_url(path):
        raise ValueError(f"{path}: URLs are not read here; copy the shards to this machine, and name their folder")
    place = Path(path)
    if place.is_dir():
        return _shards(place) if (place / INDEX_NAME).is_file() else _folder(place)
    if place.exists():
        if place.suffix.lower() in _MANIFESTS:
            return map(_from_manifest, read_manifest(place, check_files=False).clips)
        if place.name == INDEX_NAME:
            return _shards(place.parent)
        if place.suffix.lower() == ".tar":
            return _tar(place)
        return [media_item(place)]
    if glob.has_magic(str(path)):
        return _pattern(str(path))
    raise FileNotFoundError(f"no file or folder {path}")


def _folder(folder: Path) -> Iterable[MediaItem]:
    found = sorted(file for file in _files_below(folder) if _is_media(file))
    if not found:
        raise ValueError(f"no media files in {folder}; looked for {' '.join(sorted(MEDIA_SUFFIXES))}")
    return map(media_item, found)


def _files_below(folder: Path) -> Iterator[Path]:
    entered: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        # Hidden files are what systems leave beside media (._clip.mp4 of macOS); hidden folders hold drafts and trash.
        entered.add(os.path.realpath(place))
        folders[:] = sorted(
            name for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(place, name)) not in entered  # noqa: PTH118
        )  # fmt: skip
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _raise(error: OSError) -> NoReturn:
    raise error


def _is_media(file: Path) -> bool:
    # A link to nothing is a clip that is missing, which is to be said.
    return file.suffix.lower() in MEDIA_SUFFIXES and (file.is_file() or not file.exists())


def _pattern(pattern: str) -> Iterator[MediaItem]:
    found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 (any root)
    media = [file for file in found if _is_media(file)]
    if not media:
        others = f"; it fits {', '.join(map(str, found[:_SHOWN]))}, which are none" if found else ""
        raise FileNotFoundError(f"no media files fit the pattern {pattern}{others}")
    return map(media_item, media)


def _from_manifest(clip: Clip) -> MediaItem:
    return MediaItem(
        name=clip.clip_id, video=clip.video, audio=clip.audio, span_s=clip.span_s, square=clip.square
    )  # fmt: skip


def _tar(tar: Path) -> Iterable[MediaItem]:
    if not (tar.parent / INDEX_NAME).is_file():
        raise ValueError(
            f"{tar}: {tar.parent} has no {INDEX_NAME} that says what lies where; 'hicmae shards index' makes one for "
            "tars from elsewhere"
        )
    source = _open_shards(str(tar.parent))
    if str(tar) not in source.shard_names:
        raise ValueError(f"{tar} is none of the shards in {tar.parent / INDEX_NAME}: {', '.join(source.shard_names)}")
    return _shards(tar.parent, shard=source.shard_names.index(str(tar)))


def _shards(folder: Path, shard: int | None = None) -> Iterator[MediaItem]:
    source = _open_shards(str(folder))
    for number in range(len(source)):
        if shard is None or source.shard_of(number) == shard:
            yield _from_shards(source, str(folder), number)


def _from_shards(source: ShardSource, folder: str, number: int) -> MediaItem:
    place = source.place(number)
    members = {
        role: ShardMember(folder=folder, number=number, role=role, digest=source.fingerprint) for role in place.roles
    }
    return MediaItem(name=place.clip_id, span_s=place.span_s, square=place.square, **members)


@functools.lru_cache(maxsize=4)
def _open_shards(folder: str) -> ShardSource:
    return ShardSource(folder)


@functools.lru_cache(maxsize=1)  # picture and sound of a clip are asked for one after the other
def _read_clip(folder: str, number: int) -> EncodedClip:
    return _open_shards(folder).read(number)


def _look_of(media: Media | None) -> list[object] | None:
    if media is None:
        return None
    if isinstance(media, bytes):
        return [hashlib.blake2b(media, digest_size=16).hexdigest()]
    if isinstance(media, ShardMember):
        return [media.number, media.role, media.digest]
    if not isinstance(media, Path):
        return ["made as it is asked for"]
    try:
        found = media.stat()
    except OSError:
        return [str(media), "missing"]
    return [str(media), found.st_size, found.st_mtime_ns]
