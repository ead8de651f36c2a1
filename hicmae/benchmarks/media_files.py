"""A corpus's films, sounds and folders of frames by the name of their clip, and what of them a clip can use."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hicmae.benchmarks.card import NativeClip
from hicmae.data.manifest import Clip, id_problem
from hicmae.data.packed import Reject
from hicmae.data.tar_members import VIDEO_EXTENSIONS

SOUND_EXTENSIONS = ("wav", "flac")
"""No others: mp3 and its like may begin later than the picture, and CREMA-D has each clip as mp3 besides."""
PICTURE_EXTENSIONS = ("jpg", "jpeg", "png", "bmp")

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_POINTER_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class Media:
    """Where the picture and the sound of a clip are; ``audio`` is None where the sound is in ``video``."""

    video: Path
    audio: Path | None = None


@dataclass(frozen=True, kw_only=True)
class MediaFiles:
    """What was found, by name in lower case; a name with more than one path is ambiguous."""

    videos: Mapping[str, tuple[Path, ...]]
    """Files with pictures."""
    sounds: Mapping[str, tuple[Path, ...]]
    """Sound files."""
    frames: Mapping[str, tuple[Path, ...]] | None
    """Folders of pictures: the frames of a clip. None: this corpus's pictures are in ``videos``."""
    texts: tuple[Path, ...]
    """Files ``.txt``, among which may be the labels."""
    folders: tuple[Path, ...]
    """Where was searched."""
    archives: tuple[Path, ...] = ()
    """Files such as ``.zip``, which may hold what is missing elsewhere."""

    def __bool__(self) -> bool:
        return bool(self.videos or self.frames)

    @property
    def pictures(self) -> Mapping[str, tuple[Path, ...]]:
        """What clips take their picture from: folders of frames where there are any, else video files."""
        return self.videos if self.frames is None else self.frames

    def names(self) -> list[str]:
        """Names of all media as they are spelled on disk, each once, in order."""
        found = {name: paths[0].name for name, paths in (self.frames or {}).items()}
        found |= {name: paths[0].stem for name, paths in (*self.sounds.items(), *self.videos.items())}
        return [found[name] for name in sorted(found)]

    def not_opened(self) -> dict[str, int]:
        """Archives by reason, as things that are left out."""
        return {"archive (not looked into)": len(self.archives)} if self.archives else {}

    def unlisted(self, known: Iterable[str]) -> int:
        """How many pictures have a name that is none of these."""
        return len(set(self.pictures) - {name.lower() for name in known})

    def clip(
        self,
        clip_id: str,
        *,
        split: str,
        labels: Mapping[str, str | float],
        subject: str = "",
        video: Sequence[str] = (),
        sound: Sequence[str] = (),
        in_video: bool = True,
    ) -> NativeClip | Reject:
        """The clip of that name, all of its time, or why there is none; ``media`` says what is given of names."""
        found = self.media(clip_id, video=video, sound=sound, in_video=in_video)
        if isinstance(found, Reject):
            return found
        return NativeClip(
            clip=Clip(
                clip_id=clip_id, video=found.video, audio=found.audio, subject=subject, split=split,
                labels=dict(labels),
            )
        )  # fmt: skip

    def media(
        self, clip_id: str, *, video: Sequence[str] = (), sound: Sequence[str] = (), in_video: bool = True
    ) -> Media | Reject:
        """Picture and sound of a clip, or why it cannot be used.

        One corpus gives one kind of picture: where some clips have a folder of frames, a clip without one is rejected
        rather than shown whole among cropped faces.

        Args:
            clip_id: what a reject calls the clip, and the name of its frames.
            video: names of its video file, the first that exists counts; also further names of its frames. None given:
                the clip's own.
            sound: names of its sound file, likewise.
            in_video: whether the sound may be that of the video, where there is no sound file.
        """
        if problem := id_problem(clip_id):
            return Reject(clip_id=clip_id, reason="unusable_name", detail=problem)
        video, sound = video or (clip_id,), sound or (clip_id,)
        pictures = self._first(self.pictures, (clip_id, *video) if self.frames is not None else video)
        sounds = self._first(self.sounds, sound)
        if not sounds and self.frames is not None and in_video:
            sounds = self._first(self.videos, video)
        if not pictures:
            if self.frames is None:
                return self._missing(clip_id, "video", video, VIDEO_EXTENSIONS)
            return Reject(
                clip_id=clip_id,
                reason="missing_faces",
                detail=f"no folder {clip_id} with frames ({', '.join(PICTURE_EXTENSIONS)}) below {self._searched()}; "
                "where there are such folders, or one called 'faces', every clip takes its picture from them",
            )
        if not sounds and not (in_video and self.frames is None):
            return self._missing(clip_id, "audio", sound, SOUND_EXTENSIONS)
        for paths in (pictures, sounds):
            if len(paths) > 1:
                detail = f"{', '.join(map(str, paths))}: remove all but one"
                return Reject(clip_id=clip_id, reason="duplicate_clip", detail=detail)
            for path in paths:
                if wrong := _problem(path):
                    return Reject(clip_id=clip_id, reason=wrong[0], detail=f"{path} {wrong[1]}")
        return Media(video=pictures[0], audio=sounds[0] if sounds else None)

    @staticmethod
    def _first(found: Mapping[str, tuple[Path, ...]], names: Sequence[str]) -> tuple[Path, ...]:
        return next((found[name.lower()] for name in names if name.lower() in found), ())

    def _missing(self, clip_id: str, what: str, names: Sequence[str], kinds: Sequence[str]) -> Reject:
        detail = f"no {' or '.join(names)} ({', '.join(kinds)}) below {self._searched()}"
        return Reject(clip_id=clip_id, reason=f"missing_{what}", detail=detail)

    def _searched(self) -> str:
        return ", ".join(map(str, self.folders))


def _problem(path: Path) -> tuple[str, str] | None:
    """(reason, what is wrong) of a file that holds no film and no sound."""
    try:
        status = path.stat()
    except OSError:
        return "missing_file", "is a link to nothing; mount what it leads to, or copy the file there"
    if stat.S_ISDIR(status.st_mode):
        return None
    if not status.st_size:
        return "empty_file", "has zero length; download it again"
    if status.st_size <= _LARGEST_POINTER_BYTES and path.read_bytes().startswith(_LFS_POINTER):
        return "git_lfs_pointer", "is a pointer of git-lfs and not the file itself; run 'git lfs pull' where it is"
    return None
