"""Aff-Wild2's layout and tables of sequences, to the row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hicmae.continuous.labels import FrameLabels, Rows, fit_to_frames, read_rows
from hicmae.continuous.partition import deal_folds
from hicmae.continuous.sequences import Reject, read_affwild2, read_table, recording
from tests.long_videos import write_affwild2

TWO = ("valence", "arousal")
LABELS = "valence,arousal\n0.1,-0.2\n-5,-5\n0.3,0.4\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A corpus in miniature; the videos are names alone."""
    write_affwild2(tmp_path, {
        "Train_Set": {"1-30-1280x720": LABELS, "5-60-1920x1080-1": LABELS, "5-60-1920x1080-2": LABELS,
                      "10-60-1280x720_right": LABELS, "10-60-1280x720": LABELS, "99-30-1280x720": LABELS},
        "Validation_Set": {"video10_1": LABELS},
    })  # fmt: skip
    for name in ("1-30-1280x720", "5-60-1920x1080-1", "5-60-1920x1080-2", "10-60-1280x720"):
        (tmp_path / "batch1").mkdir(exist_ok=True)
        (tmp_path / "batch1" / f"{name}.mp4").touch()
    (tmp_path / "batch2").mkdir()
    (tmp_path / "batch2" / "video10_1.avi").touch()
    (tmp_path / "batch2" / "7-30-640x480.mp4").touch()
    (tmp_path / "test_names.txt").write_text("7-30-640x480\n")
    return tmp_path


def test_affwild2_is_read_to_the_row(tree: Path) -> None:
    found = read_affwild2(tree / "VA_Set", [tree / "batch1", tree / "batch2"], test_names=tree / "test_names.txt")
    rows = [(v.name, v.split, v.subject, v.video.name if v.video else None, v.annotation is not None)
            for v in found.videos]  # fmt: skip
    assert rows == [
        ("1-30-1280x720", "train", "1-30-1280x720", "1-30-1280x720.mp4", True),
        ("10-60-1280x720", "train", "10-60-1280x720", "10-60-1280x720.mp4", True),
        ("5-60-1920x1080-1", "train", "5-60-1920x1080", "5-60-1920x1080-1.mp4", True),
        ("5-60-1920x1080-2", "train", "5-60-1920x1080", "5-60-1920x1080-2.mp4", True),
        ("video10_1", "val", "video10", "video10_1.avi", True),
        ("7-30-640x480", "test", "7-30-640x480", "7-30-640x480.mp4", False),
    ]
    assert {(one.name, one.reason) for one in found.rejects} == {
        ("10-60-1280x720_right", "two_people"),  # without face pictures nobody can tell which of the two
        ("99-30-1280x720", "no_video"),
    }
    assert found.videos[2].frame_rate == 60


def test_affwild2_with_face_pictures(tree: Path) -> None:
    for name in ("1-30-1280x720", "10-60-1280x720_right"):
        (tree / "cropped_aligned" / name).mkdir(parents=True)
    found = read_affwild2(tree / "VA_Set", [tree / "batch1"], faces=tree / "cropped_aligned")
    assert [(v.name, v.faces.name if v.faces else "", v.video.name if v.video else "") for v in found.videos] == [
        ("1-30-1280x720", "1-30-1280x720", "1-30-1280x720.mp4"),
        ("10-60-1280x720_right", "10-60-1280x720_right", "10-60-1280x720.mp4"),
    ]
    assert {one.reason for one in found.rejects} == {"no_faces"}
    assert recording("10-60-1280x720_right") == recording("10-60-1280x720_left") == "10-60-1280x720"


def test_folders_that_are_not_this_layout_are_refused(tree: Path) -> None:
    with pytest.raises(ValueError, match=r"no Train_Set/\*.txt.*but .*VA_Set.*data.annotations"):
        read_affwild2(tree, [tree / "batch1"])
    with pytest.raises(FileNotFoundError, match="no folder of annotations"):
        read_affwild2(tree / "nothing", [])
    with pytest.raises(FileNotFoundError, match="no folder of videos"):
        read_affwild2(tree / "VA_Set", [tree / "batch9"])
    (tree / "batch2" / "1-30-1280x720.mp4").touch()
    with pytest.raises(ValueError, match="two videos of the name 1-30-1280x720"):
        read_affwild2(tree / "VA_Set", [tree / "batch1", tree / "batch2"])
    (tree / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no sequence that can be used \(7 rejected; the first"):
        read_affwild2(tree / "VA_Set", [tree / "empty"])


def test_a_table_of_sequences(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a_x.csv").write_text(LABELS)
    table = tmp_path / "sequences.csv"
    table.write_text("name,video,annotation,subject,split\nax,a.mp4,a_x.csv,x,train\nay,a.mp4,,y,test\n"
                     "b,b.mp4,a_x.csv,z,train\nc,a.mp4,,w,val\n")  # fmt: skip
    found = read_table(table)
    assert [(v.name, v.subject, v.split, v.annotation is not None) for v in found.videos] == [
        ("ax", "x", "train", True), ("ay", "y", "test", False)]  # fmt: skip
    assert [(r.name, r.reason) for r in found.rejects] == [("b", "no_video"), ("c", "no_annotation")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,subject,colour\na.mp4,x,red\n", r"unknown columns \['colour'\]"),
        ("video\na.mp4\n", "needed: subject"),
        ("video,subject,split\na.mp4,x,dev\n", "row 2: split 'dev'"),
        ("video,subject\na.mp4,\n", "row 2: no subject"),
        ("video,subject\na.mp4,x\na.mp4,y\n", "two sequences of the name 'a'"),
        ("video,subject,frame_rate\na.mp4,x,fast\n", "frame_rate 'fast'"),
        ("name,video,subject\n../b,a.mp4,x\n", "no name for a file"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "sequences.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "sequences.csv")


def test_rows_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("valence, arousal\n0.1,-0.2\n-5,-5\n0.3,\n")
    rows = read_rows(path, TWO)
    np.testing.assert_allclose(rows.values, [[0.1, -0.2], [np.nan, np.nan], [0.3, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(read_rows(path, ("arousal",)).values[0], [-0.2], rtol=1e-6)
    path.write_text("frame,valence\n3,0.5\n1,0.2\n")
    numbered = read_rows(path, ("valence",))
    assert numbered.numbered
    np.testing.assert_allclose(numbered.values[:, 0], [0.2, np.nan, 0.5], rtol=1e-6)
    path.write_text('valence\n-5\n""\n9\n')  # on a scale that holds -5, it is a label
    np.testing.assert_allclose(read_rows(path, ("valence",), limits=(-10, 10)).values[:, 0], [-5, np.nan, 9])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.1,0.2\n0.3,0.4\n", "no column valence, arousal; its first line must name them, and is '0.1,0.2'"),
        ("valence,arousal\n0.1,0.2\n1.5,0\n", "line 3: valence is '1.5'"),
        ("valence,arousal\n0.1,happy\n", "line 2: arousal is 'happy'"),
        ("", "no table of labels"),
        ("frame,valence,arousal\n1,0,0\n1,0,0\n", "each once"),
    ],
)
def test_labels_that_cannot_be_used_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_rows(path, TWO)
    with pytest.raises(FileNotFoundError, match="no annotation"):
        read_rows(tmp_path / "b.txt", TWO)


def test_rows_and_frames_that_differ() -> None:
    rows = Rows(values=np.zeros((100, 1), dtype=np.float32))
    exact = fit_to_frames("a", rows, 100)
    assert isinstance(exact, FrameLabels)
    assert exact.note == ""
    fewer = fit_to_frames("a", rows, 103)
    assert isinstance(fewer, FrameLabels)
    assert fewer.values.shape == (103, 1)
    assert fewer.labelled[:, 0].tolist() == [True] * 100 + [False] * 3
    assert fewer.note == "the last 3 of 103 frames have no row, so no label"
    more = fit_to_frames("a", rows, 98)
    assert isinstance(more, FrameLabels)
    assert more.note == "2 rows beyond the last of 98 frames dropped"
    other = fit_to_frames("a", rows, 200)
    assert isinstance(other, Reject)
    assert "100 rows of labels for 200 frames" in other.detail
    assert isinstance(fit_to_frames("a", Rows(values=rows.values, numbered=True), 200), FrameLabels)
    none = fit_to_frames("a", Rows(values=np.full((9, 1), np.nan, dtype=np.float32)), 9)
    assert isinstance(none, Reject)
    assert none.reason == "unlabelled"


def test_folds_share_no_subject_and_are_even() -> None:
    frames = {f"v{n}": 100 + 37 * (n % 5) for n in range(60)}
    subjects = {name: f"s{int(name[1:]) // 2}" for name in frames}
    fold = deal_folds(frames, subjects, 6)
    for subject in set(subjects.values()):
        assert len({fold[name] for name in frames if subjects[name] == subject}) == 1
    sizes = [sum(frames[name] for name in frames if fold[name] == number) for number in range(6)]
    assert max(sizes) - min(sizes) <= 0.15 * max(sizes)
    with pytest.raises(ValueError, match="2 subjects cannot be divided into 6 folds"):
        deal_folds({"a": 1, "b": 1}, {"a": "x", "b": "y"}, 6)
