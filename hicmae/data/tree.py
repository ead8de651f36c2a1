"""A manifest from folders of media files: one clip a file, sound paired with picture by its path."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hicmae.data.manifest import MAX_ID_LENGTH, Clip
from hicmae.data.tar_members import AUDIO_EXTENSIONS, VIDEO_EXTENSIONS


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The clips of a tree of folders, and what else was in it."""

    clips: tuple[Clip, ...]
    """In the order of their paths."""
    without_sound: tuple[str, ...] = ()
    """Ids of clips for which the sound tree has no file."""
    sound_alone: int = 0
    """Sound files without a picture file; they are in no clip."""
    other_files: tuple[tuple[str, int], ...] = ()
    """(extension, count) of files that are no media, or hidden; the most frequent first."""


def scan_tree(
    video: str | os.PathLike[str] | None,
    audio: str | os.PathLike[str] | None = None,
    *,
    subject_level: int = 0,
    split: str = "",
) -> Tree:
    """Find the clips below one folder of picture files, or of sound files, or below two that are built alike.

    The id of a clip is its path below the folder, without extension, with ``_`` for whatever ids may not hold.

    Args:
        video: folder of files with pictures, and with sound where there is no second folder.
        audio: folder of sound files. ``a/b/1.m4a`` is the sound of ``a/b/1.mp4``.
        subject_level: which folder of the path names the subject, from 1; 0 for none.
        split: of all clips.

    Raises:
        FileNotFoundError: a folder does not exist.
        ValueError: there are no clips, two have one id, an id is too long, or a path has too few folders.
    """
    if video is None and audio is None:
        raise ValueError("neither a folder of picture files nor one of sound files was given")
    if subject_level < 0:
        raise ValueError(
            f"subject_level={subject_level}: folders are counted from 1, the one next to the root; 0: none"
        )
    other: Counter[str] = Counter()
    pictures = _media_below(Path(video), VIDEO_EXTENSIONS, other) if video is not None else {}
    sounds = _media_below(Path(audio), AUDIO_EXTENSIONS, other) if audio is not None else {}
    stems = list(pictures if video is not None else sounds)
    root = video if video is not None else audio
    if not stems:
        kinds = ", ".join(VIDEO_EXTENSIONS if video is not None else AUDIO_EXTENSIONS)
        raise ValueError(f"{root}: no files that end in {kinds}, in it or below it")
    first: dict[str, str] = {}
    clips, without_sound = [], []
    for stem in stems:
        clip_id = re.sub(r"[^A-Za-z0-9_-]", "_", stem, flags=re.ASCII)
        if len(clip_id) > MAX_ID_LENGTH:
            raise ValueError(
                f"{root}: the path {stem!r} makes an id of {len(clip_id)} characters, over {MAX_ID_LENGTH}; "
                "start from a folder further down"
            )
        if (there := first.setdefault(clip_id, stem)) != stem:
            raise ValueError(f"{root}: {there!r} and {stem!r} both make the id {clip_id!r}; rename one of them")
        folders = stem.split("/")[:-1]
        if subject_level > len(folders):
            raise ValueError(f"{root}: {stem!r} has no folder {subject_level} to name its subject; lower the level")
        clip = Clip(
            clip_id=clip_id,
            video=pictures.get(stem),
            audio=sounds.pop(stem, None),
            subject=folders[subject_level - 1] if subject_level else "",
            split=split,
        )
        if video is not None and audio is not None and clip.audio is None:
            without_sound.append(clip_id)
        clips.append(clip)
    return Tree(
        clips=tuple(clips),
        without_sound=tuple(without_sound),
        sound_alone=len(sounds),
        other_files=tuple(other.most_common()),
    )


def _media_below(root: Path, extensions: tuple[str, ...], other: Counter[str]) -> dict[str, Path]:
    """Files by their path below ``root`` without extension, in the order of paths; others are counted."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    root = root.absolute()
    found: dict[str, Path] = {}
    for folder, folders, files in os.walk(root, onerror=_raise):
        folders.sort()
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        parent = Path(folder)
        for name in sorted(files):
            stem, extension = os.path.splitext(name)  # noqa: PTH122 (a million files)
            if name.startswith(".") or extension[1:].lower() not in extensions:
                other[extension.lower() or name] += 1
                continue
            key = stem if below == "." else f"{below}/{stem}"
            if key in found:
                raise ValueError(f"{root}: {found[key].name} and {name} in {below} differ in their extension alone")
            found[key] = parent / name
    return found


def _raise(error: OSError) -> None:
    raise error
