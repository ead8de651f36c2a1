"""What holds for all cards: names, labels, counts, folds, scores, texts; for all parsers too, on trees in disorder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from finetune.evaluation import Evaluation
from hicmae.benchmarks import CARDS, card
from hicmae.benchmarks.card import Card
from hicmae.metrics import categorical_scores, dimensional_scores
from tests.native_trees import BUILDERS

PUBLISHED: dict[str, dict[str, float]] = {
    "crema_d": {"uar": 0.8491, "war": 0.8489},
    "crema_d_4": {"uar": 0.9400, "war": 0.9413},
    "ravdess": {"uar": 0.8796, "war": 0.8799},
    "msp_improv": {"uar": 0.6578, "war": 0.7495},
    "iemocap": {"uar": 0.6821, "war": 0.6836},
    "mafw": {"uar": 0.4265, "war": 0.5617},
    "mafw_compound": {"uar": 0.1329, "war": 0.3736},
    "dfew": {"uar": 0.6376, "war": 0.7501},
    "mer2023": {"uar": 0.6415, "weighted_f1": 0.7133},
    "avcaffe": {"label:arousal weighted_f1": 0.4318, "label:valence weighted_f1": 0.4420},
    "werewolf_xl": {
        "pcc_arousal": 0.3374, "pcc_valence": 0.6923, "pcc_dominance": 0.4066,
        "ccc_arousal": 0.3185, "ccc_valence": 0.6481, "ccc_dominance": 0.3754,
    },
}  # fmt: skip
"""Of HiCMAE-B with picture and sound, from the paper."""
WORDS = {"angry", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised", "worried"}
LABEL_FILES = {
    "msp_improv": "Evalution.txt",
    "iemocap": "Session3/dialog/EmoEvaluation/Ses03F_impro01.txt",
    "mafw": "Train & Test Set/single/no_caption/set_2/train.txt",
    "mafw_compound": "Train & Test Set/compound/no_caption/set_2/test.txt",
    "dfew": "EmoLabel_DataSplit/test(single-labeled)/set_2.csv",
    "mer2023": "mer2023train/train-label.csv",
    "avcaffe": "ground_truths/valence.txt",
    "werewolf_xl": "Labels/Speaker_202103.csv",
}
"""One of the label files of each corpus that has any."""


@pytest.fixture(params=CARDS)
def own(request: pytest.FixtureRequest) -> Card:
    return card(request.param)


def test_every_name_has_its_card_and_its_corpus_in_miniature(own: Card) -> None:
    assert set(BUILDERS) == set(CARDS)
    assert [name for name in CARDS if card(name) is own] == [own.name]
    with pytest.raises(ValueError, match=rf"no benchmark is called '{own.name}s'; did you mean '{own.name}'\? Known: "):
        card(f"{own.name}s")


def test_labels_are_columns_of_a_manifest_in_shared_words(own: Card) -> None:
    for column, classes in own.labels.classes.items():
        assert column == "emotion" or column.startswith("label:")
        if column == "emotion" and not own.name.startswith("mafw"):
            assert set(classes) <= WORDS
    assert set(own.labels.dimensions) <= {"valence", "arousal", "dominance"}


def test_expected_counts_agree_with_each_other(own: Card) -> None:
    expected = own.expected
    assert expected is not None
    assert expected.source
    for column, counts in expected.classes.items():
        assert tuple(counts) == own.labels.classes[column]
        assert sum(counts.values()) == expected.clips
    splits = [f"fold{fold}" for fold in range(1, own.folds + 1)] or ["train", "test"]
    assert set(expected.splits) <= set(splits)
    if own.folds and expected.splits:
        assert list(expected.splits) == splits
        assert sum(expected.splits.values()) == expected.clips


def test_scores_are_those_of_an_evaluation(own: Card) -> None:
    rng = np.random.default_rng(0)
    names = ("one", "two")
    found = SimpleNamespace(
        categorical=categorical_scores([0, 1, 1], [0, 1, 0], names) if own.labels.classes else None,
        dimensional={name: dimensional_scores(rng.random(9), rng.random(9)) for name in own.labels.dimensions},
    )
    known = set(Evaluation.scalars.fget(found))  # type: ignore[attr-defined]
    assert own.metrics
    assert set(own.metrics) <= known
    for published in own.published:
        assert set(published.scores) <= set(own.metrics)


def test_published_results_are_those_of_the_paper(own: Card) -> None:
    found: dict[str, float] = {}
    for published in own.published:
        assert published.source
        assert published.protocol
        assert all(0 < score < 1 for score in published.scores.values())
        assert published.column in ("", *own.labels.classes)
        if published.method == "HiCMAE-B" and published.modalities == ("video", "audio"):
            found |= {f"{published.column} {name}".strip(): score for name, score in published.scores.items()}
    assert found == PUBLISHED[own.name]


def test_texts_are_written(own: Card) -> None:
    texts = (own.title, own.fold_rule, own.obtain, own.layout, *own.confirmed, *own.unconfirmed)
    assert all(text.strip() == text != "" for text in texts)
    assert own.confirmed
    assert own.unconfirmed
    assert not any(re.search(r"[{}]|\bTODO\b", text) for text in texts)
    assert not any("  " in text for text in texts if text is not own.layout), "two pieces of text with a space too many"
    assert re.search(r"https://|github\.com|\.io|huggingface\.co", own.obtain)
    assert max(map(len, own.layout.splitlines())) <= 120


def test_folds_are_all_there_and_apart(own: Card, tmp_path: Path) -> None:
    BUILDERS[own.name](tmp_path)
    clips = [found.clip for found in own.read(tmp_path).clips]
    splits = {f"fold{fold}" for fold in range(1, own.folds + 1)} or {"train", "test"}
    assert {clip.split for clip in clips} == splits
    homes: dict[str, set[str]] = {}
    for clip in clips:
        own.labels.encode(clip.labels, clip_id=clip.clip_id)
        assert own.average_over is None or own.average_over in clip.labels
        if clip.subject:
            homes.setdefault(clip.subject, set()).add(clip.split)
    assert all(len(home) == 1 for home in homes.values()), "a subject in two splits"
    said = (rf"folds 1 to {own.folds}|fold{own.folds}|fold ?N",) if own.folds else (r"\btrain\b", r"\btest\b")
    assert all(re.search(pattern, own.fold_rule) for pattern in said)


def test_cards_of_one_corpus_read_the_same_folds(tmp_path: Path) -> None:
    BUILDERS["crema_d"](tmp_path)
    all_six = {found.clip.clip_id: found for found in card("crema_d").read(tmp_path).clips}
    for found in card("crema_d_4").read(tmp_path).clips:
        assert found == all_six[found.clip.clip_id]


DISORDER: Mapping[str, Callable[[bytes], bytes]] = {
    "ends of Windows": lambda data: data.replace(b"\n", b"\r\n"),
    "ends of an old Mac": lambda data: data.replace(b"\n", b"\r"),
    "a mark of UTF-8": lambda data: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "blank lines": lambda data: b"\n \n" + data.replace(b"\n", b"  \n\n"),
    "no end": lambda data: data.removesuffix(b"\n"),
}


@pytest.mark.parametrize("name", LABEL_FILES)
def test_label_files_are_read_however_they_were_saved(name: str, tmp_path: Path) -> None:
    expected = BUILDERS[name](tmp_path)
    path = tmp_path / LABEL_FILES[name]
    data = path.read_bytes()
    for what, change in DISORDER.items():
        path.write_bytes(change(data))
        assert card(name).read(tmp_path) == expected, what


@pytest.mark.parametrize("name", LABEL_FILES)
def test_half_a_label_file_is_no_whole_one(name: str, tmp_path: Path) -> None:
    """Cut between two lines, where nothing else would tell."""
    expected = BUILDERS[name](tmp_path)
    path = tmp_path / LABEL_FILES[name]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    refused: list[str] = []
    for kept in (len(lines) // 2, 0):
        path.write_text("".join(lines[:kept]), encoding="utf-8")
        try:
            found = card(name).read(tmp_path)
        except ValueError as error:
            refused.append(str(error))
            continue
        new = sum(max(0, count - expected.left_out.get(reason, 0)) for reason, count in found.left_out.items())
        assert len(found.rejects) + new >= len(expected.clips) - len(found.clips) > 0
    assert all(str(tmp_path) in text for text in refused)


@pytest.mark.parametrize("name", [name for name in LABEL_FILES if name != "werewolf_xl"])
def test_a_missing_label_file_is_named(name: str, tmp_path: Path) -> None:
    BUILDERS[name](tmp_path)
    path = tmp_path / LABEL_FILES[name]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(path.name)):
        card(name).read(tmp_path)


def test_media_that_hold_nothing_are_rejected_one_by_one(own: Card, tmp_path: Path) -> None:
    clips = [found.clip for found in BUILDERS[own.name](tmp_path).clips]
    step = {"iemocap": 5}.get(own.name, 1)  # the utterances of a dialogue share its film
    empty, pointer, dead = (clips[step * number].video for number in range(3))
    assert empty is not None
    assert pointer is not None
    assert dead is not None
    empty.write_bytes(b"")
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 1234\n")
    dead.unlink()
    dead.symlink_to(tmp_path / "disk that is not mounted")
    found = own.read(tmp_path)
    reasons = {empty: "empty_file", pointer: "git_lfs_pointer", dead: "missing_file"}
    expected = {clip.clip_id: reasons[clip.video] for clip in clips if clip.video in reasons}
    assert {reject.clip_id: reject.reason for reject in found.rejects} == expected
    assert len(found.clips) == len(clips) - len(expected)
    details = {reject.reason: reject.detail for reject in found.rejects}
    assert details["empty_file"] == f"{empty} has zero length; download it again"
    assert "run 'git lfs pull'" in details["git_lfs_pointer"]
    assert details["missing_file"] == f"{dead} is a link to nothing; mount what it leads to, or copy the file there"


def test_files_that_are_no_clips_are_counted(own: Card, tmp_path: Path) -> None:
    expected = BUILDERS[own.name](tmp_path)
    video = expected.clips[0].clip.video
    assert video is not None
    video.with_name(f"trailer{video.suffix}").write_bytes(b"film")
    found = own.read(tmp_path)
    assert found.clips == expected.clips
    noted, before = (len(native.rejects) + sum(native.left_out.values()) for native in (found, expected))
    assert noted == before + 1


def test_archives_that_may_hold_more_are_counted(own: Card, tmp_path: Path) -> None:
    expected = BUILDERS[own.name](tmp_path)
    video = expected.clips[0].clip.video
    assert video is not None
    video.with_name("part_2.ZIP").write_bytes(b"PK")
    found = own.read(tmp_path)
    assert found.clips == expected.clips
    assert found.left_out == {**expected.left_out, "archive (not looked into)": 1}


def test_a_folder_faces_without_frames_is_not_passed_over(own: Card, tmp_path: Path) -> None:
    BUILDERS[own.name](tmp_path)
    (tmp_path / "Faces").mkdir()
    with pytest.raises(ValueError, match=r"none of \d+ clips .*missing_faces, no folder .*one called 'faces', every"):
        own.read(tmp_path)
