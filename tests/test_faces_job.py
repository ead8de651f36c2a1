"""``hicmae faces``: manifest in, manifest of face clips out; killed and started again, it goes on where it was."""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.face_clips import Actor, collins, hopper, restless, write_clip
from hicmae.cli import main
from hicmae.cli.faces import add_arguments
from hicmae.data.manifest import Clip, read_manifest, write_manifest
from hicmae.faces import FaceTracker
from hicmae.faces import job as job_module
from hicmae.faces.job import write_faces
from hicmae.media.probe import probe
from tests.media_files import make_clip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of five clips: two parts of one file, one of two people, one of noise, one without a picture."""
    folder = tmp_path_factory.mktemp("corpus")
    actor = Actor(photo=hopper(), motion=restless(320, 180, side=70))
    write_clip(folder / "one.mp4", [actor], seconds=2.0, width=320, height=180)
    left, right = restless(160, 180, side=50, still=True), restless(480, 180, side=52, still=True)
    people = [Actor(photo=hopper(), motion=left), Actor(photo=collins(), motion=right)]
    write_clip(folder / "two.mp4", people, seconds=0.8, width=320, height=180)
    make_clip(folder / "noise.mp4", seconds=1.0, time_code=False, size=(160, 96))
    make_clip(folder / "voice.m4a", seconds=1.0, with_video=False)
    rows = [
        Clip(
            clip_id="early", video=folder / "one.mp4", end_s=0.8, subject="s1", split="train", labels={"emotion": "sad"}
        ),
        Clip(
            clip_id="late", video=folder / "one.mp4", start_s=1.0, audio=folder / "voice.m4a", labels={"valence": 0.5}
        ),
        Clip(clip_id="two", video=folder / "two.mp4", square=(0, 160, 160), labels={"label:task": "x"}),
        Clip(clip_id="noise", video=folder / "noise.mp4"),
        Clip(clip_id="voice", audio=folder / "voice.m4a"),
    ]
    return write_manifest(folder / "all.csv", rows)


def stamps(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (folder / "faces").iterdir()}


def test_from_manifest_to_manifest(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["faces", str(corpus), str(out), "--size", "64", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "3 face clips in" in said
    assert "no_face: 1" in said
    manifest = read_manifest(out / "manifest.csv")
    first, second, third = manifest.clips
    assert first == Clip(clip_id="early", video=out / "faces" / "early.mp4", subject="s1", split="train",
                         labels={"emotion": "sad"})  # fmt: skip
    assert (second.audio, second.start_s, second.labels) == (None, None, {"valence": 0.5})
    assert (third.square, third.labels) == (None, {"label:task": "x"})
    for clip, seconds, sound in ((first, 0.8, False), (second, 1.0, True), (third, 0.8, False)):
        assert clip.video is not None
        info = probe(clip.video, name=clip.clip_id)
        assert (info.width, info.height, info.has_audio) == (64, 64, sound)
        assert info.duration_s == pytest.approx(seconds, abs=0.05)
    with (out / "rejects.csv").open(encoding="utf-8") as file:
        rejects = list(csv.DictReader(file))
    assert [(row["id"], row["reason"]) for row in rejects] == [("noise", "no_face"), ("voice", "no_video_stream")]
    assert "noise.mp4: a face in 0 of the" in rejects[0]["detail"]
    sheet = np.asarray(Image.open(out / "sheet.png").convert("RGB"))
    assert len(sheet) == 3 * (14 + 120 + 6) + 6
    assert (sheet == (0, 255, 0)).all(2).sum() > 9 * 100  # outlines of nine squares

    # again: nothing is done twice, and what is gone or has changed is done anew
    before = stamps(out)
    assert main(["faces", str(corpus), str(out), "--size", "64", "--workers", "1"]) == 0
    assert "5 clips were finished before" in capsys.readouterr().out
    assert stamps(out) == before
    (out / "faces" / "late.mp4").unlink()
    (out / "manifest.csv").unlink()
    assert main(["faces", str(corpus), str(out), "--size", "64", "--workers", "1"]) == 0
    assert "4 clips were finished before" in capsys.readouterr().out
    after = stamps(out)
    assert {name for name in after if after[name] != before[name]} == {"late.mp4"}
    assert read_manifest(out / "manifest.csv").clips == manifest.clips

    # with other settings: refused, by name
    assert main(["faces", str(corpus), str(out), "--size", "64", "--margin", "0.5"]) == 2
    assert "made with other settings (margin: 0.3 there, 0.5 now)" in capsys.readouterr().err
    assert stamps(out) == after


def test_processes_make_the_same(corpus: Path, tmp_path: Path) -> None:
    early, *_, voice = read_manifest(corpus).clips
    manifest = read_manifest(write_manifest(tmp_path / "two.csv", [replace(early, end_s=0.2), voice]))
    here = write_faces(manifest, tmp_path / "one", size=64)
    there = write_faces(manifest, tmp_path / "two", size=64, workers=2)
    assert there.rejected == here.rejected
    assert [clip.clip_id for clip in there.clips] == ["early"]
    for name in ("faces/early.mp4", "parts/early.json", "parts/voice.json", "rejects.csv", "sheet.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_a_run_that_dies_leaves_what_was_finished(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(corpus)
    whole = write_faces(manifest, tmp_path / "whole", size=64)
    make: Callable = job_module.make_face_clip
    made: list[str] = []

    def dies_at_the_third(task: object) -> object:
        if len(made) == 2:
            (tmp_path / "broken" / "faces" / ".two.mp4.1.tmp").write_bytes(b"as if killed")
            raise MemoryError
        made.append(task.clip.clip_id)  # type: ignore[attr-defined]
        return make(task)

    monkeypatch.setattr(job_module, "make_face_clip", dies_at_the_third)
    with pytest.raises(MemoryError):
        write_faces(manifest, tmp_path / "broken", size=64)
    assert not (tmp_path / "broken" / "manifest.csv").exists()
    assert list((tmp_path / "broken").rglob("*.tmp"))
    monkeypatch.setattr(job_module, "make_face_clip", make)
    report = write_faces(manifest, tmp_path / "broken", size=64)
    assert (made, report.already_done) == (["early", "late"], 2)
    assert report.rejected == whole.rejected
    for name in ("faces/early.mp4", "faces/late.mp4", "faces/two.mp4", "manifest.csv", "rejects.csv", "sheet.png"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list((tmp_path / "broken").rglob("*.tmp"))


def test_a_clip_whose_file_has_changed_is_done_again(corpus: Path, tmp_path: Path) -> None:
    video = tmp_path / "two.mp4"
    shutil.copyfile(corpus.parent / "two.mp4", video)
    manifest = read_manifest(write_manifest(tmp_path / "a.csv", [Clip(clip_id="two", video=video, end_s=0.4)]))
    assert write_faces(manifest, tmp_path / "out", size=32).already_done == 0
    assert write_faces(manifest, tmp_path / "out", size=32).already_done == 1
    os.utime(video)
    assert write_faces(manifest, tmp_path / "out", size=32).already_done == 0
    longer = read_manifest(write_manifest(tmp_path / "b.csv", [Clip(clip_id="two", video=video)]))
    assert write_faces(longer, tmp_path / "out", size=32).already_done == 0
    make_clip(video, seconds=1.0, time_code=False)  # the face is gone, and its clip with it
    report = write_faces(longer, tmp_path / "out", size=32)
    assert [reject.reason for reject in report.rejected] == ["no_face"]
    assert sorted(file.name for file in (tmp_path / "out").rglob("*") if file.is_file()) == [
        ".lock", "faces.json", "rejects.csv", "two.json"
    ]  # fmt: skip


def test_two_people_are_counted_and_a_corpus_without_a_face_is_a_failure(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = write_manifest(tmp_path / "two.csv", [Clip(clip_id="two", video=corpus.parent / "two.mp4")])
    assert main(["faces", str(people), str(tmp_path / "a"), "--workers", "1"]) == 0
    assert "1 clips show another face that is about as large and as central: two" in capsys.readouterr().out
    assert main(["faces", str(people), str(tmp_path / "b"), "--workers", "1", "--region", "0,0,1,0.5"]) == 0
    assert "show another face" not in capsys.readouterr().out
    noise = write_manifest(tmp_path / "noise.csv", [Clip(clip_id="noise", video=corpus.parent / "noise.mp4")])
    assert main(["faces", str(noise), str(tmp_path / "c"), "--workers", "1"]) == 1
    assert "every clip was rejected" in capsys.readouterr().out
    assert not (tmp_path / "c" / "manifest.csv").exists()


def test_what_a_user_can_get_wrong(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["faces", str(corpus), str(tmp_path), "--model", str(tmp_path / "x.onnx")]) == 2
    assert "x.onnx: no such model file" in capsys.readouterr().err
    assert main(["faces", str(corpus), str(corpus.parent), "--region", "0,0,2,1"]) == 2
    assert "region (0.0, 0.0, 2.0, 1.0) is not one" in capsys.readouterr().err
    write_manifest(tmp_path / "manifest.csv", [Clip(clip_id="a", video=corpus.parent / "two.mp4")])
    assert main(["faces", str(corpus), str(tmp_path)]) == 2
    assert "holds a manifest.csv that this command did not write" in capsys.readouterr().err
    manifest = read_manifest(corpus)
    with pytest.raises(ValueError, match="detector given by name"):
        write_faces(manifest, tmp_path / "new", tracker=FaceTracker(detector=object()))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(["faces", str(corpus), str(tmp_path / "new")]) == 2
    assert "pip install 'hicmae[faces]'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_page_about_faces_names_each_option_with_its_default() -> None:
    page = (Path(__file__).parent.parent / "docs" / "faces.md").read_text(encoding="utf-8")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    named = dict(re.findall(r"^\| `(--[a-z-]+)` \| `?([^|`]+?)`? \|", page, flags=re.MULTILINE))
    words = {"--model": "installed", "--region": "all", "--workers": "all cores"}
    options = {action.option_strings[0]: action.default for action in parser._actions if action.dest not in (
        "help", "manifest", "out")}  # fmt: skip
    assert named == {option: words.get(option, str(default)) for option, default in options.items()}
    tracker = FaceTracker()
    assert (tracker.detector, tracker.margin, tracker.every, tracker.min_share, tracker.smooth_s) == tuple(
        options[f"--{name}"] for name in ("detector", "margin", "every", "min-share", "smooth-s")
    )
