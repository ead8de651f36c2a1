from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from hicmae.data.manifest import Clip, ManifestError, id_problem, read_manifest, select, write_manifest


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4", "a.wav"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty.mp4").write_bytes(b"")
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_is_written_is_read(media: Path, suffix: str) -> None:
    clips = (
        Clip(clip_id="one", video=media / "a.mp4", audio=media / "a.wav", start_s=0.5, end_s=2.25,
             square=(0, 8, 40), subject="007", split="train",
             labels={"emotion": "happy", "valence": -0.5, "label:culture": "x, y"}),
        Clip(clip_id="two", audio=media / "a.wav", split="test"),
    )  # fmt: skip
    path = write_manifest(media / f"m.{suffix}", clips)
    manifest = read_manifest(path)
    assert manifest.clips == clips
    assert set(manifest.label_columns) == {"emotion", "valence", "label:culture"}
    assert clips[0].span_s == (0.5, 2.25)
    assert clips[1].span_s is None


def test_paths_below_the_manifest_are_relative_and_the_folder_can_move(media: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "v.mp4").write_bytes(b"x")
    write_manifest(folder / "m.csv", [Clip(clip_id="c", video=folder / "v.mp4")])
    moved = folder.rename(tmp_path / "elsewhere")
    assert read_manifest(moved / "m.csv").clips[0].video == moved / "v.mp4"


def test_squares_are_checked(media: Path) -> None:
    rows = "".join(
        f'clip{i},a.mp4,"{text}"\n' for i, text in enumerate(["0, 8,40", "1,2", "0,-1,40", "0,0,0", "a,0,3"])
    )
    with pytest.raises(ManifestError) as error:
        read_manifest(write(media, "clip_id,video,square\n" + rows))
    assert [problem[:6] for problem in error.value.problems] == ["row 3:", "row 4:", "row 5:", "row 6:"]
    assert "square '0,-1,40' is not a square; write top,left,side in pixels" in error.value.problems[1]


def test_all_problems_come_at_once_with_row_value_and_remedy(media: Path) -> None:
    path = write(
        media,
        "clip_id,video,audio,start_s,end_s,split,valence\n"
        "ok,a.mp4,,,,train,0.1\n"
        "ok,b.mp4,,,,train,\n"
        "gone,missing.mp4,,,,train,\n"
        "hollow,empty.mp4,,,,train,\n"
        "backwards,a.mp4,,3,2,train,\n"
        "early,a.mp4,,-1,,train,\n"
        "../../etc/passwd,a.mp4,,,,train,\n"
        "wordy,a.mp4,,,,train,high\n"
        "nothing,,,,,train,\n"
        "short,a.mp4\n",
    )
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    message = str(caught.value)
    expected = [
        (3, "'ok' is already used in row 2", "its own id"),
        (4, "missing.mp4' does not exist", "relative to the manifest"),
        (5, "empty.mp4' has zero length", "drop the row"),
        (6, "end_s 2 is not after start_s 3", "seconds"),
        (7, "start_s '-1' is not a time", "0 or more"),
        (8, "'../../etc/passwd' is not usable", "'etc_passwd'"),
        (9, "valence 'high' is not a number", "leave it empty"),
        (10, "video and audio are both empty", "name at least one"),
        (11, "2 values for 7 columns", "quote values"),
    ]
    assert len(caught.value.problems) == len(expected)
    for (row, what, remedy), line in zip(expected, caught.value.problems, strict=True):
        assert line.startswith(f"row {row}:")
        assert what in line
        assert remedy in line
        assert line in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message  # noqa: S301


def test_unknown_columns_are_named_with_the_known_ones(media: Path) -> None:
    path = write(media, "clip_id,video,emotoin,mood\nc,a.mp4,happy,good\n")
    with pytest.raises(ValueError, match=r"unknown column 'emotoin'.*label:emotoin") as caught:
        read_manifest(path)
    assert "'mood'" in str(caught.value)
    path = write(media, "clip_id,video,label:mood,age\nc,a.mp4,good,young\n")
    assert read_manifest(path, known_labels=["age"]).clips[0].labels == {"label:mood": "good", "age": "young"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file is empty"),
        ("clip_id,video\n", "no rows"),
        ("video\na.mp4\n", "'clip_id' is missing"),
        ("clip_id,split\nc,train\n", "'video' and 'audio' are both missing"),
        ("clip_id,video,video\nc,a.mp4,a.mp4\n", "occurs 2 times"),
        ("clip_id;video\nc;a.mp4\n", "not separated by commas"),
    ],
)
def test_bad_headers(media: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_manifest(write(media, text))


def test_byte_order_mark_blank_lines_and_spaces_are_harmless(media: Path) -> None:
    path = write(media, "\ufeffclip_id, video\n\nc, a.mp4\n,\n")
    assert [clip.clip_id for clip in read_manifest(path).clips] == ["c"]


def test_other_files_are_refused(media: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.csv or \.parquet"):
        read_manifest(media / "a.mp4")
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        read_manifest(media / "gone.csv")
    (media / "torn.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(ValueError, match="not a readable Parquet"):
        read_manifest(media / "torn.parquet")


def test_select_lists_the_splits_there_are(media: Path) -> None:
    manifest = read_manifest(write(media, "clip_id,video,split\na,a.mp4,train\nb,b.mp4,train\nc,a.mp4,\n"))
    assert [clip.clip_id for clip in select(manifest, "train").clips] == ["a", "b"]
    with pytest.raises(ValueError, match=r"split 'test'.*\(empty\) \(1\), train \(2\)"):
        select(manifest, "test")


@pytest.mark.parametrize("clip_id", ["", "a.b", ".hidden", "a/b", "a\\b", "..", "ä", "a b", "x" * 91, "a\n", "a\0"])
def test_unsafe_ids_are_refused(clip_id: str) -> None:
    assert id_problem(clip_id)


@pytest.mark.parametrize("clip_id", ["a", "id00012_21Uxsk56VDQ_00001", "1001_DFA_ANG_XX", "-x-", "x" * 90])
def test_safe_ids_pass(clip_id: str) -> None:
    assert id_problem(clip_id) is None
