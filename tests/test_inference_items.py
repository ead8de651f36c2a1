"""Files, folders, patterns, manifests and shards as one list of clips."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from hicmae.config import InputSpec
from hicmae.data.manifest import write_manifest
from hicmae.data.shard_writer import write_shards
from hicmae.inference.items import MediaItem, find_items
from hicmae.inference.windows import read_windows
from hicmae.media.clip import DecodeError
from tests.corpus import make_corpus


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_a_folder_gives_its_media_files_by_name_and_no_hidden_ones(tmp_path: Path) -> None:
    _touch(tmp_path / "b.mp4", tmp_path / "sub/a.WAV", tmp_path / "sub/._a.mp4", tmp_path / ".trash/c.mp4",
           tmp_path / "notes.txt")  # fmt: skip
    assert [item.name for item in find_items([tmp_path])] == [str(tmp_path / "b.mp4"), str(tmp_path / "sub/a.WAV")]


def test_a_file_is_taken_once_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path / "a.mp4", tmp_path / "b.mp4")
    monkeypatch.chdir(tmp_path)
    assert [item.name for item in find_items(["b.mp4", ".", "./a.mp4", str(tmp_path / "*.mp4")])] == ["b.mp4", "a.mp4"]


def test_a_named_file_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    _touch(tmp_path / "notes.txt")
    assert [item.video for item in find_items([tmp_path / "notes.txt"])] == [tmp_path / "notes.txt"]


def test_patterns(tmp_path: Path) -> None:
    _touch(tmp_path / "s1/a.mp4", tmp_path / "s2/deep/b.mp4", tmp_path / "s2/c.txt", tmp_path / "odd[1].mp4")
    found = [Path(item.name).name for item in find_items([f"{tmp_path}/s*/**/*"])]
    assert found == ["a.mp4", "b.mp4"]
    assert len(find_items([tmp_path / "odd[1].mp4"])) == 1  # it exists, so it is no pattern
    with pytest.raises(FileNotFoundError, match=r"no media files fit the pattern .*c\.txt, which are none"):
        find_items([f"{tmp_path}/s2/*.txt"])


def test_manifest_rows_keep_their_part_of_a_file_and_may_name_what_is_missing(tmp_path: Path) -> None:
    path = write_manifest(
        tmp_path / "m.csv",
        [
            {"clip_id": "a", "video": "film.mp4", "start_s": 1, "end_s": 3, "square": "0,8,64"},
            {"clip_id": "b", "video": "film.mp4", "audio": "sound.wav"},
        ],
    )
    first, second = find_items([path])
    assert (first.name, first.span_s, first.square) == ("a", (1.0, 3.0), (0, 8, 64))
    assert (second.video, second.audio) == (tmp_path / "film.mp4", tmp_path / "sound.wav")


def test_shards_give_the_bytes_of_the_files(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "clips", 4)
    write_shards(manifest, tmp_path / "shards", shard_mb=0.03)
    items = find_items([tmp_path / "shards"])
    assert sorted(item.name for item in items) == [clip.clip_id for clip in manifest.clips]
    for item in items:
        video = pickle.loads(pickle.dumps(item.video))  # noqa: S301
        assert callable(video)
        assert video() == (tmp_path / "clips" / f"{item.name}.mp4").read_bytes()
    assert find_items([tmp_path / "shards" / "index.json"]) == items
    tars = sorted((tmp_path / "shards").glob("*.tar"))
    assert len(tars) > 1
    assert [item for tar in tars for item in find_items([tar])] == items


def test_two_clips_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write_manifest(tmp_path / f"{name}.csv", [{"clip_id": "a", "video": f"{name}.mp4"}])
    with pytest.raises(ValueError, match=r"two clips are called 'a', in .*x\.csv and in .*y\.csv"):
        find_items([tmp_path / "x.csv", tmp_path / "y.csv"])


def test_what_is_not_there_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*gone\.mp4"):
        find_items([tmp_path / "gone.mp4"])
    with pytest.raises(ValueError, match="no media files in"):
        find_items([tmp_path])
    with pytest.raises(ValueError, match="URLs are not read here"):
        find_items(["https://example.org/shards"])
    _touch(tmp_path / "a.tar")
    with pytest.raises(ValueError, match=r"has no index\.json"):
        find_items([tmp_path / "a.tar"])


def test_the_fingerprint_follows_the_file(tmp_path: Path) -> None:
    _touch(tmp_path / "a.mp4")
    item = find_items([tmp_path / "a.mp4"])[0]
    before = item.fingerprint()
    assert item.fingerprint() == before
    assert MediaItem(name=item.name, video=item.video, span_s=(0, 1)).fingerprint() != before
    os.utime(tmp_path / "a.mp4", (1, 1))
    touched = item.fingerprint()
    assert touched != before
    (tmp_path / "a.mp4").unlink()
    assert item.fingerprint() not in (before, touched)
    assert MediaItem(name="a", video=b"x").fingerprint() != MediaItem(name="a", video=b"y").fingerprint()


def test_a_link_to_nothing_is_a_clip_that_is_missing_and_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    _touch(folder / "a.mp4", folder / "z.3gp", tmp_path / "elsewhere/b.mp4")
    (folder / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    (folder / "circle.mp4").symlink_to("circle.mp4")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    names = ["a.mp4", "circle.mp4", "gone.mp4", "linked/b.mp4", "z.3gp"]
    found = find_items([folder])
    assert [item.name for item in found] == [str(folder / name) for name in names]
    assert [item.name for item in find_items([f"{folder}/*.mp4"])] == [str(folder / name) for name in names[:3]]
    with pytest.raises(DecodeError) as failed, read_windows(found[2], InputSpec()):
        pass
    assert failed.value.reason == "missing_file"
    with (
        pytest.raises(DecodeError, match=r"^clip7: /nothing cannot be read"),
        read_windows(MediaItem(name="clip7", video=Path("/nothing")), InputSpec()),
    ):
        pass


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path / "a.mp4", tmp_path / "locked/b.mp4")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # tests may run as root, who reads everything
    with pytest.raises(PermissionError, match="locked"):
        find_items([tmp_path])


def test_names_are_text_where_those_of_files_are_not(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff\xc3\xbc.mp4"))
    _touch(path)
    (item,) = find_items([tmp_path, path])
    assert (item.name, item.video) == (rf"{tmp_path}/bad\udcffü.mp4", path)
