from __future__ import annotations

from pathlib import Path

import pytest

from hicmae.cli import main
from hicmae.data.manifest import read_manifest
from hicmae.data.tree import scan_tree

CLIPS = ("id00012/21Uxsk56VDQ/00001", "id00012/2DLq_Kkc1r8/00016", "id09272/u7VNkYraCw0/00027")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


@pytest.fixture
def vox2(tmp_path: Path) -> Path:
    """A miniature of VoxCeleb2's folders."""
    root = tmp_path / "vox2" / "dev"
    touch(root / "mp4", *(f"{clip}.mp4" for clip in CLIPS))
    touch(root / "aac", *(f"{clip}.m4a" for clip in CLIPS))
    return root


def test_two_trees_are_paired_by_path(vox2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "vox2" / "dev.csv"
    command = ["manifest", "tree", str(out), "--video", str(vox2 / "mp4"), "--audio", str(vox2 / "aac")]
    assert main([*command, "--subject-level", "1", "--split", "train"]) == 0
    assert capsys.readouterr().out == f"{out}: 3 clips of 2 subjects\n"
    manifest = read_manifest(out)
    assert [clip.clip_id for clip in manifest.clips] == [clip.replace("/", "_") for clip in CLIPS]
    assert [clip.subject for clip in manifest.clips] == ["id00012", "id00012", "id09272"]
    assert {clip.split for clip in manifest.clips} == {"train"}
    for clip, name in zip(manifest.clips, CLIPS, strict=True):
        assert clip.video == vox2 / "mp4" / f"{name}.mp4"
        assert clip.audio == vox2 / "aac" / f"{name}.m4a"
    assert f"dev/mp4/{CLIPS[0]}.mp4" in out.read_text()  # relative: the folder can be moved


def test_a_manifest_elsewhere_holds_whole_paths(vox2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["manifest", "tree", "lists/dev.csv", "--video", "vox2/dev/mp4"]) == 0
    clips = read_manifest("lists/dev.csv").clips
    assert clips[0].video == vox2 / "mp4" / f"{CLIPS[0]}.mp4"
    assert clips[0].audio is None


def test_what_is_missing_or_foreign_is_told(vox2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (vox2 / "aac" / f"{CLIPS[1]}.m4a").unlink()
    touch(vox2 / "aac", "id1/x/00009.m4a")
    touch(vox2 / "mp4", "readme.txt", "id00012/21Uxsk56VDQ/._00001.mp4", "id00012/more.txt")
    tree = scan_tree(vox2 / "mp4", vox2 / "aac")
    assert tree.without_sound == ("id00012_2DLq_Kkc1r8_00016",)
    assert tree.sound_alone == 1
    assert tree.other_files == ((".txt", 2), (".mp4", 1))
    assert len(tree.clips) == 3
    assert main(["manifest", "tree", str(tmp_path / "m.csv"), "--video", str(vox2 / "mp4"), "--audio",
                 str(vox2 / "aac")]) == 0  # fmt: skip
    output = capsys.readouterr().out
    assert "1 have no sound file and are listed without one: id00012_2DLq_Kkc1r8_00016\n" in output
    assert "1 sound files have no picture file" in output
    assert "other files, not listed: 2 .txt, 1 .mp4" in output


def test_sound_alone_makes_clips(vox2: Path) -> None:
    clips = scan_tree(None, vox2 / "aac", subject_level=2).clips
    assert [(clip.video, clip.subject) for clip in clips] == [(None, clip.split("/")[1]) for clip in CLIPS]


def test_odd_names_become_ids(tmp_path: Path) -> None:
    touch(tmp_path, "Anna Müller/take 1.final.MP4")
    assert [clip.clip_id for clip in scan_tree(tmp_path).clips] == ["Anna_M_ller_take_1_final"]


def test_what_makes_no_manifest_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="neither a folder"):
        scan_tree(None)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        scan_tree(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no files that end in mp4"):
        scan_tree(tmp_path)
    touch(tmp_path / "one", "a/b.mp4", "a_b.mp4")
    with pytest.raises(ValueError, match=r"'a_b' and 'a/b' both make the id 'a_b'"):
        scan_tree(tmp_path / "one")
    touch(tmp_path / "two", "a.mp4", "a.mkv")
    with pytest.raises(ValueError, match="differ in their extension alone"):
        scan_tree(tmp_path / "two")
    touch(tmp_path / "three", "x" * 91 + ".mp4")
    with pytest.raises(ValueError, match="91 characters"):
        scan_tree(tmp_path / "three")
    touch(tmp_path / "four", "a.mp4")
    with pytest.raises(ValueError, match="has no folder 1"):
        scan_tree(tmp_path / "four", subject_level=1)
    touch(tmp_path / "five", "a/b/c.mp4")  # counted from the end, -1 would name a subject
    with pytest.raises(ValueError, match="counted from 1"):
        scan_tree(tmp_path / "five", subject_level=-1)
    assert main(["manifest", "tree", str(tmp_path / "m.txt"), "--video", str(tmp_path / "four")]) == 2
    assert "ends in .csv or .parquet" in capsys.readouterr().err
