"""The walk that finds a corpus's media, whatever an unzip, a copy, a link or a capital letter made of its folders.

One further layout is common to all corpora: where people have the faces already, ``faces/<clip name>/`` (at any depth)
holds a clip's face frames as jpg, png or bmp, in the order of their names. Where there is such a folder ``faces`` every
clip takes its picture from it, and its sound from the corpus.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hicmae.benchmarks.media_files import PICTURE_EXTENSIONS, SOUND_EXTENSIONS, MediaFiles
from hicmae.data.tar_members import VIDEO_EXTENSIONS

FACES = "faces"
_ARCHIVES = ("zip", "7z", "rar", "tar", "gz", "tgz", "z01")


def find_media(
    root: Path,
    *,
    below: Sequence[Path] | None = None,
    clip_name: str | None = None,
    name: Callable[[str], str] = str,
    skip: Collection[str] = (),
) -> MediaFiles:
    """All media of a corpus; links are followed, hidden files and the leftovers of macOS are passed over.

    Args:
        root: folder of the corpus; its folder ``faces`` is always looked at.
        below: where to look; those that do not exist are passed over. None: everywhere below the root.
        clip_name: pattern of the names of clips, of a corpus that has frames in other folders than ``faces``. A folder
            of pictures with another name holds figures, not frames; files are all kept, so that it can be said what
            is there and unknown. None: frames are in ``faces`` alone.
        name: makes the name of a clip from that of a file without extension, or from that of a folder of frames.
        skip: names of folders to pass over, in any case.

    Raises:
        FileNotFoundError: a folder is a link to nothing: all clips below it would be missing unseen.
        PermissionError: a folder cannot be read.
    """
    places = [place for place in ([root] if below is None else below) if place.is_dir()]
    faces = [path for path in sorted(root.glob("*")) if path.name.lower() == FACES and path.is_dir()]
    walk = _Walk(
        clip_name=None if clip_name is None else re.compile(clip_name),
        name=name,
        skip={"__macosx", *(folder.lower() for folder in skip)},
    )
    for place in faces:  # before the others, of which it may be a part
        walk.folder(place, in_faces=True)
    for place in places:
        walk.folder(place, in_faces=False)
    frames = walk.faces if walk.has_faces else walk.frames or None
    return MediaFiles(
        videos={key: tuple(paths) for key, paths in walk.videos.items()},
        sounds={key: tuple(paths) for key, paths in walk.sounds.items()},
        frames=None if frames is None else {key: tuple(paths) for key, paths in frames.items()},
        texts=tuple(walk.texts),
        folders=(*faces, *places) or (root,),
        archives=tuple(walk.archives),
    )


@dataclass(kw_only=True)
class _Walk:
    clip_name: re.Pattern[str] | None
    name: Callable[[str], str]
    skip: set[str]
    videos: defaultdict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    sounds: defaultdict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    frames: defaultdict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    faces: defaultdict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    has_faces: bool = False
    texts: list[Path] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)

    def folder(self, folder: Path, *, in_faces: bool) -> None:
        """Take all of a folder, and of those in it."""
        status = folder.stat()
        if (place := (status.st_dev, status.st_ino)) in self.seen:
            return  # a link back up, or a folder below one that was walked
        self.seen.add(place)
        self.has_faces |= in_faces
        with os.scandir(folder) as entries:
            listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        inner: list[str] = []
        files = pictures = 0
        for entry in listed:
            stem, _, extension = entry.name.rpartition(".")
            kind = extension.lower() if stem else ""
            if kind in PICTURE_EXTENSIONS:
                pictures += 1  # not asked whether it is a file: there are millions
            elif _is_folder(entry):
                inner.append(entry.name)
            elif kind in VIDEO_EXTENSIONS or kind in SOUND_EXTENSIONS:
                files += 1
                if not in_faces:
                    found = self.videos if kind in VIDEO_EXTENSIONS else self.sounds
                    found[self.name(stem).lower()].append(folder / entry.name)
            elif kind in _ARCHIVES:
                self.archives.append(folder / entry.name)
            elif kind == "txt":
                self.texts.append(folder / entry.name)
            elif entry.is_symlink() and not (folder / entry.name).is_file():
                raise FileNotFoundError(
                    f"{folder / entry.name} is a link to nothing; mount what it leads to, or remove the link"
                )
        if pictures:
            self._take_frames(folder, in_faces=in_faces, alone=not files and not inner)
        for below in inner:
            if below.lower() not in self.skip:
                self.folder(folder / below, in_faces=in_faces or below.lower() == FACES)

    def _take_frames(self, folder: Path, *, in_faces: bool, alone: bool) -> None:
        key = self.name(folder.name)
        is_clip = self.clip_name is None or self.clip_name.fullmatch(key)
        if in_faces and is_clip:
            self.faces[key.lower()].append(folder)
        elif self.clip_name is not None and is_clip and alone:
            self.frames[key.lower()].append(folder)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link that leads to itself
