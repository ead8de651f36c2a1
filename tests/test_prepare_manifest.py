"""``hicmae prepare manifest.csv``: folds without shared speakers, checks, and the lines of a configuration."""

from __future__ import annotations

import builtins
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hicmae.cli import main
from hicmae.data.labels import LabelSpec
from hicmae.data.manifest import Clip, Manifest, ManifestError, read_manifest, write_manifest
from hicmae.data.shard_source import ShardSource
from hicmae.media.frames_file import read_frames
from hicmae.prepare.checks import split_order
from hicmae.prepare.config_lines import config_lines
from hicmae.prepare.folds import make_folds
from hicmae.prepare.tally import found_labels, tally
from tests import native_trees
from tests.corpus import make_corpus
from tests.test_prepare import rejects, report


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_corpus(tmp_path / "own", 16, corrupt=(5,))


def prepare(manifest: Path, out: Path, *more: str) -> int:
    return main(["prepare", str(manifest), "--out", str(out), "--workers", "1", *more])


def corpus(speakers: int = 23, seed: int = 0) -> list[Clip]:
    """Speakers with 3 to 12 clips, each with classes of her own liking."""
    clips = []
    for speaker in range(speakers):
        for take in range(3 + (speaker * 7 + seed) % 10):
            emotion = ("angry", "happy", "neutral", "sad")[(take * take + speaker) % (2 + speaker % 3)]
            clips.append(
                Clip(clip_id=f"s{speaker}_{take}", video=Path(f"{speaker}_{take}.mp4"), subject=f"s{speaker}",
                     labels={"emotion": emotion, "valence": float((take * 5 + speaker) % 9), "label:room": "one"})
            )  # fmt: skip
    return clips


def test_folds_share_no_speaker_and_are_balanced() -> None:
    clips = corpus()
    folded = make_folds(clips, 5)
    assert folded.stratified_by == "emotion"
    assert folded.warnings == ()
    assert [replace(clip, split="") for clip in folded.clips] == clips
    splits = defaultdict(set)
    for clip in folded.clips:
        splits[clip.subject].add(clip.split)
    assert all(len(where) == 1 for where in splits.values())
    counts = Counter(clip.split for clip in folded.clips)
    assert set(counts) == {f"fold{n}" for n in range(1, 6)}
    assert max(counts.values()) - min(counts.values()) <= 0.35 * len(clips) / 5
    overall = Counter(clip.labels["emotion"] for clip in clips)
    for fold in counts:
        own = Counter(clip.labels["emotion"] for clip in folded.clips if clip.split == fold)
        assert all(abs(own[name] - overall[name] / 5) <= 0.6 * overall[name] / 5 for name in ("angry", "happy"))


def test_folds_follow_from_speakers_labels_and_seed_alone() -> None:
    clips = corpus()
    first = {clip.clip_id: clip.split for clip in make_folds(clips, 4, seed=1).clips}
    assert {clip.clip_id: clip.split for clip in make_folds(clips[::-1], 4, seed=1).clips} == first
    assert {clip.clip_id: clip.split for clip in make_folds(clips, 4, seed=2).clips} != first


def test_a_number_is_balanced_by_its_levels() -> None:
    clips = corpus()
    folded = make_folds(clips, 3, stratify="valence")
    assert folded.stratified_by == "valence"
    for fold in ("fold1", "fold2", "fold3"):
        values = [float(clip.labels["valence"]) for clip in folded.clips if clip.split == fold]
        assert sum(values) / len(values) == pytest.approx(4.0, abs=0.8)


def test_clips_without_a_speaker_are_dealt_out_one_by_one_with_a_warning() -> None:
    clips = [replace(clip, subject="", split="train") for clip in corpus()]
    folded = make_folds(clips, 5)
    assert f"{len(clips)} of {len(clips)} clips name no speaker" in folded.warnings[0]
    assert f"train ({len(clips)})" in folded.warnings[1]
    counts = Counter(clip.split for clip in folded.clips)
    assert max(counts.values()) - min(counts.values()) <= 4


def test_rare_classes_and_no_labels_do_not_stop_folds(recwarn: pytest.WarningsRecorder) -> None:
    clips = corpus()
    every = [replace(clip, labels={"emotion": f"class{i}"}) for i, clip in enumerate(clips)]
    assert len({clip.split for clip in make_folds(every, 5).clips}) == 5
    bare = make_folds([replace(clip, labels={}) for clip in clips], 5)
    assert bare.stratified_by == ""
    assert len({clip.split for clip in bare.clips}) == 5
    assert not recwarn.list


def test_folds_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = corpus(speakers=4)
    with pytest.raises(ValueError, match="there are 4 speakers"):
        make_folds(clips, 5)
    with pytest.raises(ValueError, match="2 folds or more"):
        make_folds(clips, 1)
    with pytest.raises(ValueError, match=r"no such label; it has \['emotion', 'label:room', 'valence'\]"):
        make_folds(clips, 2, stratify="mood")
    real = builtins.__import__

    def without_sklearn(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    with pytest.raises(ValueError, match="pip install scikit-learn"):
        make_folds(clips, 2)


def test_a_manifest_gets_folds_shards_and_a_configuration(
    manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert prepare(manifest.path, out, "--folds", "2") == 0
    printed = capsys.readouterr().out
    assert "the manifest's own splits were replaced by folds: train (12), test (4)" in printed
    assert rejects(out) == {"clip005": "truncated"}
    rows = {clip.clip_id: clip for clip in read_manifest(out / "manifest.csv").clips}
    folds = {clip.clip_id: clip.split for clip in make_folds(manifest.clips, 2).clips}
    assert {clip_id: clip.split for clip_id, clip in rows.items()} == {
        clip_id: fold for clip_id, fold in folds.items() if clip_id != "clip005"
    }
    source = ShardSource(out / "shards")
    assert {source.info(n).clip_id: source.info(n).split for n in range(len(source))} == {
        clip_id: clip.split for clip_id, clip in rows.items()
    }
    values = yaml.safe_load(printed[printed.index("model:\n") :])
    assert values["model"]["labels"] == {
        "classes": {"emotion": ["angry", "happy", "neutral"]}, "dimensions": {"valence": [0, 1]}
    }  # fmt: skip
    assert values["data"] == {"shards": [str(out / "shards")], "manifest": None, "test_fold": 1}
    counts = Counter(clip.labels["emotion"] for clip in rows.values())
    assert f"angry {counts['angry']}, happy {counts['happy']}, neutral {counts['neutral']}" in printed
    assert report(out)["usable"]["values"]["valence"]["fold1"]["clips"] == sum(f == "fold1" for f in folds.values()) - (
        folds["clip005"] == "fold1"
    )


def test_splits_of_a_manifest_are_kept(manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(manifest.path, tmp_path / "out", "--no-shards") == 0
    rows = read_manifest(tmp_path / "out" / "manifest.csv").clips
    assert [clip.split for clip in rows] == [clip.split for clip in manifest.clips]
    printed = capsys.readouterr().out
    values = yaml.safe_load(printed[printed.index("model:\n") :])
    assert values["data"] == {"shards": None, "manifest": str(tmp_path / "out" / "manifest.csv")}


def test_clips_without_a_label_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = make_corpus(tmp_path / "own", 6)
    rows = [own.clips[0], replace(own.clips[1], labels={"valence": 0.5}), *own.clips[2:]]
    path = write_manifest(tmp_path / "own" / "some.csv", rows)
    assert prepare(path, tmp_path / "out", "--no-shards") == 0
    assert "warning: 1 of 6 clips have no emotion" in capsys.readouterr().out
    assert report(tmp_path / "out")["usable"]["unlabelled"] == {"emotion": 1}


def test_speakers_in_two_splits_are_refused_or_shown(
    manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [replace(clip, subject="one") for clip in manifest.clips]
    shared = write_manifest(tmp_path / "own" / "shared.csv", rows)
    assert prepare(shared, tmp_path / "out") == 2
    assert "1 of 1 speakers occur in two splits: one (test, train)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert prepare(shared, tmp_path / "out", "--allow-shared-subjects", "--no-shards") == 0
    printed = capsys.readouterr().out
    assert "training needs data.allow_shared_subjects: true" in printed
    assert yaml.safe_load(printed[printed.index("model:\n") :])["data"]["allow_shared_subjects"] is True


def test_manifests_and_options_that_cannot_be_used(
    manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(path: Path, out: Path, *more: str) -> str:
        assert prepare(path, out, *more) == 2
        return capsys.readouterr().err

    out = tmp_path / "out"
    assert "--root goes with a benchmark" in error(manifest.path, out, "--root", ".")
    assert "--seed goes with --folds" in error(manifest.path, out, "--seed", "3")
    # the manifest itself would be overwritten
    assert "did not write" in error(manifest.path, manifest.path.parent)
    assert read_manifest(manifest.path) == manifest
    text = manifest.path.read_text().replace("clip003,", "clip002,", 1).replace("clip004.mp4", "gone.mp4")
    (tmp_path / "own" / "bad.csv").write_text(text)
    found = error(tmp_path / "own" / "bad.csv", out)
    assert "already used in row 4" in found
    assert "gone.mp4" in found
    assert not out.exists()


def test_folders_of_pictures_in_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own"
    native_trees.put_frames(own / "faces" / "a")
    native_trees.put_frames(own / "faces" / "b", "{n:03d}.png")
    (own / "faces" / "none").mkdir()
    native_trees.write(own / "a.wav", native_trees.sound())
    native_trees.write(own / "film.mp4", native_trees.film("mp4"))
    lines = [
        "clip_id,video,audio,subject",
        "a,faces/a,a.wav,p1",
        "b,faces/b,,p2",
        "c,film.mp4,,p3",
        "d,faces/none,a.wav,p4",
    ]
    path = native_trees.write(own / "own.csv", "\n".join(lines))
    assert prepare(path, tmp_path / "filled") == 0
    assert rejects(tmp_path / "filled") == {"b": "no_frame_times", "d": "no_frames"}
    assert prepare(path, tmp_path / "out", "--frame-rate", "10", "--folds", "3") == 0
    assert rejects(tmp_path / "out") == {"d": "no_frames"}
    ends = {}
    for out in (tmp_path / "filled", tmp_path / "out"):
        for clip in read_manifest(out / "manifest.csv").clips:
            if clip.clip_id != "c":
                assert clip.video == out / "media" / f"{clip.clip_id}.frames"
                ends[out.name, clip.clip_id] = read_frames(clip.video.read_bytes(), clip.clip_id).end_s
    assert ends == pytest.approx(
        {("filled", "a"): native_trees.SECONDS, ("out", "a"): native_trees.FRAMES / 10,
         ("out", "b"): native_trees.FRAMES / 10}, abs=0.01,
    )  # fmt: skip
    assert len(ShardSource(tmp_path / "out" / "shards")) == 3
    with pytest.raises(ManifestError, match=r"row 2: video .* is a folder; .* with 'hicmae prepare'"):
        read_manifest(path)  # what reads files alone says who takes folders
    films = native_trees.write(own / "films.csv", "clip_id,video\nc,film.mp4\n")
    for argv, message in ((("--frame-rate", "10"), "there is none"), (("--frame-rate", "0"), "must be above 0")):
        capsys.readouterr()
        assert prepare(films, tmp_path / "no", *argv) == 2
        assert message in capsys.readouterr().err


def test_every_clip_rejected_is_a_failure_with_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = make_corpus(tmp_path / "own", 4, text=range(4))
    assert prepare(bad.path, tmp_path / "out") == 1
    assert "every clip was rejected" in capsys.readouterr().out
    assert set(rejects(tmp_path / "out").values()) == {"unknown_format"}
    assert report(tmp_path / "out")["usable"]["clips"] == 0


def test_configuration_lines_are_the_labels_whatever_their_names() -> None:
    clips = [
        Clip(clip_id=f"c{i}", video=Path("v"), labels={"label:on air": value, "emotion": ("1", "no")[i % 2]})
        for i, value in enumerate(["yes", "a: b", "it's #1", "plain"])
    ]
    labels = found_labels(clips)
    values = yaml.safe_load(config_lines(labels, tally(clips, labels), shards=Path("a b/c"), manifest=Path("m.csv")))
    assert labels is not None
    found = values["model"]["labels"]
    assert LabelSpec(classes=found["classes"], dimensions=found["dimensions"]) == labels
    assert values["data"]["shards"] == ["a b/c"]
    bare = yaml.safe_load(config_lines(None, tally([], None), shards=None, manifest=Path("m.csv")))
    assert bare == {"data": {"shards": None, "manifest": "m.csv"}}


def test_splits_are_in_the_order_in_which_people_count() -> None:
    assert split_order(["fold10", "test", "fold2", "train", "", "val"]) == [
        "train",
        "val",
        "test",
        "",
        "fold2",
        "fold10",
    ]
