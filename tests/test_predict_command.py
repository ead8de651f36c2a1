"""``hicmae predict``: tables, JSON and pictures of files; bad ones are named, and a killed command goes on."""

from __future__ import annotations

import argparse
import csv
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hicmae.backbone import Backbone
from hicmae.checkpoint import save_export
from hicmae.cli import main
from hicmae.cli.predict import _figures, add_arguments
from hicmae.inference.items import MediaItem
from hicmae.inference.prediction_job import PredictionJob
from hicmae.inference.predictor import Predictor
from tests.media_files import make_clip
from tests.test_predictor import SPEC, recognizer
from tests.tiny_model import TINY


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_export(tmp_path_factory.mktemp("model") / "tiny", recognizer(), spec=SPEC, provenance={})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good files, one without sound, one cut short, one that is text."""
    folder = tmp_path_factory.mktemp("files")
    for name, seconds in (("a", 2.4), ("b", 3.6), ("c", 0.5)):
        make_clip(folder / f"{name}.mp4", seconds=seconds, size=(48, 48))
    make_clip(folder / "silent.mp4", seconds=2.0, size=(48, 48), with_audio=False)
    data = (folder / "a.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])
    (folder / "text.mp4").write_text("no video")
    return folder


def predict(model: Path, *args: object) -> int:
    one = () if "--workers" in args else ("--workers", "1")
    return main(["predict", *map(str, args), "--model", str(model), "--device", "cpu", *one])


def test_one_file_is_shown_window_by_window_and_in_a_table(
    model: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(model, files / "b.mp4") == 0
    said = capsys.readouterr()
    expected = Predictor.load(model, device="cpu").predict(files / "b.mp4")
    assert expected.probabilities is not None
    assert expected.values is not None
    (row,) = [line for line in said.out.splitlines() if "b.mp4" in line]
    label, probability = expected.label, f"{expected.probabilities.max():.2f}"
    assert f"3  {label}" in row
    assert probability in row
    assert f"{expected.values[0]:+.2f}" in row
    assert "not calibrated" in said.out
    lines = [line for line in said.err.splitlines() if " s  " in line]
    assert [line.split()[:3:2] for line in lines] == [["0.00", "1.60"], ["1.60", "3.20"], ["2.00", "3.60"]]
    assert "valence" in lines[0]


def test_tables_of_files_and_windows_name_what_failed_and_the_rest_goes_on(
    model: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out.csv"
    assert predict(model, files, "-o", out) == 1
    said = capsys.readouterr().out
    assert "3 of 6 files failed:" in said
    assert "silent.mp4: it has no sound, and tiny was built for picture and sound (no_audio_stream)" in said
    assert "warning, padded: 1 of 6 files; " in said
    rows = pd.read_csv(out)
    assert [Path(name).name for name in rows.name] == ["a.mp4", "b.mp4", "c.mp4"]
    expected = Predictor.load(model, device="cpu").predict(files / "b.mp4")
    columns = [f"probability_{name}" for name in expected.targets.classes]
    np.testing.assert_allclose(rows.loc[1, columns].astype(float), expected.probabilities, atol=1e-6)
    assert rows.loc[1, "label"] == expected.label
    windows = pd.read_csv(tmp_path / "new" / "out.windows.csv")
    assert windows.groupby("name").size().tolist() == [2, 3, 1]
    means = windows.groupby("name")[columns].mean()
    np.testing.assert_allclose(means, rows[columns], atol=1e-6)
    with (tmp_path / "new" / "out.csv.failures.csv").open(encoding="utf-8") as file:
        reasons = {Path(row["name"]).name: row["reason"] for row in csv.DictReader(file)}
    assert reasons == {"cut.mp4": "truncated", "silent.mp4": "no_audio_stream", "text.mp4": "unknown_format"}
    assert sorted(file.name for file in out.parent.iterdir()) == ["out.csv", "out.csv.failures.csv", "out.windows.csv"]

    of_another_run = out.with_name("out.parquet.failures.csv")
    of_another_run.touch()
    assert predict(model, files / "a.mp4", files / "b.mp4", "-o", out.with_suffix(".parquet")) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(out.with_suffix(".parquet"))[columns], rows[columns][:2])
    assert len(pd.read_parquet(out.with_name("out.windows.parquet"))) == 5
    assert not of_another_run.exists()
    assert out.with_name("out.csv.failures.csv").exists()  # of the other table


def test_json_on_stdout_is_all_there_is_on_stdout(
    model: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(model, files, "--json", "--missing", "blank", "--segments", "2") == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["schema"], said["calibrated"], said["model"]["name"]) == (1, False, "tiny")
    assert said["model"]["classes"] == ["angry", "happy", "neutral"]
    assert said["settings"]["missing"] == "blank"
    assert [Path(file["name"]).name for file in said["files"]] == ["a.mp4", "b.mp4", "c.mp4", "silent.mp4"]
    assert [len(file["windows"]) for file in said["files"]] == [2, 2, 2, 2]
    assert [file["windows"][0]["blanked"] for file in said["files"]] == [[], [], [], ["audio"]]
    assert {failure["reason"] for failure in said["failures"]} == {"truncated", "unknown_format"}
    for file in said["files"]:
        assert file["label"] == max(file["probabilities"], key=file["probabilities"].get)
        assert sum(file["probabilities"].values()) == pytest.approx(1)

    assert predict(model, files, "-o", tmp_path / "out.json", "--missing", "blank", "--segments", "2") == 1
    assert json.loads((tmp_path / "out.json").read_text()) == said


def test_files_that_all_fail_give_tables_without_rows(model: Path, files: Path, tmp_path: Path) -> None:
    for suffix in (".csv", ".parquet"):
        assert predict(model, files / "text.mp4", "-o", tmp_path / f"out{suffix}") == 1
    assert len(pd.read_csv(tmp_path / "out.csv")) == 0
    assert len(pd.read_parquet(tmp_path / "out.windows.parquet")) == 0
    assert "label" in pd.read_csv(tmp_path / "out.csv").columns


def test_a_killed_command_goes_on_and_computes_nothing_twice(
    model: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [files / f"{name}.mp4" for name in "ca"]
    assert predict(model, *good, "-o", tmp_path / "whole.csv") == 0
    plain, seen = Predictor.predict, []

    def counted(self: Predictor, source: MediaItem, *args: object) -> object:
        seen.append(Path(source.name).name)
        if seen == ["c.mp4", "a.mp4"]:
            raise KeyboardInterrupt
        return plain(self, source, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Predictor, "predict", counted)
    figures = tmp_path / "figures"
    assert predict(model, *good, "-o", tmp_path / "out.csv") == 130
    assert not (tmp_path / "out.csv").exists()
    assert predict(model, *good, "-o", tmp_path / "out.csv", "--hop-s", "0.4") == 2  # other settings
    assert predict(model, *good, "-o", tmp_path / "out.csv", "--figure", figures) == 0
    assert seen == ["c.mp4", "a.mp4", "a.mp4"]
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(file.name for file in figures.iterdir()) == ["a.png", "c.png"]  # that of c.mp4, too
    assert not list(tmp_path.glob("*.journal"))


def test_pictures_of_files_that_are_called_the_same_do_not_meet(tmp_path: Path) -> None:
    items = [MediaItem(name=name) for name in ("x/one.mp4", "y/one.mp4", "two.mp4", "x_one.mp4", "x one.mp4")]
    assert _figures(tmp_path, items) == {
        "x/one.mp4": tmp_path / "x_one.mp4.png", "y/one.mp4": tmp_path / "y_one.mp4.png",
        "two.mp4": tmp_path / "two.png", "x_one.mp4": tmp_path / "x_one.png", "x one.mp4": tmp_path / "x one.png",
    }  # fmt: skip
    assert _figures(tmp_path / "p.png", items[:1]) == {"x/one.mp4": tmp_path / "p.png"}
    alike = [MediaItem(name=name) for name in ("x y/one.mp4", "x_y/one.mp4")]
    assert [path.name for path in _figures(tmp_path, alike).values()] == ["x_y_one.mp4.png", "x_y_one.mp4-2.png"]
    with pytest.raises(ValueError, match="is one picture, and there are 5 files"):
        _figures(tmp_path / "p.png", items)


def test_what_other_processes_need_pickles_and_the_journal_knows_the_model(model: Path, tmp_path: Path) -> None:
    job = PredictionJob(model=model, hop_s=0.5)
    assert pickle.loads(pickle.dumps(job.begin)).__self__ == job  # noqa: S301
    shutil.copytree(model, tmp_path / "copy")
    assert PredictionJob(model=tmp_path / "copy", hop_s=0.5).settings(["cpu"]) == job.settings(["cpu"])
    assert job.settings(["cuda:0"]) != job.settings(["cpu"])
    save_export(tmp_path / "copy", recognizer("video"), spec=SPEC, provenance={})
    assert PredictionJob(model=tmp_path / "copy", hop_s=0.5).settings(["cpu"]) != job.settings(["cpu"])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (("--bf16",), "bf16: False there, True now"),
        (("--batch-size", "2"), "batch_size: 8 there, 2 now"),
        (("--threads", "3"), "threads: 1 there, 3 now"),
        ((), None),
    ],
    ids=["precision", "batch size", "threads", "nothing"],
)
def test_what_was_begun_otherwise_to_the_last_digit_is_not_gone_on_with(
    model: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    changed: tuple[str, ...], told: str | None,
) -> None:  # fmt: skip
    good, out = [files / "c.mp4", files / "a.mp4"], tmp_path / "out.csv"
    with monkeypatch.context() as now:
        now.setattr(Predictor, "predict", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            predict(model, *good, "-o", out, "--threads", "1")
    assert predict(model, *good, "-o", out, *(() if "--threads" in changed else ("--threads", "1")), *changed) == (
        0 if told is None else 2
    )
    if told is not None:
        assert f"an unfinished job with other settings ({told})" in capsys.readouterr().err


def test_bfloat16_is_computed_and_said(model: Path, files: Path, tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("fp32.parquet", "bf16.parquet")]
    for out, options in zip(outs, ((), ("--bf16",)), strict=True):
        assert predict(model, files / "a.mp4", "-o", out, *options) == 0
    plain, rough = (pd.read_parquet(out).filter(like="_").drop(columns=["duration_s", "left_out"]) for out in outs)
    difference = np.abs(plain.to_numpy(dtype=float) - rough.to_numpy(dtype=float)).max()
    assert 1e-5 < difference < 0.05
    said = [json.loads(pq.read_schema(out).metadata[b"hicmae"])["settings"] for out in outs]
    assert [(about["bf16"], about["batch_size"]) for about in said] == [(False, 8), (True, 8)]


def test_wrong_use_is_said_before_any_work(
    model: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_export(tmp_path / "backbone", Backbone(TINY), spec=SPEC, provenance={})
    shutil.copytree(model, tmp_path / "altered")
    weights = bytearray((tmp_path / "altered" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "altered" / "model.safetensors").write_bytes(weights)
    shutil.copytree(model, tmp_path / "incomplete")
    (tmp_path / "incomplete" / "config.json").unlink()
    save_export(tmp_path / "listens", recognizer("audio"), spec=SPEC, provenance={})
    clip, own = files / "a.mp4", tmp_path / "clips.csv"
    own.write_text("clip_id,video\n")
    for folder, args, message in (
        (tmp_path / "backbone", [clip], "holds a backbone without a head"),
        (tmp_path / "altered", [clip], "was altered or cut short"),
        (tmp_path / "incomplete", [clip], "has no config.json"),
        (tmp_path / "listens", [clip, "--faces"], "built for sound alone"),
        (model, [tmp_path / "nothing.mp4"], "no file or folder"),
        (model, [clip, "-o", "out.txt"], "must end in .csv, .parquet, .json"),
        (model, [clip, "--workers", "0"], "workers=0 must be at least 1"),
        (model, [clip, "--threads", "0"], "threads=0 must be at least 1"),
        (model, [clip, "-o", str(own)], "is there and holds no predictions"),
        (model, [clip, "--hop-s", "-1"], "hop_s=-1.0 must be a positive number"),
    ):
        assert predict(folder, *args) == 2
        assert message in capsys.readouterr().err


def test_the_page_names_every_option() -> None:
    page = (Path(__file__).parent.parent / "docs" / "predict.md").read_text(encoding="utf-8")
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    for action in parser._actions:
        for option in action.option_strings[:1]:
            assert option in page, option
