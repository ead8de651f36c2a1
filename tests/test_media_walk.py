"""The walk over a corpus: what counts as a clip's frames, links, names, and folders that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from hicmae.benchmarks.media_files import Media
from hicmae.benchmarks.media_walk import find_media
from hicmae.data.packed import Reject
from tests.native_trees import write


def frames(folder: Path) -> Path:
    write(folder / "1.png", b"picture")
    return folder


@pytest.mark.parametrize("target", ["loop", "disk that is not mounted"])
def test_a_folder_that_is_a_link_to_nothing_is_an_error(target: str, tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", b"film")
    (tmp_path / "loop").symlink_to(tmp_path / target)
    with pytest.raises(FileNotFoundError, match=r"loop is a link to nothing; mount what it leads to, or remove"):
        find_media(tmp_path)


def test_links_back_up_and_folders_given_twice_are_walked_once(tmp_path: Path) -> None:
    film = write(tmp_path / "inner" / "a.mp4", b"film")
    (tmp_path / "inner" / "up").symlink_to(tmp_path)
    found = find_media(tmp_path, below=[tmp_path, tmp_path / "inner"])
    assert found.videos == {"a": (film,)}


def test_frames_are_in_folders_called_like_clips(tmp_path: Path) -> None:
    clip = frames(tmp_path / "data" / "0001")
    frames(tmp_path / "figures")
    write(frames(tmp_path / "0002") / "0002.mp4", b"film")  # pictures beside a film are its stills
    found = find_media(tmp_path, clip_name=r"\d{4}")
    assert found.frames == {"0001": (clip,)}
    assert found.pictures == found.frames
    assert found.unlisted(["0001"]) == 0
    assert find_media(tmp_path).frames is None


def test_faces_replace_other_frames_and_their_files_are_no_media(tmp_path: Path) -> None:
    frames(tmp_path / "data" / "0001")
    film = write(tmp_path / "data" / "0001.mp4", b"film")
    faces = frames(tmp_path / "data" / "Faces" / "0001")
    write(faces / "0001.wav", b"sound")
    found = find_media(tmp_path, clip_name=r"\d{4}")
    assert found.frames == {"0001": (faces,)}
    assert found.sounds == {}
    assert found.media("0001") == Media(video=faces, audio=film)


def test_a_root_called_faces_is_a_corpus_like_any_other(tmp_path: Path) -> None:
    film = write(tmp_path / "faces" / "a.mp4", b"film")
    found = find_media(tmp_path / "faces")
    assert (found.videos, found.frames) == ({"a": (film,)}, None)


def test_a_name_without_regard_to_case_and_one_of_several(tmp_path: Path) -> None:
    film = write(tmp_path / "OLD-1.MP4", b"film")
    sound = write(tmp_path / "new-1.FLAC", b"sound")
    found = find_media(tmp_path)
    assert found.names() == ["new-1", "OLD-1"]
    assert found.media("new-1", video=("new-1", "old-1"), in_video=False) == Media(video=film, audio=sound)
    lost = found.media("other")
    assert isinstance(lost, Reject)
    assert (lost.reason, lost.detail) == (
        "missing_video", f"no other (mp4, m4v, mov, mkv, webm, avi, flv) below {tmp_path}"
    )  # fmt: skip
    unusable = found.media("a/b")
    assert isinstance(unusable, Reject)
    assert unusable.reason == "unusable_name"


def test_only_what_a_clip_uses_must_be_there_once(tmp_path: Path) -> None:
    face = frames(tmp_path / "faces" / "a")
    sound = write(tmp_path / "a.wav", b"sound")
    for folder in ("one", "two"):
        write(tmp_path / folder / "a.mp4", b"film")
    assert find_media(tmp_path).media("a") == Media(video=face, audio=sound)
    sound.unlink()
    twice = find_media(tmp_path).media("a")
    assert isinstance(twice, Reject)
    assert twice.reason == "duplicate_clip"
