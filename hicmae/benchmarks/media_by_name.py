"""Media files of a corpus by the name of their clip, wherever below some folders they were unpacked."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hicmae.benchmarks.card import Native, NativeClip
from hicmae.data.manifest import Clip, id_problem
from hicmae.data.packed import Reject
from hicmae.data.tar_members import AUDIO_EXTENSIONS, VIDEO_EXTENSIONS

PICTURE_EXTENSIONS = ("jpg", "jpeg", "png", "bmp")


@dataclass(frozen=True, kw_only=True)
class MediaByName:
    """What was found; a name with more than one path is ambiguous."""

    videos: Mapping[str, tuple[Path, ...]]
    """Files with pictures."""
    sounds: Mapping[str, tuple[Path, ...]]
    """Sound files."""
    frames: Mapping[str, tuple[Path, ...]]
    """Folders of pictures: the frames of a clip."""
    folders: tuple[Path, ...]
    """Where was searched."""

    def __bool__(self) -> bool:
        return bool(self.videos or self.frames)

    @property
    def pictures(self) -> Mapping[str, tuple[Path, ...]]:
        """What clips take their picture from: folders of frames where there are any, else video files."""
        return self.frames or self.videos

    def clip(
        self,
        name: str,
        *,
        split: str,
        labels: Mapping[str, str | float],
        subject: str = "",
    ) -> NativeClip | Reject:
        """The clip of that name, or why there is none.

        One corpus gives one kind of picture: where some clips have a folder of frames, a clip without one is rejected
        rather than shown whole among cropped faces. The sound of frames is the sound file of the same name, else that
        of the video file.
        """
        if problem := id_problem(name):
            return Reject(clip_id=name, reason="unusable_name", detail=problem)
        for found in (self.pictures, self.sounds, self.videos):
            if len(paths := found.get(name, ())) > 1:
                there = ", ".join(map(str, paths))
                return Reject(clip_id=name, reason="duplicate_clip", detail=f"{there}: remove all but one")
        if name not in self.pictures:
            what, kinds = ("faces", "folder of frames") if self.frames else ("video", ", ".join(VIDEO_EXTENSIONS))
            detail = f"no {name} ({kinds}) below {self._searched()}"
            return Reject(clip_id=name, reason=f"missing_{what}", detail=detail)
        sound = self.sounds.get(name) or (self.videos.get(name) if self.frames else None)
        if self.frames and not sound:
            detail = f"no sound or video file {name} below {self._searched()}, and frames have no sound"
            return Reject(clip_id=name, reason="missing_audio", detail=detail)
        return NativeClip(
            clip=Clip(
                clip_id=name, video=self.pictures[name][0], audio=sound[0] if sound else None,
                subject=subject, split=split, labels=dict(labels),
            )
        )  # fmt: skip

    def _searched(self) -> str:
        return ", ".join(map(str, self.folders))


@dataclass(kw_only=True)
class Sorted:
    """Clips and rejects as a parser meets them."""

    clips: list[NativeClip] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, found: NativeClip | Reject) -> None:
        """Put it where it belongs."""
        if isinstance(found, NativeClip):
            self.clips.append(found)
        else:
            self.rejects.append(found)

    def native(self) -> Native:
        """All of it.

        Raises:
            ValueError: not one clip can be used.
        """
        if not self.clips and self.rejects:
            first = self.rejects[0]
            raise ValueError(
                f"none of {len(self.rejects)} clips can be used; the first, {first.clip_id}: {first.reason}, "
                f"{first.detail}"
            )
        return Native(clips=tuple(self.clips), rejects=tuple(self.rejects), left_out=dict(self.left_out))


def media_by_name(
    folders: Iterable[Path],
    *,
    faces: Path,
    clip_name: str,
    name: Callable[[str], str] = str,
    skip: Collection[str] = (),
) -> MediaByName:
    """Look for media in folders and all below them; links are followed.

    Args:
        folders: where to look; those that do not exist are passed over.
        faces: a folder whose frames take the place of all others, if it exists.
        clip_name: pattern of the names of clips. A folder of pictures with another name holds figures, not frames;
            files are all kept, so that it can be said what is there and unknown.
        name: makes the name of a clip from that of a file without extension, or from that of a folder of frames.
        skip: names of folders to pass over, in any case.
    """
    places = tuple(folder for folder in folders if folder.is_dir())
    scan = _Scan(clip_name=re.compile(clip_name), name=name, skip={"__macosx", *(folder.lower() for folder in skip)})
    if faces.is_dir():
        scan.walk(faces)
        own, scan.frames = scan.frames, defaultdict(list)
    for place in places:
        scan.walk(place)
    if faces.is_dir():
        scan.frames, places = own, (*places, faces)
    videos, sounds, frames = (
        {key: tuple(paths) for key, paths in sorted(found.items())} for found in (scan.videos, scan.sounds, scan.frames)
    )
    return MediaByName(videos=videos, sounds=sounds, frames=frames, folders=places)


@dataclass(kw_only=True)
class _Scan:
    clip_name: re.Pattern[str]
    name: Callable[[str], str]
    skip: set[str]
    videos: defaultdict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    sounds: defaultdict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    frames: defaultdict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    seen: set[tuple[int, int]] = field(default_factory=set)

    def walk(self, folder: Path) -> None:
        status = folder.stat()
        if (place := (status.st_dev, status.st_ino)) in self.seen:
            return  # a link back up, or a folder below one that was walked
        self.seen.add(place)
        inner: list[str] = []
        files = pictures = 0
        with os.scandir(folder) as entries:
            listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        for entry in listed:
            stem, _, extension = entry.name.rpartition(".")
            kind = extension.lower() if stem else ""
            if kind in PICTURE_EXTENSIONS:
                pictures += 1  # not asked whether it is a file: there are millions
            elif entry.is_dir():
                inner.append(entry.name)
            elif kind in VIDEO_EXTENSIONS or kind in AUDIO_EXTENSIONS:
                files += 1
                found = self.videos if kind in VIDEO_EXTENSIONS else self.sounds
                found[self.name(stem)].append(folder / entry.name)
        key = self.name(folder.name)
        if pictures and not files and not inner and self.clip_name.fullmatch(key):
            self.frames[key].append(folder)
        for below in inner:
            if below.lower() not in self.skip:
                self.walk(folder / below)
