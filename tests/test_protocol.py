"""What a run says of its protocol: in everything it writes, and to the tests that come after it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.figure
import pandas as pd
import pytest
import torch

from finetune.__main__ import main
from finetune.protocol import PAPER_PROTOCOL, Protocol, labelled
from hicmae.checkpoint import read_export
from hicmae.data.manifest import read_manifest, write_manifest
from tests.fake_card import make_known
from tests.test_finetune import arguments
from tests.test_folds import folded


def test_labels() -> None:
    paper, own = (Protocol(test_fold=1, paper=paper, content="x") for paper in (True, False))
    assert labelled("test/uar", paper.label) == f"test/uar [{PAPER_PROTOCOL}]"
    assert labelled("test/uar", own.label) == "test/uar"
    assert (paper.validation_name, own.validation_name) == ("paper_protocol_val", "val")


def test_weights_are_not_tested_on_what_they_were_trained_on() -> None:
    ours = Protocol(test_fold=2, paper=False, content="x")
    ours.check_origin({"test_fold": 2, "paper": True, "content": "x"}, "it")
    ours.check_origin({"test_fold": 1, "paper": False, "content": "another corpus"}, "it")
    with pytest.raises(ValueError, match="it was trained with fold 1 as its test, so fold 2 was among its training"):
        ours.check_origin({"test_fold": 1, "paper": False, "content": "x"}, "it")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds; two clips a speaker and task, and one of a class that is not learnt."""
    path = folded(tmp_path_factory.mktemp("protocol") / "corpus", 36, 3)
    rows = []
    for i, clip in enumerate(read_manifest(path).clips):
        emotion = clip.labels["emotion"] if i else "bored"
        labels = {"emotion": emotion, "label:task": f"{clip.subject}-{emotion}"}
        rows.append(replace(clip, labels=labels))
    return write_manifest(path, rows)


OPTIONS = (
    "--model.labels.dimensions={}", "--data.paper_protocol=true", "--data.drop_other_classes=true",
    "--data.average_over=label:task", "--benchmark=two_folds",
)  # fmt: skip


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        make_known(patch)
        yield patch


@pytest.fixture(scope="module")
def run(
    manifest: Path, tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch
) -> tuple[Path, list[str], list[str]]:
    """A run directory, its log, and the titles of its figures."""
    root = tmp_path_factory.mktemp("runs") / "paper"
    titles: list[str] = []
    save = matplotlib.figure.Figure.savefig

    def spy(figure: Any, *more: Any, **settings: Any) -> None:
        texts = [axes.get_title() for axes in figure.axes] + [figure.get_suptitle()]
        titles.append("\n".join(texts))
        save(figure, *more, **settings)

    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    root_logger, level = logging.getLogger(), logging.getLogger().level
    root_logger.addHandler(handler)
    root_logger.setLevel(logging.INFO)
    with pytest.MonkeyPatch.context() as drawing:
        drawing.setattr(matplotlib.figure.Figure, "savefig", spy)
        assert main(arguments(manifest, root, *OPTIONS, "--data.test_fold=2")) == 0
    root_logger.removeHandler(handler)
    root_logger.setLevel(level)
    return root, lines, titles


def test_every_number_of_the_papers_protocol_is_labelled(run: tuple[Path, list[str], list[str]]) -> None:
    root, lines, titles = run
    content = json.loads((root / "metrics.json").read_text())
    assert content["about"]["protocol"] == content["about"]["validation"] == PAPER_PROTOCOL
    assert content["about"]["selected_on"] == "paper_protocol_val/uar (highest)"
    for checkpoint in ("best", "last"):
        for part in ("val", "test"):
            assert content[checkpoint][part]["protocol"] == PAPER_PROTOCOL
    assert set(pd.read_parquet(root / "predictions.parquet").protocol) == {PAPER_PROTOCOL}
    shown = [line for line in lines if "uar 0." in line]
    assert len(shown) == 2 + 4  # two validations, and two checkpoints in two parts
    assert all(PAPER_PROTOCOL in line for line in shown)
    assert len(titles) == 3
    assert all(PAPER_PROTOCOL in title for title in titles)
    assert (root / "report.md").read_text().count(PAPER_PROTOCOL) >= 3
    logged = pd.read_csv(root / "logs" / "version_0" / "metrics.csv")
    assert "paper_protocol_val/uar" in logged
    assert not [name for name in logged if name.startswith("val/")]
    export = read_export(root / "export").provenance
    assert all(name.endswith(f"[{PAPER_PROTOCOL}]") for name in export["metrics"])
    bounds = export["intervals"]["bounds"]
    assert all(name.endswith(f"[{PAPER_PROTOCOL}]") for name in bounds)
    assert bounds[f"test/uar [{PAPER_PROTOCOL}]"] == content["best"]["test"]["intervals"]["uar"]
    assert (export["intervals"]["over"], export["intervals"]["groups"]) == ("subjects", 2)
    assert PAPER_PROTOCOL in export["checkpoint"]
    assert f"test/uar [{PAPER_PROTOCOL}] |" in (root / "export" / "README.md").read_text()


def test_validation_is_the_test_fold_in_it(run: tuple[Path, list[str], list[str]]) -> None:
    table = pd.read_parquet(run[0] / "predictions.parquet")
    parts = {part: set(rows.clip_id) for part, rows in table.groupby("split")}
    assert parts["val"] == parts["test"]
    splits = json.loads((run[0] / "metrics.json").read_text())["about"]["splits"]
    assert (splits["train"]["subjects"], splits["val"], splits["test"]["subjects"]) == (4, splits["test"], 2)


def test_groups_share_a_prediction_and_other_classes_are_counted(run: tuple[Path, list[str], list[str]]) -> None:
    content = json.loads((run[0] / "metrics.json").read_text())
    assert content["about"]["other_classes_left_out"] == {"emotion": {"bored": 1}}
    scores = content["best"]["test"]
    assert (scores["clips"], scores["predictions"], scores["averaged_over"]) == (12, 6, "label:task")
    table = pd.read_parquet(run[0] / "predictions.parquet")
    assert set(table.n_clips) == {2}
    assert all(name == f"{row.subject}-{row.label}" for name, row in table.set_index("clip_id").iterrows())


def test_intervals_are_of_the_test_alone(run: tuple[Path, list[str], list[str]]) -> None:
    content = json.loads((run[0] / "metrics.json").read_text())
    assert "intervals" not in content["best"]["val"]
    intervals = content["best"]["test"]["intervals"]
    assert (intervals["over"], intervals["groups"], intervals["resamples"]) == ("subjects", 2, 2000)
    assert intervals["war"][0] <= content["best"]["test"]["war"] <= intervals["war"][1]


def test_a_fit_reports_beside_the_published_results(run: tuple[Path, list[str], list[str]]) -> None:
    report = (run[0] / "report.md").read_text()
    assert report.startswith("# Two Folds, fold 2")
    assert "| Somebody | video + audio | 84.91 | a table | chosen by a coin |" in report
    assert "as in the authors' code" in report
    assert f"**{PAPER_PROTOCOL[0].upper()}{PAPER_PROTOCOL[1:]}.**" in report
    assert "Clips of other classes of emotion were left out: bored 1." in report
    assert "They are of all folds, and this page of fold 2 alone." in report
    assert any("averages predictions over no clips, but data.average_over is label:task" in line for line in run[1])


@pytest.mark.parametrize("given", ["--ckpt_path=checkpoints/best.ckpt", "--model.init=export"])
def test_a_later_test_is_labelled_too_and_of_its_own_fold_alone(
    run: tuple[Path, list[str], list[str]], manifest: Path, tmp_path: Path, given: str, capsys: Any
) -> None:
    option, path = given.split("=")
    more = ["--model.labels.dimensions={}", "--data.drop_other_classes=true", f"{option}={run[0] / path}"]
    assert main(arguments(manifest, tmp_path, *more, "--data.test_fold=2", command="test")) == 0
    content = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert content["about"]["protocol"] == content["tested"]["test"]["protocol"] == PAPER_PROTOCOL
    assert content["tested"]["test"]["clips"] == 12
    assert main(arguments(manifest, tmp_path, *more, "--data.test_fold=1", command="test")) == 2
    assert "fold 1 was among its training clips; give data.test_fold=2" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "name"), [("fit", "checkpoints/best.ckpt"), ("probe", "export")])
def test_a_start_that_was_taught_the_test_clips_is_refused(
    run: tuple[Path, list[str], list[str]], manifest: Path, tmp_path: Path, command: str, name: str, capsys: Any
) -> None:
    more = ["--model.labels.dimensions={}", "--data.drop_other_classes=true", f"--model.init={run[0] / name}"]
    assert main(arguments(manifest, tmp_path, *more, "--data.test_fold=3", command=command)) == 2
    assert "fold 3 was among its training clips; give data.test_fold=2" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()


def test_a_probe_of_weights_chosen_on_the_test_is_labelled(
    run: tuple[Path, list[str], list[str]], manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = ["--model.labels.dimensions={}", "--data.drop_other_classes=true", f"--model.init={run[0] / 'export'}"]
    with caplog.at_level(logging.INFO):
        assert main(arguments(manifest, tmp_path, *more, "--data.test_fold=2", "--layers=false", command="probe")) == 0
    content = json.loads((tmp_path / "probe" / "probe.json").read_text())
    assert content["about"]["label"] == PAPER_PROTOCOL
    assert all(row[part]["protocol"] == PAPER_PROTOCOL for row in content["rows"] for part in ("val", "test"))
    shown = [record.getMessage() for record in caplog.records if ", linear (" in record.getMessage()]
    assert len(shown) == 6
    assert all(line.count(PAPER_PROTOCOL) == 2 for line in shown)
    assert (tmp_path / "probe" / "probe.md").read_text().startswith(f"# Frozen features [{PAPER_PROTOCOL}]")


def test_checkpoints_say_it_in_plain_values(run: tuple[Path, list[str], list[str]]) -> None:
    stored = torch.load(run[0] / "checkpoints" / "best.ckpt", weights_only=True)["FinetuneData"]
    assert (stored["test_fold"], stored["paper"]) == (2, True)


def test_a_trained_head_is_not_taken_and_that_is_said(
    run: tuple[Path, list[str], list[str]], manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = '--model.labels.classes={"emotion": ["bored", "happy"]}'
    more = ["--model.labels.dimensions={}", other, f"--model.init={run[0] / 'export'}", "--data.test_fold=2",
            "--data.paper_protocol=true"]  # fmt: skip
    # ends when the labels are checked, after the head was spoken of
    with caplog.at_level(logging.INFO):
        assert main(arguments(manifest, tmp_path, *more)) == 2
    assert "is a recogniser of ['angry', 'happy', 'neutral']: its backbone is taken" in caplog.text
    assert "the head for ['bored', 'happy'] is made anew" in caplog.text


@pytest.mark.parametrize("init", ["export", "checkpoints/last.ckpt"])
def test_a_backbone_that_knows_the_test_clips_is_no_start(
    run: tuple[Path, list[str], list[str]], manifest: Path, tmp_path: Path, init: str, capsys: Any
) -> None:
    more = ["--model.labels.dimensions={}", "--data.drop_other_classes=true", f"--model.init={run[0] / init}"]
    assert main(arguments(manifest, tmp_path, *more, "--data.test_fold=1")) == 2
    assert "so fold 1 was among its training clips" in capsys.readouterr().err
    assert main(arguments(manifest, tmp_path, *more, "--data.test_fold=2")) == 2
    assert "was chosen on the test clips" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()


def test_a_fold_has_to_be_named(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(manifest, tmp_path, "--model.labels.dimensions={}", "--data.drop_other_classes=true")) == 2
    message = capsys.readouterr().err
    assert "divided into the folds 1, 2, 3" in message
    assert "python -m finetune folds" in message
