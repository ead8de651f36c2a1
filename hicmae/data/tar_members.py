"""Members of WebDataset tars: which kinds belong to a clip, and where they lie."""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

VIDEO_EXTENSIONS = ("mp4", "m4v", "mov", "mkv", "webm", "avi", "flv")
AUDIO_EXTENSIONS = ("wav", "flac", "m4a", "mp3", "ogg", "oga", "opus")
PICTURE_MEMBERS = (*VIDEO_EXTENSIONS, "frames")
"""Members that hold a clip's picture: media files, or single frames as ``hicmae.media.frames_file`` writes them."""
# members that loaders elsewhere would unpickle, that is: execute
PICKLED_EXTENSIONS = ("pyd", "pickle", "pkl", "pth", "pt", "npy", "npz", "ten", "joblib")
MAX_MEMBER_BYTES = 2**31
_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")


@dataclass(frozen=True, kw_only=True)
class TarMember:
    """A regular file within a tar: its place in bytes."""

    name: str
    offset: int
    size: int


def scan_tar(path: Path) -> tuple[list[TarMember], str | None]:
    """Members that lie wholly within a tar, and what is wrong with the rest of it (None: nothing).

    Reads headers alone. A tar cut in half gives the members before the cut.
    """
    members: list[TarMember] = []
    total = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                if entry.isdir():
                    continue
                if not entry.isfile():
                    return members, f"member {entry.name!r} is not a regular file"
                if entry.offset_data + entry.size > total:
                    return members, f"cut off within member {entry.name!r} at byte {total}"
                members.append(TarMember(name=entry.name, offset=entry.offset_data, size=entry.size))
            end = tar.offset
    except tarfile.ReadError as error:
        return members, f"not a whole tar ({error})"
    with path.open("rb") as file:
        file.seek(end - tarfile.BLOCKSIZE if end >= total else end)
        # without its closing block of zeros a tar that ends between two members looks whole
        if total < end or file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            return members, f"cut off between members at byte {total}"
    return members, None


def split_member_name(name: str) -> tuple[str, str] | None:
    """(key, extension in lower case) as WebDataset splits names: at the first dot of the file name; else None.

    A leading ``./``, as ``tar cf shard.tar .`` writes it, is no part of the key.
    """
    match = _KEY_AND_EXTENSION.fullmatch(name.removeprefix("./"))
    return (match.group(1), match.group(2).lower()) if match else None


def refusal(extension: str) -> str | None:
    """Why members of this kind have no place in a shard of clips; None when they have."""
    if extension in (*PICTURE_MEMBERS, *AUDIO_EXTENSIONS, "json"):
        return None
    if extension.rsplit(".", 1)[-1] in PICKLED_EXTENSIONS:
        return f"'.{extension}' members can run code when loaded"
    return f"'.{extension}' is not a kind of member that clips have"
