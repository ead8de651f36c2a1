"""The cards of MAFW, DFEW, MER2023, AVCAffe and Werewolf-XL, each against its corpus in miniature."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hicmae.benchmarks import card
from hicmae.benchmarks.card import Card, Native
from hicmae.benchmarks.mafw import COMPOUND, SINGLE
from tests import native_trees as wild
from tests.native_trees import WILD as BUILDERS
from tests.native_trees import put, put_frames
from tests.native_trees import write_lines as write

Row = dict[str, Any]

NAMES = sorted(BUILDERS)


@pytest.fixture(params=NAMES)
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Card, Path, list[Row]]:
    return card(request.param), tmp_path, rows_of(BUILDERS[request.param](tmp_path), tmp_path)


def rows_of(native: Native, root: Path) -> list[dict[str, Any]]:
    """Clips as rows of a manifest, without empty columns, paths relative to the root."""
    rows = []
    for found in native.clips:
        clip = found.clip
        row = {
            "clip_id": clip.clip_id, "subject": clip.subject, "split": clip.split,
            "video": clip.video and str(clip.video.relative_to(root)),
            "audio": clip.audio and str(clip.audio.relative_to(root)),
        } | clip.labels  # fmt: skip
        rows.append({column: value for column, value in row.items() if value not in ("", None)})
    return rows


def reasons(native: Native) -> dict[str, str]:
    assert all(reject.detail for reject in native.rejects)
    assert len({reject.clip_id for reject in native.rejects}) == len(native.rejects)
    return {reject.clip_id: reject.reason for reject in native.rejects}


def edit(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text(encoding="utf-8")
    after = change(before)
    assert after != before
    path.write_text(after, encoding="utf-8")


# All of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_tree_is_read_to_the_row(name: str, tmp_path: Path) -> None:
    expected = BUILDERS[name](tmp_path)
    native = card(name).read(tmp_path)
    assert rows_of(native, tmp_path) == rows_of(expected, tmp_path)
    assert native == expected
    for found in native.clips:
        card(name).labels.encode(found.clip.labels, clip_id=found.clip.clip_id)


@pytest.mark.parametrize("name", NAMES)
def test_another_folder_is_refused_with_what_was_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder; --root takes the folder of"):
        card(name).read(tmp_path / "nowhere")
    (tmp_path / "holiday.txt").write_text("sun")
    with pytest.raises(FileNotFoundError, match=r"is not .*: looked for .*; found holiday.txt") as raised:
        card(name).read(tmp_path)
    assert card(name).title.split()[0].rstrip(",") in str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_labels_without_media_are_not_the_corpus(name: str, tmp_path: Path) -> None:
    BUILDERS[name](tmp_path)
    for file in [*tmp_path.rglob("*.mp4"), *tmp_path.rglob("*.avi"), *tmp_path.rglob("*.jpg")]:
        file.unlink()
    # MER2023's own folders are still there, so its clips are missed by name
    kind = ValueError if name == "mer2023" else FileNotFoundError
    with pytest.raises(
        kind, match=r"looked for|none of 14 clips can be used; the first is sample_00000000: missing_video"
    ):
        card(name).read(tmp_path)


def test_missing_file_is_a_reject(corpus: tuple[Card, Path, list[Row]]) -> None:
    own, root, expected = corpus
    gone = expected[3]
    (root / gone["video"]).unlink()
    native = own.read(root)
    if own.name == "avcaffe":  # clips are what there is; its task has another one
        assert reasons(native) == {}
    else:
        assert reasons(native) == {gone["clip_id"]: "missing_video"}
    assert rows_of(native, root) == [row for row in expected if row is not gone]


def test_two_files_of_one_name_are_a_reject(corpus: tuple[Card, Path, list[Row]]) -> None:
    own, root, expected = corpus
    twice = root / expected[2]["video"]
    put(twice.parent / "again" / twice.name)
    native = own.read(root)
    assert reasons(native) == {expected[2]["clip_id"]: "duplicate_clip"}
    assert str(twice) in native.rejects[0].detail
    assert len(native.clips) == len(expected) - 1


def test_extensions_in_any_case_and_hidden_files(corpus: tuple[Card, Path, list[Row]]) -> None:
    own, root, expected = corpus
    video = root / expected[0]["video"]
    video.rename(video.with_suffix(video.suffix.upper()))
    put(video.parent / f"._{video.name}")
    native = own.read(root)
    assert native.rejects == ()
    assert rows_of(native, root)[0]["video"] == str(video.with_suffix(video.suffix.upper()).relative_to(root))
    assert sum(native.left_out.values()) <= 1


def test_cropped_faces_take_the_place_of_the_picture(corpus: tuple[Card, Path, list[Row]]) -> None:
    own, root, expected = corpus
    for row in expected[1:]:
        put_frames(root / "faces" / row["clip_id"])
    native = own.read(root)
    assert reasons(native) == {expected[0]["clip_id"]: "missing_faces"}
    assert rows_of(native, root) == [
        row | {"video": f"faces/{row['clip_id']}", "audio": row["video"]} for row in expected[1:]
    ]


def test_folders_of_figures_are_no_frames(corpus: tuple[Card, Path, list[Row]]) -> None:
    own, root, expected = corpus
    for place in (root, (root / expected[0]["video"]).parent):
        put_frames(place / "figures")
    assert rows_of(own.read(root), root) == expected


# MAFW ------------------------------------------------------------------------------------------------------------


def test_mafw_classes() -> None:
    assert len(SINGLE) == 11
    assert len(card("mafw_compound").labels.classes["emotion"]) == 43
    for name in COMPOUND:
        parts = name.split("_")
        assert 2 <= len(parts) <= 3
        assert sorted(parts, key=SINGLE.index) == parts


def test_mafw_frames_with_the_sound_of_the_videos(tmp_path: Path) -> None:
    expected = rows_of(wild.build_mafw_frames(tmp_path), tmp_path)
    assert rows_of(card("mafw").read(tmp_path), tmp_path) == expected
    # a sound file comes before the video; without either there is no clip
    put(tmp_path / "data" / "audio_16k" / "00025.wav")
    (tmp_path / expected[1]["audio"]).unlink()
    native = card("mafw").read(tmp_path)
    assert reasons(native) == {"00026": "missing_audio"}
    assert rows_of(native, tmp_path)[0]["audio"] == "data/audio_16k/00025.wav"


def test_mafw_one_folder_deeper_and_without_data(tmp_path: Path) -> None:
    expected = rows_of(wild.build_mafw(tmp_path), tmp_path)
    (tmp_path / "train_test_set").mkdir()
    (tmp_path / "Train & Test Set").rename(tmp_path / "train_test_set" / "Train & Test Set")
    (tmp_path / "data" / "clips").rename(tmp_path / "clips")
    (tmp_path / "data").rmdir()
    found = rows_of(card("mafw").read(tmp_path), tmp_path)
    assert found == [row | {"video": row["video"].removeprefix("data/")} for row in expected]


def test_mafw_without_lists_of_a_view(tmp_path: Path) -> None:
    wild.build_mafw(tmp_path)
    with pytest.raises(FileNotFoundError, match="looked for Train & Test Set/compound/no_caption"):
        card("mafw_compound").read(tmp_path)


def test_folds_that_contradict_themselves(tmp_path: Path) -> None:
    """Clip i is tested in fold i % 5 + 1; each edit below breaks one rule for one clip."""
    expected = rows_of(wild.build_mafw(tmp_path), tmp_path)
    lists = tmp_path / "Train & Test Set" / "single" / "no_caption"

    def add(name: str, line: str) -> None:
        edit(lists / name, lambda text: f"{text}{line}\n")

    add("set_2/test.txt", "00025.mp4 anger")  # also tested in fold 1
    edit(lists / "set_2/train.txt", lambda text: text.replace("00025.mp4 anger\n", ""))
    add("set_2/train.txt", "00026.mp4 disgust")  # tested in fold 2
    edit(lists / "set_4/train.txt", lambda text: text.replace("00027.mp4 fear\n", ""))
    edit(lists / "set_4/test.txt", lambda text: text.replace("00028.mp4 happiness\n", ""))
    edit(lists / "set_1/train.txt", lambda text: text.replace("00029.mp4 neutral", "00029.mp4 anger"))
    add("set_1/test.txt", "00030.mp4 sadness")
    edit(lists / "set_1/test.txt", lambda text: text.replace("00035.mp4 disappointment", "00035.mp4 joy"))
    for k in (2, 3, 4, 5):
        edit(lists / f"set_{k}/train.txt", lambda text: text.replace("00035.mp4 disappointment", "00035.mp4 joy"))
    native = card("mafw").read(tmp_path)
    assert reasons(native) == {
        "00025": "two_test_folds",
        "00026": "in_training_and_test",
        "00027": "not_in_training",
        "00028": "no_test_fold",
        "00029": "conflicting_labels",
        "00030": "duplicate_clip",
        "00035": "unknown_label",
    }
    details = {reject.clip_id: reject.detail for reject in native.rejects}
    assert details["00025"] == "the test lists of fold 1, 2 name it"
    assert details["00027"] == "neither list of fold 4 names it"
    assert details["00029"] == "the lists call it anger, neutral"
    assert details["00035"] == "'joy' is none of the 11 classes"
    assert rows_of(native, tmp_path) == [row for row in expected if row["clip_id"] not in details]


def test_mafw_list_missing_or_malformed(tmp_path: Path) -> None:
    wild.build_mafw(tmp_path)
    test = tmp_path / "Train & Test Set" / "single" / "no_caption" / "set_3" / "test.txt"
    edit(test, lambda text: f"\n{text}00025 anger\n")
    with pytest.raises(ValueError, match=r"set_3/test.txt, line 5: '00025 anger' is not a clip and its label, such as"):
        card("mafw").read(tmp_path)
    test.unlink()
    with pytest.raises(FileNotFoundError, match=r"set_3/test.txt: the list of fold 3 is missing; unpack"):
        card("mafw").read(tmp_path)


# DFEW ------------------------------------------------------------------------------------------------------------


def test_dfew_frames_with_sound_files(tmp_path: Path) -> None:
    expected = rows_of(wild.build_dfew_frames(tmp_path), tmp_path)
    native = card("dfew").read(tmp_path)
    assert rows_of(native, tmp_path) == expected
    assert native.rejects == ()
    shutil.rmtree(tmp_path / expected[4]["video"])  # 362 labelled clips have no face pictures
    assert reasons(card("dfew").read(tmp_path)) == {expected[4]["clip_id"]: "missing_faces"}


def test_dfew_tolerates_other_spellings(tmp_path: Path) -> None:
    expected = rows_of(wild.build_dfew(tmp_path), tmp_path)
    for folder in list((tmp_path / "EmoLabel_DataSplit").iterdir()):
        folder.rename(folder.with_name(folder.name.replace("-", "_")))
    (tmp_path / expected[0]["video"]).rename((tmp_path / expected[0]["video"]).with_name("1.mp4"))
    table = tmp_path / "EmoLabel_DataSplit" / "test(single_labeled)" / "set_1.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    found = rows_of(card("dfew").read(tmp_path), tmp_path)
    assert found == [expected[0] | {"video": "Clip/original/data_part_1/1.mp4"}, *expected[1:]]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda text: text + "17;3,\n", r"set_2.csv, line 4: '17;3,' is not the number of a clip and of its label"),
        (lambda text: text + "17,3,1\n", r"set_2.csv, line 4: '17,3,1' is not a row of 2 values; correct the line"),
        (lambda text: text.replace("label", "emotion"), r"set_2.csv has no column 'label'; it has 'video_name', 'emot"),
        (lambda text: "", r"set_2.csv has no column 'video_name', 'label'; it has none"),
    ],
)
def test_dfew_table_malformed(tmp_path: Path, change: Callable[[str], str], error: str) -> None:
    wild.build_dfew(tmp_path)
    edit(tmp_path / "EmoLabel_DataSplit" / "test(single-labeled)" / "set_2.csv", change)
    with pytest.raises(ValueError, match=error):
        card("dfew").read(tmp_path)


def test_dfew_label_that_is_no_class(tmp_path: Path) -> None:
    wild.build_dfew(tmp_path)
    for table in (tmp_path / "EmoLabel_DataSplit").rglob("*.csv"):
        if "\n17,4\n" in (text := table.read_text()):
            table.write_text(text.replace("\n17,4\n", "\n17,8\n"))
    native = card("dfew").read(tmp_path)
    assert reasons(native) == {"00017": "unknown_label"}
    assert native.rejects[0].detail == "label 8 is not from 1 to 7"


# MER2023 ---------------------------------------------------------------------------------------------------------


def test_mer2023_in_one_folder(tmp_path: Path) -> None:
    expected = rows_of(wild.build_mer2023(tmp_path / "parts"), tmp_path / "parts")
    for path in ("mer2023train/train", "mer2023train/train-label.csv", "test-labels/test1-label.csv",
                 "mer2023test1&2/test1"):  # fmt: skip
        (tmp_path / "parts" / path).rename(tmp_path / Path(path).name)
    shutil.rmtree(tmp_path / "parts")
    found = rows_of(card("mer2023").read(tmp_path), tmp_path)
    folder = {"train": "train", "test": "test1"}
    assert found == [row | {"video": f"{folder[row['split']]}/{row['clip_id']}.avi"} for row in expected]


def test_mer2023_missing_label_file_names_it(tmp_path: Path) -> None:
    wild.build_mer2023(tmp_path)
    (tmp_path / "test-labels" / "test1-label.csv").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"looked for test1-label.csv \(in it or in one of its folders\); found"
    ):
        card("mer2023").read(tmp_path)


def test_mer2023_rows_that_cannot_be_used(tmp_path: Path) -> None:
    expected = rows_of(wild.build_mer2023(tmp_path), tmp_path)
    table = tmp_path / "test-labels" / "test1-label.csv"
    edit(
        table,
        lambda text: (
            text.replace("sample_00000009,sad,0.25", "sample_00000009,bored,0.25").replace(
                "sample_00000010,worried,0.5", "sample_00000010,Worried,"
            )
            + "sample_00000003,sad,0\n"
        ),  # a training clip: it is not tested as well
    )
    native = card("mer2023").read(tmp_path)
    assert reasons(native) == {"sample_00000009": "unknown_label", "sample_00000003": "duplicate_clip"}
    assert "test1-label.csv, line 3: 'bored' is none of neutral, angry" in native.rejects[1].detail
    without_valence = {column: value for column, value in expected[10].items() if column != "valence"}
    assert rows_of(native, tmp_path) == [*expected[:9], without_valence, *expected[11:]]


# AVCAffe ---------------------------------------------------------------------------------------------------------


def test_avcaffe_averages_over_tasks_and_has_two_columns(tmp_path: Path) -> None:
    own = card("avcaffe")
    rows = rows_of(wild.build_avcaffe(tmp_path), tmp_path)
    assert own.average_over == "label:task"
    assert set(own.labels.classes) == {"label:arousal", "label:valence"}
    clips = [found.clip for found in own.read(tmp_path).clips]
    by_task = Counter(str(clip.labels["label:task"]) for clip in clips)
    assert set(by_task.values()) == {2}
    assert {clip.subject for clip in clips if clip.split == "test"} == {"aiim001", "aiim108"}
    assert len({row["subject"] for row in rows}) == 7


def test_avcaffe_faces_where_its_zips_put_them(tmp_path: Path) -> None:
    expected = rows_of(wild.build_avcaffe(tmp_path), tmp_path)
    for row in expected:
        name = row["clip_id"]
        inner = Path("shorter_segments_face", row["subject"], name[8:14], name)
        folder = tmp_path / "face_crops" / "shorter_segments_face" / name[:14] / name / inner
        put_frames(folder)
        row |= {"audio": row["video"], "video": str(folder.relative_to(tmp_path))}
    native = card("avcaffe").read(tmp_path)
    assert rows_of(native, tmp_path) == expected
    assert native.rejects == ()


def test_avcaffe_labels_that_cannot_be_used(tmp_path: Path) -> None:
    expected = rows_of(wild.build_avcaffe(tmp_path), tmp_path)
    truths = tmp_path / "ground_truths"
    edit(truths / "arousal.txt", lambda text: text.replace("aiim003_task_1, Dull", "aiim003_task_1, Bored"))
    edit(truths / "valence.txt", lambda text: text.replace("aiim004_task_2, ", "aiim099_task_7, "))
    edit(truths / "arousal.txt", lambda text: f"task level\n{text}".replace("task_2, Neutral", "task_2,  neutral "))
    put(tmp_path / "videos" / "shorter_segments" / "aiim001" / "task_1" / "intro.avi")
    native = card("avcaffe").read(tmp_path)
    assert reasons(native) == {
        "aiim003_task_1_clip_001": "unknown_label",
        "aiim003_task_1_clip_002": "unknown_label",
        "aiim004_task_2_clip_001": "no_label",
        "aiim004_task_2_clip_002": "no_label",
        "aiim099_task_7": "missing_video",
        "intro": "unknown_name",
    }
    rejected = {reject.clip_id for reject in native.rejects}
    assert rows_of(native, tmp_path) == [row for row in expected if row["clip_id"] not in rejected]


def test_avcaffe_files_that_cannot_be_used(tmp_path: Path) -> None:
    wild.build_avcaffe(tmp_path)
    arousal = tmp_path / "ground_truths" / "arousal.txt"
    edit(arousal, lambda text: f"{text}aiim001 task 3, Calm\n")
    with pytest.raises(ValueError, match=r"arousal.txt, line 15: 'aiim001 task 3, Calm' is not a task and its level"):
        card("avcaffe").read(tmp_path)
    edit(arousal, lambda text: text.replace("aiim001 task 3, Calm", "aiim001_task_1, Calm"))
    with pytest.raises(ValueError, match=r"line 15: .* is not the level that aiim001_task_1 had in an earlier line"):
        card("avcaffe").read(tmp_path)
    arousal.unlink()
    with pytest.raises(FileNotFoundError, match=r"arousal.txt: no such label file; unpack the labels"):
        card("avcaffe").read(tmp_path)


def test_avcaffe_division_is_held_against_the_known_one(tmp_path: Path) -> None:
    expected = rows_of(wild.build_avcaffe(tmp_path), tmp_path)
    edit(tmp_path / "info" / "val.txt", lambda text: text.replace("aiim108", "aiim007"))
    with pytest.raises(ValueError, match=r"info/val.txt: .* not in both: aiim007, aiim108; .*unpack the file again"):
        card("avcaffe").read(tmp_path)
    shutil.rmtree(tmp_path / "info")
    assert rows_of(card("avcaffe").read(tmp_path), tmp_path) == expected


# Werewolf-XL -----------------------------------------------------------------------------------------------------

LOG = (
    "Round,Sessions,No,Name,Age,Gender,Times_1,Times_2,Times_3,All",
    "1,6,1,A. Player,21,f,1-01,7-04,,2",
    "1,6,4,B. Player,22,m,1-04,,,1",
    "7,9,4,A. Player,21,f,1-01,7-04,,2",
)


def test_werewolf_people_of_the_participation_log(tmp_path: Path) -> None:
    expected = rows_of(wild.build_werewolf_xl(tmp_path), tmp_path)
    write(tmp_path / "Final_results_0620_1721.csv", LOG)
    found = rows_of(card("werewolf_xl").read(tmp_path), tmp_path)
    assert found == [row | {"subject": {"07_04": "01_01"}.get(row["subject"], row["subject"])} for row in expected]
    assert not any("Player" in str(row) for row in found)
    assert card("werewolf_xl").shared_subjects

    write(tmp_path / "Final_results_0620_1721.csv", [*LOG, "9,9,1,C. Player,20,f,7-04,9-01,,2"])
    with pytest.raises(ValueError, match=r"line 5: '7-04, 9-01' is not the same person throughout: 07_04 was 01_01"):
        card("werewolf_xl").read(tmp_path)
    write(tmp_path / "Final_results_0620_1721.csv", [*LOG, "9,9,1,C. Player,20,f,9/01,,,1"])
    with pytest.raises(ValueError, match=r"line 5: '9/01' is not a session and a seat, such as '5-04'"):
        card("werewolf_xl").read(tmp_path)


def test_werewolf_own_table_and_aligned_faces(tmp_path: Path) -> None:
    rows = []
    for name in ("01_01_1", "30_09_12"):
        put_frames(tmp_path / "openface" / name / f"{name}_aligned", "frame_det_00_{n:06d}.png")
        write(tmp_path / "openface" / name / f"{name}.csv", ["frame, face_id", "1, 0"])
        put(tmp_path / "audio_16k" / f"{name}.wav")
        rows.append(
            {
                "clip_id": name, "video": f"openface/{name}/{name}_aligned", "audio": f"audio_16k/{name}.wav",
                "subject": name[:5], "split": {"01": "fold1", "30": "fold5"}[name[:2]], "valence": 0.5,
                "arousal": -1.0, "dominance": 2.0,
            }
        )  # fmt: skip
    write(tmp_path / "labels.csv", ["videoname,dominance,arousal,valence", "01_01_1,2,-1,.5", "30_09_12,2,-1,0.5"])
    native = card("werewolf_xl").read(tmp_path)
    assert rows_of(native, tmp_path) == rows
    assert native.rejects == ()


def test_werewolf_rows_that_cannot_be_used(tmp_path: Path) -> None:
    expected = rows_of(wild.build_werewolf_xl(tmp_path), tmp_path)
    table = tmp_path / "Labels" / "Speaker_202103.csv"
    added = ["31_01_5,,0,0,0,speaker", "clip7,,0,0,0,speaker", "02_01_5,,0,x,0,speaker", "02_01_6,,0,0,2.5,speaker"]
    edit(table, lambda text: text + "\n".join(added) + "\n")
    # the same values in a second table are the same label; others are a contradiction
    write(
        tmp_path / "PAD.CSV",
        ["VideoName,Mean_P,Mean_A,Mean_D", "01_01_128,-0.75,0.5,0.25", "01_04_128,-0.75,0.5,0.25"],
    )
    native = card("werewolf_xl").read(tmp_path)
    assert reasons(native) == {
        "31_01_5": "unknown_name",
        "clip7": "unknown_name",
        "02_01_5": "unknown_label",
        "02_01_6": "unknown_label",
        "01_04_128": "conflicting_labels",
    }
    details = {reject.clip_id: reject.detail for reject in native.rejects}
    assert "Speaker_202103.csv, line 25: arousal is not a number" in details["02_01_5"]
    assert details["02_01_6"].endswith("dominance is 2.5; it goes from -2 to 2")
    assert "PAD.CSV, line 3" in details["01_04_128"]
    assert rows_of(native, tmp_path) == [row for row in expected if row["clip_id"] != "01_04_128"]


def test_werewolf_table_of_a_chinese_windows(tmp_path: Path) -> None:
    expected = rows_of(wild.build_werewolf_xl(tmp_path), tmp_path)
    table = tmp_path / "Labels" / "Speaker_202103.csv"
    table.write_bytes(table.read_text(encoding="utf-8").encode("gb18030"))
    assert rows_of(card("werewolf_xl").read(tmp_path), tmp_path) == expected
