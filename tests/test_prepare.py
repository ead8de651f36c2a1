"""``hicmae prepare`` on every benchmark in miniature: manifest, folds, rejects and shards, to the row."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from hicmae.benchmarks import CARDS, card
from hicmae.benchmarks.card import Native
from hicmae.cli import main
from hicmae.data.file_lock import hold_folder
from hicmae.data.manifest import Clip, read_manifest
from hicmae.data.shard_source import ShardSource
from tests import native_trees

BUILDERS = native_trees.BUILDERS
# (top, left, side) of the halves of tests.native_trees.split_screen: 48 rows of a picture of 120 x 80
HALVES = {0.0: (16, 6, 48), 0.5: (16, 66, 48)}


def prepare(name: str, root: Path, out: Path, *more: str) -> int:
    return main(["prepare", name, "--root", str(root), "--out", str(out), "--workers", "1", "--size", "32", *more])


def rejects(out: Path) -> dict[str, str]:
    with (out / "rejects.csv").open(newline="") as file:
        return {row["id"]: row["reason"] for row in csv.DictReader(file)}


def report(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def wanted_rows(native: Native) -> dict[str, Clip]:
    rows = {}
    for found in native.clips:
        square = HALVES[found.region[1]] if found.region else None
        rows[found.clip.clip_id] = replace(found.clip, square=square)
    return rows


def rows_of(out: Path) -> dict[str, Clip]:
    return {
        c.clip_id: replace(c, video=c.video and c.video.resolve(), audio=c.audio and c.audio.resolve())
        for c in read_manifest(out / "manifest.csv").clips
    }


def test_there_is_a_tree_for_every_card() -> None:
    assert set(BUILDERS) == set(CARDS)
    assert len(CARDS) == 11


@pytest.mark.parametrize("name", CARDS)
def test_a_corpus_becomes_manifest_folds_and_shards(name: str, tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    native, known = BUILDERS[name](root), card(name)
    # parts of films are encoded, whose sound takes half of the time
    assert prepare(name, root, out, *(("--audio", "wav") if name == "iemocap" else ())) == 0
    wanted = wanted_rows(native)
    assert rows_of(out) == wanted
    assert rejects(out) == {}
    splits = Counter(clip.split for clip in wanted.values())
    assert set(splits) == ({f"fold{n + 1}" for n in range(known.folds)} if known.folds else {"train", "test"})

    found = report(out)
    assert found["finished"]
    assert {split: counts["clips"] for split, counts in found["usable"]["splits"].items()} == splits
    for column, names in found["usable"]["classes"].items():
        counted = Counter((clip.labels[column], clip.split) for clip in wanted.values())
        assert {(c, s): n for c, counts in names.items() for s, n in counts.items() if n} == counted
    assert found["left_out"] == native.left_out
    assert found["unconfirmed"] == list(known.unconfirmed)
    assert found["usable"]["durations_s"]["clips"] == len(wanted)
    text = (out / "report.md").read_text()
    assert all(line in text for line in known.unconfirmed)

    source = ShardSource(out / "shards")
    assert len(source) == len(wanted)
    for number in range(len(source)):
        info, stored = source.info(number), source.read(number)
        clip = wanted.pop(info.clip_id)
        assert (info.subject, info.split, info.labels) == (clip.subject, clip.split, clip.labels)
        if clip.span_s is None:
            assert clip.video is not None
            assert stored.video == clip.video.read_bytes()
            assert stored.audio == (clip.audio and clip.audio.read_bytes())
        else:  # the part alone, on a clock of its own
            assert stored.span_s is None
            assert len(stored.video or b"") < 100_000
    assert not wanted


def test_counts_that_differ_are_shown_and_strict_fails_before_packing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    native_trees.build_ravdess(root)
    assert prepare("ravdess", root, tmp_path / "out", "--no-shards") == 0
    assert "not the expected counts: clips: 24, expected 1440 (-1416)" in capsys.readouterr().out
    found = report(tmp_path / "out")
    assert {"what": "fold2", "expected": 240, "found": 4} in found["differences"]
    assert not (tmp_path / "out" / "shards").exists()
    assert "not measured" in (tmp_path / "out" / "report.md").read_text()

    assert prepare("ravdess", root, tmp_path / "strict", "--strict") == 1
    assert sorted(path.name for path in (tmp_path / "strict").iterdir()) == ["rejects.csv", "report.json", "report.md"]
    assert not report(tmp_path / "strict")["finished"]


def test_strict_leaves_reports_of_work_that_was_done_and_of_other_corpora(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = _ravdess(tmp_path), tmp_path / "out"
    assert prepare("ravdess", root, out, "--no-shards") == 0
    before = (out / "report.json").read_bytes()
    assert prepare("ravdess", root, out, "--no-shards", "--strict") == 1
    assert (out / "report.json").read_bytes() == before
    native_trees.build_mer2023(tmp_path / "mer")
    capsys.readouterr()
    assert prepare("mer2023", tmp_path / "mer", out, "--strict") == 2
    assert "corpus: 'ravdess' there, 'mer2023' now" in capsys.readouterr().err
    assert (out / "report.json").read_bytes() == before


def test_two_commands_do_not_work_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = _ravdess(tmp_path), tmp_path / "out"
    with hold_folder(out):
        assert prepare("ravdess", root, out, "--no-shards") == 2
        assert f"is being written by process {os.getpid()}" in capsys.readouterr().err
        assert not (out / "manifest.csv").exists()
    assert prepare("ravdess", root, out, "--no-shards") == 0


def test_people_in_several_folds_of_the_corpus_itself_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    native_trees.build_werewolf_xl(root)
    log = "Round,No,Times_1,Times_2\n1,1,1-01,7-04\n7,4,1-01,7-04\n"
    native_trees.write(root / "log.csv", log)
    assert prepare("werewolf_xl", root, out, "--no-shards") == 0
    shared = "1 of 19 speakers occur in two splits: 01_01 (fold1, fold2)"
    assert f"warning: {shared}" in capsys.readouterr().out.replace("\n", " ")
    (warning,) = (text for text in report(out)["warnings"] if "speakers" in text)
    assert warning.startswith(shared)
    assert warning.endswith("these are the corpus's own folds, and its configuration allows it")


def test_what_to_run_next_names_shards_or_files_and_not_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = _ravdess(tmp_path), tmp_path / "out"
    assert prepare("ravdess", root, out, "--no-shards") == 0
    said = capsys.readouterr().out
    assert f"folds --config configs/finetune/ravdess.yaml --data.shards null --data.manifest {out}/manifest.csv" in said
    assert prepare("ravdess", root, out) == 0
    assert f"ravdess.yaml --data.shards '[{out}/shards]'\n" in capsys.readouterr().out


def test_strict_passes_where_all_is_as_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hicmae.benchmarks import mer2023
    from hicmae.benchmarks.card import Expected

    known = replace(
        card("mer2023"), expected=Expected(source="this test", clips=14, splits={"train": 8, "test": 6},
                                           classes={"emotion": {"neutral": 3, "surprised": 2}}),
    )  # fmt: skip
    monkeypatch.setattr(mer2023, "MER2023", known)
    root = tmp_path / "root"
    native_trees.build_mer2023(root)
    assert prepare("mer2023", root, tmp_path / "out", "--strict") == 0
    # a damaged film is found when it is packed, and by then there is a report to look at
    film = root / "mer2023train" / "train" / "sample_00000001.avi"
    film.write_bytes(film.read_bytes()[:3000])
    assert prepare("mer2023", root, tmp_path / "damaged", "--strict") == 1
    assert rejects(tmp_path / "damaged") == {"sample_00000001": "truncated"}
    assert report(tmp_path / "damaged")["differences"] == [
        {"what": "clips", "expected": 14, "found": 13},
        {"what": "train", "expected": 8, "found": 7},
    ]
    assert "sample_00000001" not in rows_of(tmp_path / "damaged")
    assert len(ShardSource(tmp_path / "damaged" / "shards")) == 13


def test_rejects_of_reading_making_and_packing_are_in_one_list(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    native = native_trees.build_mafw_frames(root)
    first, second, third, fourth = (found.clip for found in native.clips[:4])
    (root / "data" / "clips" / f"{first.clip_id}.mp4").write_bytes(b"")  # its sound
    picture = root / "data" / "frames" / second.clip_id / "00003.png"
    picture.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])
    shutil.rmtree(root / "data" / "frames" / third.clip_id)
    for path in sorted((root / "data" / "frames" / fourth.clip_id).iterdir())[2:-1]:
        path.unlink()
    assert prepare("mafw", root, out) == 0
    found = rejects(out)
    assert found == {
        first.clip_id: "empty_file", second.clip_id: "corrupt_frames", third.clip_id: "missing_faces",
        fourth.clip_id: "missing_frames",
    }  # fmt: skip
    assert set(rows_of(out)) == {found.clip.clip_id for found in native.clips[4:]}
    assert report(out)["rejected"] == dict.fromkeys(
        ("empty_file", "missing_faces", "corrupt_frames", "missing_frames"), 1
    )
    text = (out / "report.md").read_text()
    assert "00003.png" in text


def test_what_is_not_the_corpus_and_contradictory_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    (root / "holiday.mp4").write_bytes(b"x")

    def error(*argv: str) -> str:
        assert main(["prepare", *argv]) == 2
        return capsys.readouterr().err

    there = ("--root", str(root), "--out", str(out))
    assert "holiday.mp4" in error("crema_d", *there)
    assert "did you mean 'crema_d'" in error("cremad", *there)
    assert "--root is missing" in error("crema_d", "--out", str(out))
    assert "--out is missing" in error("crema_d", "--root", str(root))
    assert "name a benchmark" in error()
    assert "hicmae manifest tree" in error(str(root), "--out", str(out))
    assert "--folds goes with a manifest" in error("crema_d", *there, "--folds", "5")
    assert "--margin goes with --faces" in error("ravdess", "--root", str(_ravdess(tmp_path)), "--out", str(out),
                                                 "--margin", "0.2")  # fmt: skip
    assert not out.exists()
    # no file of somebody else's is overwritten
    out.mkdir()
    (out / "manifest.csv").write_text("mine")
    assert "did not write" in error("ravdess", "--root", str(tmp_path / "ravdess"), "--out", str(out))
    assert (out / "manifest.csv").read_text() == "mine"


def _ravdess(tmp_path: Path) -> Path:
    native_trees.build_ravdess(tmp_path / "ravdess")
    return tmp_path / "ravdess"


def test_a_speaker_in_two_folds_and_a_clip_that_is_there_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hicmae.benchmarks import ravdess

    root = _ravdess(tmp_path)
    native = ravdess.CARD.read(root)
    clips = list(native.clips)
    moved = replace(clips[0], clip=replace(clips[0].clip, split="fold6"))
    twice = replace(clips[5], clip=replace(clips[5].clip, video=clips[6].clip.video))
    bad = Native(clips=(moved, *clips[1:], twice))
    monkeypatch.setattr(ravdess, "CARD", replace(ravdess.CARD, read=lambda _: bad))
    assert prepare("ravdess", root, tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert "1 of 12 speakers occur in two splits" in err
    assert f"{moved.clip.subject} (fold1, fold6)" in err
    assert f"{clips[5].clip.clip_id!r} is there twice" in err
    assert str(clips[5].clip.video) in err
    assert str(clips[6].clip.video) in err
    assert not (tmp_path / "out").exists()

    # a corpus whose own folds are like that can be had, by who says so
    monkeypatch.setattr(ravdess, "CARD", replace(ravdess.CARD, read=lambda _: replace(bad, clips=bad.clips[:-1])))
    assert prepare("ravdess", root, tmp_path / "out", "--allow-shared-subjects", "--no-shards") == 0
    assert "warning: 1 of 12 speakers occur in two splits" in capsys.readouterr().out


def test_a_fold_without_a_class_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("ravdess", _ravdess(tmp_path), tmp_path / "out", "--no-shards") == 0
    # fold1 has the first four takes: neutral, calm, happy, sad
    warning = "fold1 has no clip of 4 of 8 classes of emotion (angry, fearful, disgust, surprised)"
    assert warning in capsys.readouterr().out
    assert any(warning in text for text in report(tmp_path / "out")["warnings"])


def test_original_files_of_which_clips_are_parts_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    native_trees.build_iemocap(tmp_path / "root")
    assert prepare("iemocap", tmp_path / "root", tmp_path / "out", "--format", "original") == 0
    assert "25 clips are parts of longer files" in capsys.readouterr().out
    source = ShardSource(tmp_path / "out" / "shards")
    stored = {source.info(n).clip_id: source.read(n) for n in range(len(source))}
    assert stored["Ses01F_impro01_M000"].square == HALVES[0.5]
    assert stored["Ses01F_impro01_M000"].span_s == (2.6, 5.2)


def test_cards_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name}: {card(name).title}" in out.replace("\n", " ") for name in CARDS)
    for name in CARDS:
        assert main(["prepare", name, "--card"]) == 0
        out = capsys.readouterr().out
        known = card(name)
        assert all(line.strip() in out for line in (*known.layout.splitlines(), *known.unconfirmed, *known.confirmed))
        assert known.obtain in out
