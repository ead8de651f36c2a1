"""Following the test: what choosing the epoch on it would have gained, without a change to the run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from finetune.callbacks import FollowTest
from finetune.selection import CHOSEN_ON_TEST, CurvePoint, FollowedCurve, choose, selection_of, selection_sentence
from hicmae.data.manifest import write_manifest
from tests.corpus import make_corpus
from tests.test_finetune import arguments, leave_out_figures, main, results, weights


def curve(val: list[float], test: list[float], *, score: str = "uar", mode: str = "max") -> FollowedCurve:
    points = tuple(
        CurvePoint(epoch=i + 1, step=10 * (i + 1), val={score: v}, test={score: t})
        for i, (v, t) in enumerate(zip(val, test, strict=True))
    )
    return FollowedCurve(score=score, mode=mode, points=points)


# ---------------------------------------------------------------- known answers


def test_the_gain_of_a_planted_curve() -> None:
    found = selection_of(curve([0.3, 0.6, 0.5, 0.4], [0.2, 0.35, 0.5, 0.4]))
    assert {name: one["epoch"] for name, one in found["choices"].items()} == {"validation": 2, "last": 4, "test": 3}
    gain = found["gain_of_choosing_on_test"]
    assert (gain["over_validation"], gain["over_last"]) == pytest.approx((0.15, 0.1))
    assert gain["protocol"] == found["choices"]["test"]["protocol"] == CHOSEN_ON_TEST
    assert "protocol" not in found["choices"]["validation"]
    sentence = selection_sentence(found)
    assert f"on the test [{CHOSEN_ON_TEST}] 50.00 (epoch 3)" in sentence
    assert "on validation 35.00 (epoch 2); the last 40.00 (epoch 4)" in sentence
    assert "gained 15.00 over" in sentence


def test_errors_are_best_when_low() -> None:
    found = selection_of(curve([3.0, 1.0, 2.0], [2.0, 4.0, 1.0], score="mae", mode="min"))
    assert [found["choices"][name]["epoch"] for name in ("validation", "test")] == [2, 3]
    assert found["gain_of_choosing_on_test"]["over_validation"] == 3.0


def test_choices_are_those_of_the_best_checkpoint() -> None:
    """The first of equal ones, in the callback's float32; what is undefined is never chosen."""
    third = 1 / 3
    equal_in_single = [third, third + 1e-12, math.nan]
    assert choose(curve(equal_in_single, [0.0, 0.5, 0.5]))["validation"].epoch == 1
    assert choose(curve([math.nan, 0.1, 0.2], [math.nan, 0.5, 0.5]))["test"].epoch == 2


def test_an_undefined_score_gives_no_gain() -> None:
    found = selection_of(curve([0.2, 0.1], [math.nan, 0.5]))
    assert found["gain_of_choosing_on_test"]["over_validation"] is None
    assert "gained - over" in selection_sentence(found)


def test_a_curve_is_read_as_written(tmp_path: Path) -> None:
    written = curve([0.1, 0.2], [0.3, math.nan])
    written.write(tmp_path)
    read = FollowedCurve.read(tmp_path)
    assert [point.to_dict() for point in read.points] == [point.to_dict() for point in written.points]
    table = pd.read_csv(tmp_path / "test_curve.csv")
    assert list(table.columns) == ["epoch", "step", "val/uar", "test/uar"]
    assert table["test/uar"].isna().tolist() == [False, True]
    with pytest.raises(FileNotFoundError, match="--follow_test true"):
        FollowedCurve.read(tmp_path / "elsewhere")


# ---------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_corpus(tmp_path_factory.mktemp("follow") / "corpus", 22)
    return write_manifest(made.path, [replace(clip, start_s=0.04 * i) for i, clip in enumerate(made.clips)])


FOLLOW = ("--follow_test=true", "--trainer.max_epochs=3", "--model.ema_decay=0.5")


@pytest.fixture(scope="module")
def followed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "followed"
    assert main(arguments(manifest, root, *FOLLOW)) == 0
    return root


def test_following_changes_neither_weights_nor_choice(
    followed: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_figures(monkeypatch)
    assert main(arguments(manifest, tmp_path / "plain", *FOLLOW[1:])) == 0
    assert not (tmp_path / "plain" / "test_curve.json").exists()
    for name in ("best", "last"):
        ours, plain = (
            torch.load(root / "checkpoints" / f"{name}.ckpt", weights_only=True)
            for root in (followed, tmp_path / "plain")
        )
        assert ours["global_step"] == plain["global_step"]
        for kept in ("state_dict", "current_model_state"):
            assert ours[kept].keys() == plain[kept].keys()
            assert all(torch.equal(value, ours[kept][key]) for key, value in plain[kept].items())
    scores, plain_scores = (results(root)[0] for root in (followed, tmp_path / "plain"))
    for name in ("best", "last"):
        assert scores[name]["test"] == plain_scores[name]["test"]
        assert scores[name]["val"] == plain_scores[name]["val"]


def test_the_curve_holds_the_scores_that_checkpoints_get(followed: Path) -> None:
    """With averaged weights: the curve is of the average, as the test is."""
    scores, _ = results(followed)
    points = {point.step: point for point in FollowedCurve.read(followed).points}
    assert [point.epoch for point in points.values()] == [1, 2, 3]
    selection = json.loads((followed / "selection.json").read_text())
    for choice, checkpoint in (("validation", "best"), ("last", "last")):
        assert selection["choices"][choice]["step"] == scores[checkpoint]["step"]
        point = points[scores[checkpoint]["step"]]
        for part in ("val", "test"):
            for name, value in getattr(point, part).items():
                assert value == pytest.approx(scores[checkpoint][part][name] or math.nan, abs=1e-6, nan_ok=True)
    assert (followed / "figures" / "selection.png").stat().st_size > 0
    assert f"on the test [{CHOSEN_ON_TEST}]" in (followed / "report.md").read_text()


def test_a_resumed_run_has_the_whole_curve(
    followed: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_out_figures(monkeypatch)
    line = arguments(manifest, tmp_path / "parts", *FOLLOW, "--test_after_fit=false")
    steps = FollowedCurve.read(followed).points[0].step
    assert main([*line, f"--trainer.max_steps={steps + 1}"]) == 0
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    assert main([*line, f"--ckpt_path={last}"]) == 0
    assert (tmp_path / "parts" / "test_curve.json").read_text() == (followed / "test_curve.json").read_text()
    ours, whole = (weights(root / "checkpoints" / "last.ckpt") for root in (tmp_path / "parts", followed))
    assert all(torch.equal(value, ours[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("--data.paper_protocol=true",), "leave one of the two out"),
        (("--best.monitor=train/loss",), "best.monitor is 'train/loss'"),
    ],
)
def test_a_test_that_cannot_be_followed_is_refused(
    settings: tuple[str, ...], message: str, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(manifest, tmp_path, "--follow_test=true", *settings)) == 2
    assert message in capsys.readouterr().err


def test_a_run_begun_without_is_not_followed_from_the_middle(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_out_figures(monkeypatch)
    line = arguments(manifest, tmp_path, "--test_after_fit=false")
    assert main([*line, "--trainer.max_steps=2"]) == 0
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert main([*line, "--follow_test=true", f"--ckpt_path={last}"]) == 2
    assert "written without follow_test" in capsys.readouterr().err


def test_no_test_split_is_refused(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hicmae.data.manifest import read_manifest

    rows = [clip for clip in read_manifest(manifest).clips if clip.split != "test"]
    alone = write_manifest(tmp_path / "manifest.csv", rows)
    assert main(arguments(alone, tmp_path / "run", "--follow_test=true")) == 2
    assert "scores the test clips, and there are none" in capsys.readouterr().err


def test_the_callback_keeps_its_scores_as_plain_values() -> None:
    callback = FollowTest("val/uar", "max")
    callback._points = list(curve([0.1], [math.nan]).points)
    state = json.loads(json.dumps(callback.state_dict(), allow_nan=False))
    other = FollowTest("val/uar", "max")
    other.load_state_dict(state)
    assert other.state_dict() == callback.state_dict()
