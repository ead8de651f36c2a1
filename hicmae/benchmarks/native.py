"""A corpus's files on disk, by name: whatever an unzip, a copy or a capital letter made of their folders.

One further layout is common to all corpora that are read through this module: where people have the faces already,
``faces/<clip name>/`` (at any depth below the root) holds a clip's face frames as jpg or png, in the order of their
names. Where there is such a folder ``faces`` every clip takes its picture from it, and its sound from the corpus.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hicmae.benchmarks.card import Native, NativeClip, not_this_corpus
from hicmae.data.packed import Reject
from hicmae.data.tar_members import VIDEO_EXTENSIONS

# of no other kind: CREMA-D has each clip as mp3 besides
SOUND_EXTENSIONS = ("wav", "flac")
FRAME_EXTENSIONS = ("jpg", "jpeg", "png")
FACES = "faces"

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_POINTER = 1024
_SHOWN = 20


@dataclass(kw_only=True)
class Collected:
    """What a parser has found so far."""

    clips: list[NativeClip] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def reject(self, clip_id: str, reason: str, detail: str) -> None:
        """Note a clip that should be there or be usable and is not."""
        self.rejects.append(Reject(clip_id=clip_id, reason=reason, detail=detail))

    def native(self, root: Path) -> Native:
        """All of it, in the order of the ids.

        Raises:
            ValueError: not one clip can be used.
        """
        if not self.clips and self.rejects:
            first = self.rejects[0]
            what = f"{first.clip_id}: {first.reason}, {first.detail}"
            raise ValueError(f"{root}: none of {len(self.rejects)} clips can be used; the first is {what}")
        return Native(
            clips=tuple(sorted(self.clips, key=lambda found: found.clip.clip_id)),
            rejects=tuple(sorted(self.rejects, key=lambda reject: (reject.clip_id, reject.detail))),
            left_out=dict(sorted(self.left_out.items())),
        )


@dataclass(frozen=True, kw_only=True)
class Media:
    """Where the picture and the sound of a clip are; ``audio`` is None where the sound is in ``video``."""

    video: Path
    audio: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The media files below a folder, by their names without extension, in lower case; and its text files."""

    root: Path
    videos: Mapping[str, Path]
    sounds: Mapping[str, Path]
    texts: Sequence[Path]
    """Text files, among which are the labels."""
    faces: Mapping[str, Path] | None
    """Folders of face frames; None where there is no folder ``faces``."""
    twins: Mapping[Path, Sequence[Path]]
    """Further files of the same kind and name, by the one above."""

    def names(self) -> list[str]:
        """Names of all media as they are spelled on disk, each once."""
        found = {name: path.name for name, path in (self.faces or {}).items()}
        found |= {name: path.stem for name, path in (*self.sounds.items(), *self.videos.items())}
        return [found[name] for name in sorted(found)]

    def media(self, clip_id: str, *, video: Sequence[str], sound: Sequence[str], in_video: bool) -> Media | Reject:
        """Picture and sound of a clip, or why it cannot be used.

        Args:
            clip_id: what a reject calls the clip, and the name of its face frames.
            video: names of the video file, the first that exists counts; also further names of its face frames.
            sound: names of the separate sound file, likewise.
            in_video: whether the video may be its own sound.
        """
        picture, audio = _first(self.videos, video), _first(self.sounds, sound)
        if audio is None and not in_video:
            return _missing(clip_id, "audio", f"no sound file {' or '.join(sound)}", SOUND_EXTENSIONS, self.root)
        if self.faces is not None:
            frames = _first(self.faces, (clip_id, *video))
            if frames is None:
                detail = (
                    f"{self.root} has a folder {FACES!r}, but none of a clip {clip_id} with jpg or png frames in it"
                )
                return Reject(clip_id=clip_id, reason="missing_faces", detail=detail)
            audio = audio or picture
            if audio is None:
                return _missing(clip_id, "audio", f"no sound file {' or '.join(sound)}", SOUND_EXTENSIONS, self.root)
            return self._usable(clip_id, Media(video=frames, audio=audio))
        if picture is None:
            return _missing(clip_id, "video", f"no video file {' or '.join(video)}", VIDEO_EXTENSIONS, self.root)
        return self._usable(clip_id, Media(video=picture, audio=audio))

    def _usable(self, clip_id: str, media: Media) -> Media | Reject:
        for path in (media.video, media.audio):
            if path is None:
                continue
            if path in self.twins:
                there = ", ".join(map(str, (path, *self.twins[path])))
                return Reject(clip_id=clip_id, reason="duplicate_clip", detail=f"{there}: remove all but one")
            if path.is_dir():
                continue
            if not path.is_file():
                return Reject(clip_id=clip_id, reason="missing_file", detail=f"{path} is a link to nothing")
            size = path.stat().st_size
            if not size:
                return Reject(clip_id=clip_id, reason="empty_file", detail=f"{path} has zero length; download it again")
            if size <= _LARGEST_POINTER and path.read_bytes().startswith(_LFS_POINTER):
                detail = f"{path} is a pointer of git-lfs and not the file itself; run 'git lfs pull' in its repository"
                return Reject(clip_id=clip_id, reason="git_lfs_pointer", detail=detail)
        return media


def read_tree(root: Path, title: str) -> Tree:
    """All media and label files below ``root``; hidden files and the leftovers of macOS are passed over.

    Raises:
        FileNotFoundError: there is no such folder; ``title`` is what it should be.
    """
    if not root.is_dir():
        raise not_this_corpus(root, title, ())
    videos: dict[str, Path] = {}
    sounds: dict[str, Path] = {}
    texts: list[Path] = []
    faces: dict[str, Path] | None = None
    twins: dict[Path, list[Path]] = {}
    for folder, files in _folders(root):
        inside = [part.lower() for part in folder.relative_to(root).parts]
        if FACES in inside:
            faces = {} if faces is None else faces
            if any(_extension(file) in FRAME_EXTENSIONS for file in files):
                _put(faces, folder.name.lower(), folder, twins)
            continue
        for file in files:
            path = folder / file
            extension = _extension(file)
            if extension in VIDEO_EXTENSIONS:
                _put(videos, path.stem.lower(), path, twins)
            elif extension in SOUND_EXTENSIONS:
                _put(sounds, path.stem.lower(), path, twins)
            elif extension == "txt":
                texts.append(path)
    return Tree(root=root, videos=videos, sounds=sounds, texts=texts, faces=faces, twins=twins)


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(number, text) of the lines of a label file that hold something; whatever its encoding and its line ends."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def malformed(problems: Sequence[tuple[Path, int, str]], form: str) -> ValueError:
    """The error for label lines that cannot be read: file, line, what is there, and what should be (first 20)."""
    shown = [f"{path}, line {number}: {line[:200]!r}" for path, number, line in problems[:_SHOWN]]
    more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    text = "\n  ".join(shown + more)
    return ValueError(f"label lines that are not of the form {form!r}; copy the file from the corpus again:\n  {text}")


def labelled_twice(places: Sequence[tuple[Path, int]]) -> str:
    """What is wrong with a clip that label files name in several (file, line)."""
    return f"labelled in {' and in '.join(f'{path}, line {number}' for path, number in places)}; remove all but one"


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    # Sessions are often links to another disk; a link to a folder above would be walked for ever.
    seen = set()

    def refuse(error: OSError) -> None:
        raise error  # a folder that cannot be read would be passed over

    for place, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        yield Path(place), sorted(name for name in files if not name.startswith("."))


def _extension(file: str) -> str:
    return Path(file).suffix.lower().removeprefix(".")


def _put(found: dict[str, Path], name: str, path: Path, twins: dict[Path, list[Path]]) -> None:
    if (first := found.setdefault(name, path)) != path:
        twins.setdefault(first, []).append(path)


def _first(found: Mapping[str, Path], names: Sequence[str]) -> Path | None:
    return next((found[name.lower()] for name in names if name.lower() in found), None)


def _missing(clip_id: str, what: str, text: str, extensions: Sequence[str], root: Path) -> Reject:
    return Reject(clip_id=clip_id, reason=f"missing_{what}", detail=f"{text} ({', '.join(extensions)}) below {root}")
