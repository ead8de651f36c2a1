"""The page about a run: every section with true numbers, nothing from elsewhere, and what is missing said."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support

from finetune.fold_results import collect_folds
from finetune.protocol import PAPER_PROTOCOL
from hicmae.cli import main
from hicmae.data.shard_writer import write_shards
from hicmae.report.feature_map import Groups, neighbour_recall
from hicmae.report.history import course, read_history
from hicmae.report.material import Material, ReportSettings
from hicmae.report.page import PARTS, make_sections, render
from hicmae.report.run import open_run
from hicmae.report.status import status_of
from hicmae.report.svg import ticks
from hicmae.training.process_mark import is_running, own_mark
from tests.corpus import EMOTIONS, make_corpus
from tests.run_directories import (
    make_finetune_run,
    make_pretrain_run,
    training_lines,
    write_config,
    write_history,
    write_record,
)


class Page(HTMLParser):
    """A page as sections of text and cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text: dict[str, str] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self.images: list[bytes] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self._section, self._cell = "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        if tag == "section":
            self._section = values["id"]
            self.text[self._section], self.rows[self._section] = "", []
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            if values.get(name):
                self._refer(values[name])
        if self._section and tag == "tr":
            self.rows[self._section].append([])
        if self._section and tag in ("td", "th"):
            self.rows[self._section][-1].append("")
            self._cell = True

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def _refer(self, target):
        if target.startswith("data:image/webp;base64,"):
            self.images.append(base64.b64decode(target.partition(",")[2]))
        elif not target.startswith("#"):
            self.references.append(target)

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = False
        if tag == "section":
            self._section = ""

    def handle_data(self, data):
        if self._section:
            self.text[self._section] += data
            if self._cell:
                self.rows[self._section][-1][-1] += data

    def row(self, section: str, first: str) -> list[str]:
        return next(row for row in self.rows[section] if row[0] == first)


def material(root: Path, **settings) -> Material:
    return Material(run=open_run(root), settings=ReportSettings(**settings))


def page_of(made: Material) -> Page:
    return Page(render(made, make_sections(made)))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("report") / "corpus", 12).path


@pytest.fixture(scope="module")
def pretrained(manifest) -> Path:
    from hicmae.data.manifest import read_manifest

    folder = manifest.parent.parent
    write_shards(read_manifest(manifest), folder / "shards", shard_mb=0.1)
    return make_pretrain_run(folder / "pretrain", folder / "shards")


@pytest.fixture(scope="module")
def finetuned(manifest) -> Path:
    return make_finetune_run(manifest.parent.parent / "finetune", manifest, label=PAPER_PROTOCOL, test=list(range(12)))


@pytest.fixture(scope="module")
def pretrain_file(pretrained) -> Path:
    """Written by the command, with the animations beside it."""
    path = pretrained.parent / "pages" / "pretrain.html"
    given = [str(pretrained), "--animated", "2", "-o", str(path), "--animations", str(path.parent / "webp")]
    assert main(["report", *given]) == 0
    return path


@pytest.fixture(scope="module")
def pretrain_page(pretrain_file) -> Page:
    return Page(pretrain_file.read_text())


@pytest.fixture(scope="module")
def pretrain_material(pretrained) -> Material:
    return material(pretrained, animated=2)


@pytest.fixture(scope="module")
def finetune_page(finetuned) -> Page:
    return page_of(material(finetuned))


# ---------------------------------------------------------------- pre-training


def test_a_pre_training_page_has_every_section(pretrain_page: Page) -> None:
    assert list(pretrain_page.text) == [part.name for part in PARTS["pretrain"]]
    for name, text in pretrain_page.text.items():
        assert "Not here" not in text, name
        assert "could not be made" not in text, name


def test_its_numbers_are_those_of_the_run(pretrain_page: Page) -> None:
    text = pretrain_page.text
    assert "finished" in text["overview"]
    assert "12 of 12" in text["overview"]
    assert "abc1234" in text["overview"]
    assert pretrain_page.row("losses", "train/loss") == ["train/loss", "1.9000", "0.8000", "0.8000", "12"]
    assert "12 of 12 training clips, which the model has seen" in text["features"]
    assert "75%" in text["reconstructions"]
    assert pretrain_page.row("data", "truncated") == ["truncated", "3"]
    assert [row[:3] for row in pretrain_page.rows["data"] if row[0] in ("train", "test")] == [
        ["test", "3", "1"], ["train", "9", "3"],
    ]  # fmt: skip
    assert "video_mask_ratio: 0.75" in text["configuration"]


def test_retrieval_is_that_of_the_features(pretrain_page: Page, pretrain_material: Material) -> None:
    features = pretrain_material.features
    assert features.video is not None
    assert features.audio is not None
    for tap in features.taps:
        video, audio = (torch.nn.functional.normalize(torch.from_numpy(x[tap]), dim=-1).double()
                        for x in (features.video, features.audio))  # fmt: skip
        places = [(row >= row[i]).sum().item() for i, row in enumerate(video @ audio.T)]
        shares = [f"{100 * np.mean([place <= at for place in places]):.1f}" for at in (1, 5, 10)]
        row = pretrain_page.row("retrieval", f"video to audio, layer {tap + 1}")
        assert row[1:] == [*shares, f"{np.median(places):g}"]
    assert pretrain_page.row("retrieval", "chance")[1:] == ["8.3", "41.7", "83.3", "6.5"]


def test_reconstructions_play(pretrain_page: Page) -> None:
    moving = [Image.open(io.BytesIO(data)) for data in pretrain_page.images]
    moving = [image for image in moving if getattr(image, "n_frames", 1) > 1]
    assert len(moving) == 2
    for image in moving:
        assert image.n_frames == 16
        image.seek(5)
        image.load()
        assert image.info["duration"] == 160
        first, later = (np.asarray((image.seek(n), image.convert("RGB"))[1], dtype=int) for n in (0, 8))
        frame = np.s_[20:170, 5:155]  # of the original: the line that runs below it is no motion of the clip
        assert np.abs(first - later)[frame].mean() > 10


def test_the_animations_are_written_as_files_too(pretrain_file: Path, pretrain_page: Page) -> None:
    files = sorted((pretrain_file.parent / "webp").iterdir())
    assert [path.name for path in files] == ["reconstruction_0.webp", "reconstruction_1.webp"]
    assert all(path.read_bytes() in pretrain_page.images for path in files)


# ---------------------------------------------------------------- fine-tuning


def test_a_fine_tuning_page_has_every_section(finetune_page: Page) -> None:
    assert list(finetune_page.text) == [part.name for part in PARTS["finetune"]]
    for name, text in finetune_page.text.items():
        assert "Not here" not in text, name
        assert "could not be made" not in text, name


def test_scores_come_with_intervals_and_the_protocol(finetune_page: Page, finetuned: Path) -> None:
    scores = json.loads((finetuned / "metrics.json").read_text())["best"]["test"]
    low, high = scores["intervals"]["uar"]
    assert finetune_page.row("scores", "UAR (%)") == [
        "UAR (%)", f"{100 * scores['uar']:.2f}", f"{100 * low:.2f} to {100 * high:.2f}",
    ]  # fmt: skip
    assert finetune_page.row("scores", "CCC valence")[1] == f"{scores['ccc_valence']:.4f}"
    assert PAPER_PROTOCOL in finetune_page.text["overview"]
    assert PAPER_PROTOCOL[1:] in finetune_page.text["scores"]
    assert PAPER_PROTOCOL in finetune_page.text["classes"]
    assert "best on validation" not in finetune_page.text["classes"]


def test_classes_are_scored_as_sklearn_does(finetune_page: Page, finetuned: Path) -> None:
    table = pd.read_parquet(finetuned / "predictions.parquet")
    scores = precision_recall_fscore_support(table.label, table.predicted, labels=EMOTIONS)
    for i, name in enumerate(EMOTIONS):
        row = finetune_page.row("classes", name)
        assert row[1:4] == [f"{100 * part[i]:.1f}" for part in scores[:3]]
        assert row[4] == str(scores[3][i])
        confused = next(r for r in finetune_page.rows["classes"] if r[0].split(" ")[0] == name and len(r) == 4)
        counts = [((table.label == name) & (table.predicted == other)).sum() for other in EMOTIONS]
        assert confused[1:] == [f"{count / 4:.0%}{count}" for count in counts]


def test_speakers_and_mistakes(finetune_page: Page, finetuned: Path) -> None:
    table = pd.read_parquet(finetuned / "predictions.parquet")
    for subject, clips in table.groupby("subject"):
        right = (clips.label == clips.predicted).mean()
        assert finetune_page.row("speakers", str(subject))[1:3] == ["3", f"{100 * right:.1f}"]
    text = finetune_page.text["mistakes"]
    wrong = table[table.label != table.predicted]
    assert f"of {len(wrong)} wrong among 12" in text
    assert set(re.findall(r"clip\d+", text)) == set(wrong.clip_id)
    ordered = re.findall(r"probability ([\d.]+)", text)
    assert ordered == sorted(ordered, reverse=True)


# ---------------------------------------------------------------- folds


def test_a_page_of_folds(manifest: Path, tmp_path: Path) -> None:
    parts = {1: list(range(6)), 2: list(range(6, 12))}
    folders = {fold: make_finetune_run(tmp_path / f"fold{fold}", manifest, test=part) for fold, part in parts.items()}
    results = collect_folds(folders, {3: "stopped"})
    (tmp_path / "folds.json").write_text(json.dumps(results))
    page = page_of(material(tmp_path, clips=0))
    assert list(page.text) == [part.name for part in PARTS["folds"]]
    assert "incomplete" in page.text["overview"]
    assert "fold 3: stopped" in page.text["overview"]
    assert page.row("scores", "mean of folds")[1] == f"{100 * results['mean']['best']['uar']:.2f}"
    assert page.row("scores", "all clips together")[1] == f"{100 * results['pooled']['best']['uar']:.2f}"
    assert "12 predictions" in page.text["classes"]
    assert len([row for row in page.rows["speakers"] if row[0].startswith("subject")]) == 4


# ---------------------------------------------------------------- the file itself


def test_nothing_comes_from_elsewhere(pretrain_page: Page, finetune_page: Page) -> None:
    for page in (pretrain_page, finetune_page):
        assert page.references == []
        assert page.images
        assert page.tags.count("script") == 1
        assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)


def test_style_and_script_name_no_address(pretrain_material: Material) -> None:
    text = render(pretrain_material, [])
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "url(" not in text
    assert "@import" not in text


def test_the_same_run_gives_the_same_bytes(pretrain_file: Path, pretrain_material: Material) -> None:
    assert render(pretrain_material, make_sections(pretrain_material)) == pretrain_file.read_text()


def test_text_from_files_is_escaped(finetuned: Path, tmp_path: Path) -> None:
    evil = '<script>alert("1")</script>'
    root = tmp_path / "<img src=x>"
    shutil.copytree(finetuned, root)
    table = pd.read_parquet(root / "predictions.parquet")
    table["subject"] = evil + table["subject"]
    table["clip_id"] = evil + table["clip_id"]
    table["label"] = table["label"].replace("angry", evil)
    table["predicted"] = table["predicted"].replace("angry", evil)
    table = table.rename(columns={"probability_angry": f"probability_{evil}"})
    table.to_parquet(root / "predictions.parquet")
    metrics = json.loads((root / "metrics.json").read_text())
    metrics["about"] |= {"data": evil, "init": evil, "protocol": evil, "validation": evil}
    metrics["about"]["classes"] = [evil, *EMOTIONS[1:]]
    (root / "metrics.json").write_text(json.dumps(metrics))
    write_config(root, {"labels": {"classes": {evil: []}, "dimensions": {evil: []}}}, {"manifest": evil})
    write_history(
        root, training_lines(**{f"train/{evil}": 1.0, f"data_total/skipped_{evil}": 2.0, "data_total/clips": 9})
    )
    write_record(root, state="stopped", reason=f"ValueError: {evil}", data={"name": evil})
    page = page_of(material(root))
    assert page.tags.count("script") == 1
    assert page.references == []
    for name in ("overview", "scores", "curves", "classes", "speakers", "mistakes", "data", "configuration"):
        assert evil in page.text[name], name


# ---------------------------------------------------------------- what is not there, or broken


def test_gone_data_leave_the_rest(pretrained: Path, tmp_path: Path, caplog) -> None:
    root = shutil.copytree(pretrained, tmp_path / "run")
    write_config(root, {"preset": "micro"}, {"shards": [str(tmp_path / "gone")]})
    with caplog.at_level(logging.WARNING):
        page = page_of(material(root))
    for name in ("reconstructions", "features", "retrieval"):
        assert "cannot be opened" in page.text[name]
        assert "--data" in page.text[name]
    assert "step" in page.text["curves"]
    assert "'Reconstructions' is left out" in caplog.text
    found = material(root, data=(str(pretrained.parent / "shards"),), animated=1)
    assert len(found.choice.numbers) == 12


def test_damaged_scores_are_said_and_the_curves_stay(finetuned: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finetuned, tmp_path / "run")
    (root / "metrics.json").write_text('{"about": {')
    page = page_of(material(root, clips=0))
    for name in ("scores", "classes", "speakers", "mistakes"):
        assert "metrics.json is damaged" in page.text[name], name
    assert "fine-tuning" in page.text["overview"]
    assert "learning rate" in page.text["curves"]


def test_a_section_that_breaks_stops_no_other(finetuned: Path, monkeypatch, caplog) -> None:
    def broken(*_):
        raise RuntimeError("a <b>surprise</b>")

    monkeypatch.setattr("hicmae.report.speakers.table", broken)
    page = page_of(material(finetuned, clips=0))
    assert "RuntimeError: a <b>surprise</b>" in page.text["speakers"]
    assert page.row("classes", "happy")
    assert "section 'Speakers' failed" in caplog.text


def test_a_damaged_checkpoint_is_said(pretrained: Path, tmp_path: Path) -> None:
    root = shutil.copytree(pretrained, tmp_path / "run")
    (root / "checkpoints" / "last.ckpt").write_bytes(b"PK\x03\x04 cut off")
    made = {one.name: one for one in make_sections(material(root))}
    assert made["reconstructions"].failed
    assert "last.ckpt is no pre-training checkpoint, or is damaged" in made["reconstructions"].html
    assert "model of export;" in made["retrieval"].html


def test_held_out_shards_are_looked_at_and_those_of_training_counted_too(pretrained: Path, tmp_path: Path) -> None:
    root, shards = shutil.copytree(pretrained, tmp_path / "run"), str(pretrained.parent / "shards")
    write_config(root, {"preset": "micro"}, {"shards": [shards, str(tmp_path / "gone")], "val_shards": [shards]})
    sections = {one.name: one.html for one in make_sections(material(root, clips=8, animated=0))}
    assert "8 of 12 held-out clips" in sections["retrieval"]
    assert "model of checkpoints/" in sections["retrieval"]
    assert "As stored, held out" in sections["data"]
    assert "As stored, training: the run&#39;s data cannot be opened" in sections["data"]


def test_a_device_that_is_not_there_is_refused(pretrained: Path, capsys) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert main(["report", str(pretrained), "--device", "cuda"]) == 2
    assert "finds no CUDA device" in capsys.readouterr().err


def test_a_run_that_goes_on_has_a_page(tmp_path: Path) -> None:
    write_config(tmp_path, {"preset": "micro"}, {"shards": ["nowhere"]})
    write_history(tmp_path, training_lines(5))
    write_record(tmp_path, state="running", steps=0, steps_planned=40)
    page = page_of(material(tmp_path, clips=0))
    assert "running" in page.text["overview"]
    assert "step 5 of 40" in page.text["overview"]
    assert "left out by --clips 0" in page.text["reconstructions"]


def test_a_run_that_was_killed_is_told_from_one_that_goes_on(tmp_path: Path) -> None:
    write_history(tmp_path, training_lines(5))
    own = own_mark()
    for mark, word, said in (
        (own, "running", "step 5 of 40, it was training."),
        (own | {"ticks": own["ticks"] - 1}, "killed", "--ckpt_path auto"),
        (own | {"machine": "another", "ticks": 1}, "running", "leaves no other word"),
        (None, "running", "leaves no other word"),
    ):
        write_record(tmp_path, state="running", steps_planned=40, process=mark, changed="2026-01-31T10:20:30+00:00")
        status = status_of(open_run(tmp_path))
        assert status.word == word
        assert said in status.sentence
        assert "2026-01-31 10:20 UTC" in status.sentence
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    mark = own | {"process": gone.pid, "ticks": 1}
    gone.wait()
    assert is_running(mark) is False


@pytest.mark.parametrize(
    ("record", "word", "said"),
    [
        ({"state": "stopped", "reason": "StopRequestedError"}, "stopped", "SIGTERM"),
        ({"state": "stopped", "reason": "NonFiniteLossError: step 5"}, "stopped", "clips bad1, bad2"),
        (None, "stopped", "not finite"),
    ],
)
def test_why_a_run_stopped(tmp_path: Path, record, word, said) -> None:
    write_history(tmp_path, training_lines(5))
    (tmp_path / "nonfinite").mkdir()
    (tmp_path / "nonfinite" / "step_5_rank_0.json").write_text(json.dumps({"clip_ids": ["bad1", "bad2"]}))
    if record:
        write_record(tmp_path, **record)
    status = status_of(open_run(tmp_path))
    assert status.word == word
    assert said in status.sentence


def test_what_is_no_run_is_refused(tmp_path: Path, capsys) -> None:
    assert main(["report", str(tmp_path / "absent")]) == 2
    assert "no folder" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "looked for logs/version_N/config.yaml" in capsys.readouterr().err


def test_a_page_that_cannot_be_written(finetuned: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert main(["report", str(finetuned), "--clips", "0", "-o", str(tmp_path / "file" / "page.html")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_missing_packages_are_named(tmp_path: Path, capsys, monkeypatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "sklearn" else find(name))
    assert main(["report", str(tmp_path)]) == 2
    assert "scikit-learn; install them with: pip install 'hicmae[train]'" in capsys.readouterr().err


# ---------------------------------------------------------------- pieces


def test_a_resumed_start_replaces_what_came_after_it(tmp_path: Path) -> None:
    write_history(tmp_path, [{"step": n, "train/loss": 1.0} for n in range(1, 11)])
    write_history(tmp_path, [{"step": n, "train/loss": 2.0, "val/loss": 3.0} for n in range(6, 9)], version=10)
    write_history(tmp_path, [{"step": n, "train/loss": 9.0} for n in range(3, 5)], version=9)
    steps, losses = course(read_history(tmp_path), "train/loss")
    assert steps == [1, 2, 3, 4, 6, 7, 8]
    assert losses == [1, 1, 9, 9, 2, 2, 2]


def test_a_line_that_is_being_written_does_no_harm(tmp_path: Path) -> None:
    write_history(tmp_path, training_lines(3))
    path = tmp_path / "logs" / "version_0" / "metrics.csv"
    path.write_text(path.read_text() + "4,1.")
    for name in ("train/loss", "lr"):
        assert course(read_history(tmp_path), name)[0] == [1, 2, 3]


def test_probes_are_shown_as_first_and_last_and_over_epochs(pretrain_page: Page, tmp_path: Path) -> None:
    row = pretrain_page.row("probes", "UAR of emotion, nearest neighbours")
    assert row == ["UAR of emotion, nearest neighbours", "video layers", "0.300", "0.600", "0.333"]
    assert pretrain_page.rows["probes"][0] == ["score", "best of", "random weights", "epoch 2", "chance"]
    for said in ("8 clips to fit and 4 that ask", "1 of their speakers, by name", "effective rank"):
        assert said in pretrain_page.text["probes"], said
    write_history(tmp_path, training_lines(3))
    write_config(tmp_path, {"preset": "micro"}, {})
    assert "probes" not in page_of(material(tmp_path, clips=0)).text, "a run that was not probed"


def test_neighbours_are_of_other_speakers() -> None:
    features = np.repeat(np.eye(2), 8, axis=0)  # speaker and group fall together: nobody else tells the group
    numbers, subjects = np.repeat([0, 1], 8), ["a"] * 8 + ["b"] * 8
    names = ["x", "y"]
    assert neighbour_recall(features, Groups(said="", numbers=numbers, names=names, subjects=None)) == 1
    assert neighbour_recall(features, Groups(said="", numbers=numbers, names=names, subjects=subjects)) == 0


def test_ticks_are_round_and_within() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0.61, 1.43) == [0.8, 1, 1.2, 1.4]
    assert ticks(-130, 70) == [-100, -50, 0, 50]
    assert ticks(0, 0.0015) == [0, 0.0005, 0.001, 0.0015]
    assert ticks(2, 2) == [2]
