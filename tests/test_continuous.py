"""The continuous job: it learns what there is to learn, from the command line, and goes on where it was stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from finetune.__main__ import main as finetune_main
from finetune.continuous import fold as fold_module
from finetune.continuous import results as results_module
from finetune.continuous.fold import FoldParts, run_fold
from finetune.continuous.inputs import divide, prepare
from finetune.continuous.job import build_parser
from finetune.continuous.module import ContinuousModule
from finetune.continuous.settings import ContinuousSettings, DataSettings, TrainingSettings
from hicmae.backbone import Backbone
from hicmae.checkpoint import save_export
from hicmae.config import InputSpec
from hicmae.continuous.export import load_head
from hicmae.continuous.merging import centre_folds
from hicmae.continuous.prediction import frame_scores, predict_frames
from hicmae.continuous.statistics import centred, stream_statistics
from hicmae.continuous.synthetic import LongClipSettings, write_long_clips
from hicmae.continuous.windows import WindowSettings
from hicmae.metrics import dimensional_scores
from tests.long_videos import labelled_video
from tests.tiny_model import TINY

ROOT = Path(__file__).parents[1]


def _settings(out: Path, **changes: Any) -> ContinuousSettings:
    values: dict[str, Any] = {
        "backbone": out,
        "out": out,
        "data": DataSettings(table=out / "table.csv"),
        "window": WindowSettings(length=100, hop=100),
        "training": TrainingSettings(epochs=7, lr=3e-3, batch_size=4),
        "device": "cpu",
    }
    return ContinuousSettings(**values | changes)


def test_the_head_recovers_valence_and_arousal_of_held_out_speakers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On features that hide the curves under a speaker's offset and gain and noise, and not on the pixels of a face:
    what a backbone makes of those is no matter of the head (docs/continuous.md measures a whole chain)."""
    videos = [labelled_video(number, steps=200, unlabelled=slice(50, 70)) for number in range(14)]
    parts = FoldParts(number=0, train=tuple(videos[:10]), select=tuple(videos[10:12]), score=tuple(videos[12:]))
    run_fold(tmp_path, parts, [], _settings(tmp_path), device="cpu")
    table = pd.read_parquet(tmp_path / "predictions.parquet")
    best = table[table["checkpoint"] == "best"]
    predictions = {str(name): part[["valence", "arousal"]].to_numpy() for name, part in best.groupby("name")}
    scores = frame_scores(
        predictions, {v.name: v.labels for v in parts.score if v.labels is not None}, ["valence", "arousal"]
    )
    assert scores["frames"] == 2 * 180
    assert scores["ccc_valence"] > 0.8
    assert scores["ccc_arousal"] > 0.8

    head, about = load_head(tmp_path / "export")
    window = WindowSettings(**about["window"])
    values = predict_frames(head, parts.score[0], window, batch_size=3)  # not cut to the limits: merging comes first
    np.testing.assert_allclose(values, predictions[parts.score[0].name], atol=1e-5)
    assert about["targets"] == ["valence", "arousal"]

    # A finished fold predicts what it has not seen, or has seen in another form, and trains no more.
    monkeypatch.setattr(fold_module, "_train", lambda *_, **__: pytest.fail("trained again"))
    for steps in (60, 90):
        run_fold(tmp_path, parts, [labelled_video(30, steps=steps)], _settings(tmp_path), device="cpu")
        again = pd.read_parquet(tmp_path / "predictions.parquet")
        assert (again["name"] == "v30").sum() == 2 * steps
        assert again[again["name"] != "v30"].reset_index(drop=True).equals(table)


def test_centred_features_do_not_tell_who_it_is() -> None:
    video = labelled_video(3, steps=300)
    video.features.present["audio"][200:] = False
    other = replace(video, features=replace(
        video.features, streams={name: values + np.float16(2) for name, values in video.features.streams.items()}
    ))  # fmt: skip
    streams = ("video", "audio")
    one, two = centred(video, streams), centred(other, streams)
    mean, std = stream_statistics([one, two], streams)
    for name in streams:
        np.testing.assert_allclose(one.values(name, 90, 50), two.values(name, 90, 50), atol=3e-3)
        np.testing.assert_allclose(one.window(streams, 250, 100)[0][name][:50], one.values(name, 250, 50))
        there = video.features.present[name]
        plain = video.features.streams[name][there].astype(np.float64)
        np.testing.assert_allclose(one.values(name, 0, 300)[there], plain - plain.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(mean[name], 0, atol=1e-5)
        np.testing.assert_allclose(std[name], plain.std(axis=0), rtol=2e-3)


def test_scores_are_those_of_all_labelled_frames() -> None:
    rng = np.random.default_rng(0)
    labels = {name: rng.uniform(-1, 1, (size, 2)).astype(np.float32) for name, size in (("a", 30), ("b", 50))}
    labels["a"][4:9] = np.nan
    labels["b"][0, 1] = np.nan
    guess = {name: value * 0.5 + rng.normal(size=value.shape) for name, value in labels.items()}
    guess["a"][4:9] = 99.0
    scores = frame_scores(guess, labels, ["valence", "arousal"])
    truth, said = np.concatenate([labels["a"], labels["b"]]), np.concatenate([guess["a"], guess["b"]])
    for k, name in enumerate(("valence", "arousal")):
        there = np.isfinite(truth[:, k])
        expected = dimensional_scores(truth[there, k], said[there, k])
        assert scores[f"ccc_{name}"] == expected.ccc
        assert scores[f"rmse_{name}"] == expected.rmse
    assert scores["ccc"] == pytest.approx((scores["ccc_valence"] + scores["ccc_arousal"]) / 2)
    assert (scores["videos"], scores["frames"]) == (2, 75)
    for values in labels.values():
        values[:, 1] = np.nan  # a part need not have every target
    scores = frame_scores(guess, labels, ["valence", "arousal"])
    assert scores["ccc"] == scores["ccc_valence"]
    assert np.isnan(scores["ccc_arousal"])
    with pytest.raises(ValueError, match="no labelled frame"):
        frame_scores(
            guess, {name: np.full_like(values, np.nan) for name, values in labels.items()}, ["valence", "arousal"]
        )


def test_the_best_checkpoint_is_remembered_where_a_folder_is_moved(tmp_path: Path) -> None:
    before, after = (
        fold_module._Keep(tmp_path / name, filename="best", monitor="val/ccc", mode="max") for name in "ab"
    )
    before.best_model_score = before.kth_value = torch.tensor(0.5)
    before.best_model_path = before.kth_best_model_path = str(tmp_path / "a" / "best.ckpt")
    before.best_k_models = {before.best_model_path: torch.tensor(0.5)}
    after.load_state_dict(before.state_dict())
    assert after.best_model_score == 0.5
    assert after.best_k_models == {str(tmp_path / "b" / "best.ckpt"): torch.tensor(0.5)}
    assert after.kth_best_model_path == after.best_model_path == str(tmp_path / "b" / "best.ckpt")


def test_folds_choose_score_and_train_on_different_subjects(tmp_path: Path) -> None:
    videos = [labelled_video(number, steps=60) for number in range(9)]
    videos.append(labelled_video(20, steps=60, split="test"))
    folds, others = divide(videos, _settings(tmp_path, folds=3))
    assert [video.name for video in others] == ["v20"]
    scored = [video.name for fold in folds for video in fold.score]
    assert sorted(scored) == sorted(f"v{number}" for number in range(9))
    for fold in folds:
        groups = [{video.subject for video in part} for part in (fold.train, fold.select, fold.score)]
        assert not groups[0] & groups[1]
        assert not groups[0] & groups[2]
        assert not groups[1] & groups[2]
    paper, _ = divide(videos, _settings(tmp_path, folds=3, paper_protocol=True))
    assert all(fold.select == fold.score for fold in paper)
    shared = replace(labelled_video(3, steps=60, split="test"), name="another video of s3")
    with pytest.raises(ValueError, match="subjects in train and in test: s3"):
        divide([*videos, shared], _settings(tmp_path, folds=3))
    allowed = DataSettings(table=tmp_path / "table.csv", allow_shared_subjects=True)
    assert len(divide([*videos, shared], _settings(tmp_path, folds=3, data=allowed))[1]) == 2
    own = replace(labelled_video(3, steps=60, split="val"), name="a val video of s3")
    with pytest.raises(ValueError, match="subjects in train and in val: s3"):
        divide([*videos, own], _settings(tmp_path, folds=0))
    with pytest.raises(ValueError, match="9 labelled sequences for train and 0 for val"):
        divide(videos, _settings(tmp_path, folds=0))


def _parsed(arguments: list[str]) -> ContinuousSettings:
    parser = build_parser()
    fields = vars(parser.instantiate(parser.parse_args(arguments)))
    return ContinuousSettings(**{name: value for name, value in fields.items() if name != "config"})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long clips of five speakers and the export of a tiny backbone with random weights."""
    root = tmp_path_factory.mktemp("continuous")
    write_long_clips(root, LongClipSettings(speakers=4, test_speakers=1, seconds=6, size=48))
    torch.manual_seed(0)
    save_export(root / "export", Backbone(TINY), spec=InputSpec.for_model(TINY, audio_seconds=0.66), provenance={})
    return root


def _arguments(corpus: Path, out: Path) -> list[str]:
    return [
        "continuous", "--backbone", str(corpus / "export"), "--out", str(out),
        "--features_dir", str(corpus / "features"),
        "--data.annotations", str(corpus / "VA_Set"), "--data.videos", f'["{corpus / "videos"}"]', "--features.every",
        "3", "--window.length", "30", "--window.hop", "20", "--folds", "3", "--training.epochs", "2",
        "--training.batch_size", "2", "--device", "cpu", "--model.leader_width", "16", "--model.follower_width", "8",
        "--model.attention_width", "8", "--centre_features", "true",
    ]  # fmt: skip


def test_from_the_command_line_and_again_after_a_kill(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert finetune_main(_arguments(corpus, whole)) == 0
    _check_outputs(whole, _parsed(_arguments(corpus, whole)[1:]))
    monkeypatch.setattr(results_module, "_draw", lambda *_: None)  # once is enough

    steps = 0
    step = ContinuousModule.training_step

    def killed(self: ContinuousModule, batch: Any, batch_idx: int) -> Any:
        nonlocal steps
        steps += 1
        if self.fold == 1 and self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ContinuousModule, "training_step", killed)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        finetune_main(_arguments(corpus, broken))
    assert not (broken / "metrics.json").exists()
    before = steps
    monkeypatch.setattr(ContinuousModule, "training_step", step)
    broken = broken.rename(tmp_path / "moved")
    predict = fold_module._predict

    def killed_later(folder: Path, *args: Any, **named: Any) -> None:
        predict(folder, *args, **named)
        if folder.name == "1":
            raise KeyboardInterrupt

    monkeypatch.setattr(fold_module, "_predict", killed_later)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        finetune_main(_arguments(corpus, broken))
    assert not (broken / "folds" / "1" / "result.json").exists()
    monkeypatch.setattr(fold_module, "_predict", predict)
    trained: list[int] = []
    fit = fold_module._train
    monkeypatch.setattr(
        fold_module, "_train", lambda *args, **named: (trained.append(args[2].number), fit(*args, **named))
    )
    assert finetune_main(_arguments(corpus, broken)) == 0
    assert trained == [1, 2]
    assert before > 0
    assert (broken / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    assert (broken / "predictions" / "predictions.csv").read_text() == (
        whole / "predictions" / "predictions.csv"
    ).read_text()
    assert (broken / "folds" / "1" / "result.json").read_text() == (whole / "folds" / "1" / "result.json").read_text()

    # Nothing to train any more; but a folder is one run's alone.
    trained.clear()
    for fold in range(3):
        _exaggerate(whole, fold)
    assert finetune_main(_arguments(corpus, whole)) == 0
    assert trained == []
    # Folds are merged as they are; the result alone is cut to the limits.
    raw = np.stack([np.sin(np.arange(1, 151) / 20 + fold / 4) * (1 + fold / 4) + fold / 10 for fold in range(3)])
    table = pd.read_parquet(whole / "predictions.parquet")
    np.testing.assert_allclose(table[table["name"] == "5-25-48x48"]["valence_best"], centre_folds(raw), atol=1e-6)
    assert not np.allclose(centre_folds(raw), centre_folds(raw.clip(-1, 1)), atol=0.01)
    assert table["arousal_best"].max() == 1
    assert finetune_main([*_arguments(corpus, whole), "--seed", "1"]) == 2
    assert "seed is 0 there and 1 now" in capsys.readouterr().err


def _exaggerate(folder: Path, fold: int) -> None:
    """Let a fold predict a curve that goes beyond the limits."""
    path = folder / "folds" / str(fold) / "predictions.parquet"
    table = pd.read_parquet(path)
    curve = np.sin(table["frame"] / 20 + fold / 4) * (1 + fold / 4) + fold / 10
    table.assign(valence=curve, arousal=curve).to_parquet(path, index=False)


def _check_outputs(out: Path, settings: ContinuousSettings) -> None:
    # A head that is loaded says of a video what the fold said of it.
    head, about = load_head(out / "folds" / "0" / "export")
    assert about["centre_features"]
    video = next(video for video in prepare(settings, device="cpu") if video.split == "test")
    table = pd.read_parquet(out / "folds" / "0" / "predictions.parquet").query("checkpoint == 'best'")
    values = predict_frames(head, video, WindowSettings(**about["window"]), batch_size=2)
    np.testing.assert_allclose(values, table[table["name"] == video.name][["valence", "arousal"]], atol=1e-5)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["best"]["scored"]["videos"] == 4
    assert metrics["best"]["scored"]["frames"] == 4 * (150 - 8)  # 5% of the frames have no label
    assert metrics["last"]["test"]["videos"] == 1
    assert len(metrics["last"]["folds"]) == 3
    assert {"ccc", "pcc", "mae", "rmse", "ccc_valence", "rmse_arousal"} <= set(metrics["best"]["test"])
    table = pd.read_parquet(out / "predictions.parquet")
    assert len(table) == 5 * 150
    assert table.groupby("name")["frame"].agg(["min", "max"]).eq([1, 150]).all(axis=None)
    one = pd.read_csv(out / "predictions" / "5-25-48x48.txt")
    assert list(one.columns) == ["valence", "arousal"]
    assert len(one) == 150
    flat = (out / "predictions" / "predictions.csv").read_text().splitlines()
    assert flat[0] == "image_location,valence,arousal"
    assert flat[1].startswith("1-25-48x48/00001.jpg,")
    assert (out / "figures" / "timelines.png").stat().st_size > 10_000
    assert "each frame by the fold that scores it" in (out / "report.md").read_text()


def test_what_is_wrong_is_said_before_anything_is_computed(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*changes: str) -> str:
        assert finetune_main([*_arguments(corpus, tmp_path / "run"), *changes]) == 2
        return capsys.readouterr().err

    assert "no column dominance" in fails("--targets", "[dominance]")
    assert "folds=2" in fails("--folds", "2")
    assert "needs features.fused" in fails("--streams", "[video, fused_audio]")
    assert "window.hop=31" in fails("--window.hop", "31")
    assert "4 labelled subjects of train and val cannot be divided into 6 folds" in fails("--folds", "6")
    assert "no exported folder" in fails("--backbone", str(tmp_path / "nothing"))
    assert "either as data.table or as data.annotations" in fails("--data.table", "sequences.csv")
    (corpus / "videos" / "4-25-48x48.mp4").rename(tmp_path / "4.mp4")
    try:
        assert "1 sequences cannot be used (1 no_video)" in fails("--data.strict", "true")
        assert "4-25-48x48,no_video" in (tmp_path / "run" / "rejects.csv").read_text()
    finally:
        (tmp_path / "4.mp4").rename(corpus / "videos" / "4-25-48x48.mp4")


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "finetune").glob("continuous*.yaml")), ids=lambda p: p.name)
def test_shipped_settings_are_understood(path: Path) -> None:
    settings = _parsed(["--config", str(path)])
    assert settings.folds == 6
    if path.name == "continuous.yaml":  # says all there is to say, and the defaults
        default = _settings(Path("x"), window=WindowSettings(), training=TrainingSettings(), device="auto")
        assert settings.trained_by() == default.trained_by()
        given = yaml.safe_load(path.read_text())
        assert set(given) == set(vars(settings))
        assert set(given["model"]) == set(vars(settings.model))
        assert set(given["training"]) == set(vars(settings.training))
        assert set(given["data"]) == set(vars(settings.data))
