"""Cross-validation: what is run, what is kept, what is refused, and what the report says."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sk

import finetune.folds
from finetune.__main__ import main
from finetune.evaluation import Evaluation
from finetune.fold_results import collect_folds
from finetune.jobs import LOG, Job
from finetune.protocol import Protocol
from finetune.settings import check_unchanged, resolve
from hicmae.data.manifest import read_manifest, write_manifest
from hicmae.data.source import ManifestSource
from hicmae.data.splits import content_digest
from hicmae.metrics import categorical_scores, dimensional_scores
from tests.corpus import EMOTIONS, make_corpus
from tests.fake_card import make_known
from tests.test_finetune import SMALL

SETTINGS = {
    "--model.preset": "micro", "--model.architecture": json.dumps(SMALL),
    "--model.labels.classes": json.dumps({"emotion": EMOTIONS}),
    "--model.labels.dimensions": json.dumps({"valence": [0, 1]}), "--model.optimizer.warmup_epochs": "0.5",
    "--model.optimizer.lr_per_256": "0.2", "--data.batch_size": "4", "--data.num_workers": "0",
    "--trainer.max_epochs": "2", "--trainer.accelerator": "cpu", "--trainer.devices": "1", "--wandb": "off",
    "--checkpoint.every_n_train_steps": "1",
}  # fmt: skip


def folded(folder: Path, count: int, folds: int) -> Path:
    """A corpus of as many folds, of two speakers each."""
    made = make_corpus(folder, count)
    rows = []
    for i, clip in enumerate(made.clips):
        labels = {"emotion": EMOTIONS[(i // folds) % 3], "valence": i / count}
        speaker, split = f"s{i % (2 * folds)}", f"fold{i % folds + 1}"
        rows.append(replace(clip, start_s=0.04 * i, subject=speaker, split=split, labels=labels))
    return write_manifest(made.path, rows)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folded(tmp_path_factory.mktemp("folds") / "corpus", 18, 3)


def arguments(manifest: Path, out: Path | None, *more: str) -> list[str]:
    own = [] if out is None else ["--out", str(out)]
    settings = SETTINGS | {"--data.manifest": str(manifest)}
    return ["folds", *own, *(f"{name}={value}" for name, value in settings.items()), *more]


def results(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "folds.json").read_text())
    return content


# ---------------------------------------------------------------- trainings that are not: what a fold leaves behind


def leave_results(folder: Path, fold: int, *, protocol: str = "", benchmark: str | None = None) -> pd.DataFrame:
    """The files of a finished run of one fold, with made-up predictions; returns them."""
    rng = np.random.default_rng(fold)
    count = 20 + fold
    tables, content = [], {}
    about = {
        "protocol": protocol, "benchmark": benchmark, "data": "a corpus", "test_fold": fold, "init": "random weights",
        "other_classes_left_out": {}, "modalities": ["video", "audio"], "columns": ["emotion"],
        "classes": list(EMOTIONS), "dimensions": ["valence"], "segments": {"val": 1, "test": 2}, "seed": 0,
        "selected_on": "val/uar (highest)", "validation": "carved from the training speakers",
        "splits": {"test": {"clips": count, "subjects": 4}},
    }  # fmt: skip
    for checkpoint, skill in (("best", 0.7), ("last", 0.5)):
        label = rng.integers(0, 3, count)
        predicted = np.where(rng.random(count) < skill, label, rng.integers(0, 3, count))
        names, values = np.array(EMOTIONS), rng.random(count)
        table = pd.DataFrame({
            "checkpoint": checkpoint, "split": "test", "clip_id": [f"f{fold}c{i}" for i in range(count)],
            "subject": [f"f{fold}s{i % 4}" for i in range(count)], "label": names[label],
            "predicted": names[predicted], "valence_target": values, "valence_prediction": values**2,
        })  # fmt: skip
        evaluation = Evaluation(
            table=table, categorical=categorical_scores(label, predicted, EMOTIONS),
            dimensional={"valence": dimensional_scores(values, values**2)}, classes=EMOTIONS, clips=count,
            decoded=count,
        )  # fmt: skip
        tables += [table, table.assign(split="val")]
        content[checkpoint] = {"step": 8, "path": str(folder), "test": evaluation.to_dict()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps({"about": about} | content))
    whole = pd.concat(tables, ignore_index=True)
    whole.to_parquet(folder / "predictions.parquet")
    return whole


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[int, list[str]]]:
    """Folds that copy the results of a template; fold 2 fails while there is a file ``broken``. Holds what was run."""
    run: list[tuple[int, list[str]]] = []

    def job(folds: Any, fold: int, name: str, given: Sequence[str]) -> Job:
        run.append((fold, list(given)))
        leave_results(tmp_path / "template" / str(fold), fold)
        script = f"cp $1/template/{fold}/* $2; if [ {fold} = 2 ] && [ -e $1/broken ]; then echo out of luck; exit 7; fi"
        command = ["sh", "-c", script, "sh", str(tmp_path), str(folds.folder(fold))]
        return Job(name=name, command=command, folder=folds.folder(fold))

    monkeypatch.setattr(finetune.folds, "_job", job)
    return run


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune.folds, "draw_fold_figures", lambda *_: None)


def test_scores_over_folds(manifest: Path, tmp_path: Path, jobs: list[Any]) -> None:
    out = tmp_path / "out"
    assert main(arguments(manifest, out)) == 0
    assert [fold for fold, _ in jobs] == [1, 2, 3]
    found = results(out)
    tables = [leave_results(tmp_path / "again", fold) for fold in (1, 2, 3)]
    for checkpoint in ("best", "last"):
        rows = [table[(table.checkpoint == checkpoint) & (table.split == "test")] for table in tables]
        uars = [sk.balanced_accuracy_score(one.label, one.predicted) for one in rows]
        maes = [float((one.valence_target - one.valence_prediction).abs().mean()) for one in rows]
        assert [found["folds"][str(fold)][checkpoint]["uar"] for fold in (1, 2, 3)] == pytest.approx(uars)
        assert found["mean"][checkpoint]["uar"] == pytest.approx(np.mean(uars))
        assert found["sd"][checkpoint]["uar"] == pytest.approx(np.std(uars, ddof=1))
        assert found["sd"][checkpoint]["mae_valence"] == pytest.approx(np.std(maes, ddof=1))
        together = pd.concat(rows)
        pooled = found["pooled"][checkpoint]
        assert pooled["uar"] == pytest.approx(sk.balanced_accuracy_score(together.label, together.predicted))
        assert pooled["confusion"] == sk.confusion_matrix(together.label, together.predicted).tolist()
        low, high = pooled["intervals"]["uar"]
        assert low < pooled["uar"] < high
        assert (pooled["intervals"]["groups"], pooled["intervals"]["over"]) == (12, "subjects")
        assert (pooled["predictions"], pooled["subjects"]) == (66, 12)
    report = (out / "report.md").read_text()
    mean, deviation, pooled = (100 * found[kind]["best"]["uar"] for kind in ("mean", "sd", "pooled"))
    assert f"| UAR (%) | {mean:.2f} | {deviation:.2f} | {pooled:.2f} |" in report
    assert "the sample's (n - 1)" in report
    assert "12 subjects they are too narrow" in report
    assert "| 2 | 22 | 0 | 4 |" in report
    assert "other numbers than the means over folds" in report
    for name in ("folds.png", "confusion_best.png", "confusion_last.png"):
        assert (out / "figures" / name).stat().st_size > 5000


@pytest.mark.usefixtures("no_figures")
def test_a_failing_fold_is_named_and_the_others_go_on(
    manifest: Path, tmp_path: Path, jobs: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    (tmp_path / "broken").touch()
    assert main(arguments(manifest, out)) == 1
    assert [fold for fold, _ in jobs] == [1, 2, 3]
    assert f"fold 2 failed with status 7; the end of {out / 'fold2' / LOG} says why: out of luck" in caplog.text
    found = results(out)
    assert not found["complete"]
    assert found["missing"] == {"2": "failed, see fold2/log.txt"}
    assert sorted(found["folds"]) == ["1", "3"]
    report = (out / "report.md").read_text()
    assert "**Incomplete: 1 of 3 folds are missing.**" in report
    assert "| 2 | missing |" in report
    # given again, it trains the one that is missing
    (tmp_path / "broken").unlink()
    jobs.clear()
    assert main(arguments(manifest, out, "--data.num_workers=3", "--trainer.log_every_n_steps=7")) == 0
    assert [fold for fold, _ in jobs] == [2]
    assert results(out)["complete"]
    assert "missing" not in (out / "report.md").read_text()


@pytest.mark.usefixtures("no_figures")
def test_a_checkpoint_that_not_every_fold_has_is_said_to_be_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = {fold: tmp_path / str(fold) for fold in (1, 2)}
    for fold, folder in folders.items():
        leave_results(folder, fold)
    metrics = json.loads((folders[1] / "metrics.json").read_text())
    del metrics["best"]
    (folders[1] / "metrics.json").write_text(json.dumps(metrics))
    assert list(collect_folds(folders, {})["mean"]) == ["last"]
    assert "leaves out the best checkpoint: of 2 folds only 2 had one" in caplog.text


def test_some_folds_only_in_the_run_directory_of_the_settings(manifest: Path, tmp_path: Path, jobs: list[Any]) -> None:
    root = tmp_path / "root"
    assert main(arguments(manifest, None, "--folds", "3,1", f"--trainer.default_root_dir={root}")) == 0
    assert [fold for fold, _ in jobs] == [3, 1]
    assert results(root)["missing"] == {"2": "not run yet"}
    assert results(root)["about"]["folds"] == 3


@pytest.mark.usefixtures("no_figures")
def test_other_settings_are_refused_by_name(
    manifest: Path, tmp_path: Path, jobs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(arguments(manifest, out)) == 0
    before = (out / "report.md").read_bytes()
    jobs.clear()
    assert main(arguments(manifest, out, "--model.drop_path=0.3")) == 2
    message = capsys.readouterr().err
    assert "model.drop_path: 0.1 before, 0.3 now" in message
    assert "Choose another --out" in message
    rows = [replace(clip, subject=f"x-{clip.subject}") for clip in read_manifest(manifest).clips]
    other = write_manifest(manifest.with_name("other.csv"), rows)
    assert main(arguments(other, out)) == 2
    assert "data.content" in capsys.readouterr().err
    same = write_manifest(manifest.with_name("same.csv"), reversed(read_manifest(manifest).clips))
    assert main(arguments(same, out)) == 0  # the same clips elsewhere, in another order
    assert jobs == []
    assert (out / "report.md").read_bytes() == before
    before_cut = manifest.read_text()
    rows = [replace(clip, start_s=0.02) for clip in read_manifest(manifest).clips]
    assert main(arguments(write_manifest(manifest.with_name("cut.csv"), rows), out)) == 2
    assert "data.media" in capsys.readouterr().err  # the same clips, of other pictures
    assert manifest.read_text() == before_cut
    marker = out / "fold1" / "finished.json"
    marker.write_text(marker.read_text().replace('"settings": "', '"settings": "0'))
    assert main(arguments(manifest, out)) == 2
    assert "remove" in capsys.readouterr().err
    (out / "settings.json").unlink()
    (out / "fold2" / "checkpoints").mkdir()
    assert main(arguments(manifest, out)) == 2
    assert "remove fold 2" in capsys.readouterr().err


@pytest.mark.usefixtures("no_figures")
def test_what_only_some_folds_would_come_upon_is_said_before_any_is_trained(
    manifest: Path, tmp_path: Path, jobs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_manifest(manifest).clips
    eve = [replace(clip, subject="eve") if clip.split in ("fold2", "fold3") else clip for clip in rows]
    assert main(arguments(write_manifest(tmp_path / "eve" / "manifest.csv", eve), tmp_path / "out")) == 2
    assert "fold2 and fold3 share 'eve'" in capsys.readouterr().err
    protocol = Protocol(test_fold=1, paper=False, content=content_digest(ManifestSource(manifest)))
    start = tmp_path / "start.ckpt"
    torch.save({"FinetuneData": protocol.to_dict()}, start)
    assert main(arguments(manifest, tmp_path / "out", f"--model.init={start}")) == 2
    assert f"{start} was trained with fold 1 as its test, so fold 2 was among" in capsys.readouterr().err
    assert jobs == []
    # of another corpus, it is a start like any other, by its bytes
    torch.save({"FinetuneData": protocol.to_dict() | {"content": "of another corpus"}}, start)
    assert main(arguments(manifest, tmp_path / "out", f"--model.init={start}")) == 0
    torch.save({}, start)
    assert main(arguments(manifest, tmp_path / "out", f"--model.init={start}")) == 2
    assert "model.init.content" in capsys.readouterr().err


def test_refusals(manifest: Path, tmp_path: Path, jobs: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    fixed = make_corpus(tmp_path / "fixed", 4).path
    cases: list[tuple[Path, tuple[str, ...], str]] = [
        (manifest, ("--data.test_fold=2",), "folds sets this itself"),
        (manifest, ("--ckpt_path", "last"), "folds sets this itself"),
        (manifest, ("--folds", "1,4"), "there is no fold 4; the folds are 1, 2, 3"),
        (manifest, ("--test_after_fit=false",), "without test scores"),
        (manifest, ("--trainer.num_nodes=2",), "one machine"),
        (manifest, ("--parallel", "0"), "at least 1"),
        (fixed, (), "python -m finetune fit"),
    ]
    for path, more, message in cases:
        assert main(arguments(path, tmp_path / "out", *more)) == 2, more
        assert message in capsys.readouterr().err
    assert jobs == []
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- a benchmark


@pytest.mark.usefixtures("no_figures")
def test_a_benchmark_is_held_against_and_shown(
    manifest: Path,
    tmp_path: Path,
    jobs: list[Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_known(monkeypatch)
    benchmark = ("--benchmark=two_folds", "--model.labels.dimensions={}")
    assert main(arguments(manifest, tmp_path / "out", *benchmark)) == 2
    assert "has 3 folds, and benchmark two_folds has 2" in capsys.readouterr().err
    other = '--model.labels.classes={"emotion": ["happy", "angry", "neutral"]}'
    assert main(arguments(manifest, tmp_path / "out", *benchmark, other)) == 2
    message = capsys.readouterr().err
    assert "['angry', 'happy', 'neutral'] of emotion, in this order" in message
    assert "['happy', 'angry', 'neutral']" in message
    assert main(arguments(manifest, tmp_path / "out", "--benchmark=two_folds")) == 2
    assert "no dimensions 'valence'; its dimensions are none" in capsys.readouterr().err
    assert main(arguments(manifest, tmp_path / "out", "--benchmark=twofold")) == 2
    assert "no benchmark is called 'twofold'" in capsys.readouterr().err
    for label in ("", "paper protocol: best epoch chosen on the test fold"):
        for fold in (1, 2):
            leave_results(tmp_path / f"fold{fold}", fold, protocol=label, benchmark="two_folds")
        folds = finetune.folds.Folds(out=tmp_path, every=(1, 2), material={})
        finetune.folds.write_report(folds, {})
        report = (tmp_path / "report.md").read_text()
        assert report.startswith("# Two Folds: 2 folds")
        assert "| Somebody | video + audio | 84.91 | a table | chosen by a coin |" in report
        assert "another task" not in report
        assert "None of these was measured here." in report
        assert ("touched once" in report) == (not label)
        assert (report.count(label) >= 4) if label else ("paper protocol" not in report)
        assert report.index("| WAR (%) |") < report.index("| UAR (%) |")  # the card's order
        assert report.index("| Somebody |") < report.index("| Of sound alone |")  # of the same modalities first
        assert "Only results of video + audio are of the same input" in report
        found = results(tmp_path)
        for kind in ("mean", "sd", "pooled"):
            assert {name: one.get("protocol", "") for name, one in found[kind].items()} == {
                "best": label,
                "last": label,
            }


# ---------------------------------------------------------------- real trainings


def assert_same_report(ours: Path, expected: Path) -> None:
    names = sorted(str(path.relative_to(expected)) for path in [*expected.glob("*.*"), *expected.glob("figures/*")])
    assert {"folds.json", "report.md", "figures/folds.png", "figures/confusion_best.png"} < set(names)
    for name in names:
        assert (ours / name).read_bytes() == (expected / name).read_bytes(), name


def test_killed_at_fold_2_and_started_again_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    """The runner is killed, its training goes down with it; the same line goes on from the checkpoint."""
    corpus = folded(tmp_path / "corpus", 16, 2)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    # steps enough to be killed between two; without a logger, which costs each process a second to import
    more = ("--trainer.max_epochs=8", "--trainer.check_val_every_n_epoch=4", "--trainer.logger=false")
    for out in (undisturbed, killed):  # fold 1 is finished before: a training of it would show nothing more
        given = [*arguments(corpus, None, *more)[1:], f"--trainer.default_root_dir={out}"]
        folds = finetune.folds._prepare(resolve(given), out)
        leave_results(folds.folder(1), 1)
        folds.finish(1)
    # undisturbed: in this process, which has imported everything
    folds = replace(folds, out=undisturbed)
    check_unchanged(undisturbed / "settings.json", folds.material, "")
    own = ["--data.test_fold=2", f"--trainer.default_root_dir={folds.folder(2)}"]
    assert main(["fit", *arguments(corpus, None, *more)[1:], *own]) == 0
    folds.finish(2)
    assert main(arguments(corpus, undisturbed, *more)) == 0
    runner = multiprocessing.get_context("fork").Process(target=main, args=(arguments(corpus, killed, *more),))
    runner.start()
    assert runner.pid is not None
    wait_for(lambda: any((killed / "fold2" / "checkpoints").glob("step*.ckpt")))
    os.kill(runner.pid, signal.SIGKILL)
    runner.join()
    wait_for(lambda: is_free(killed / "fold2" / ".lock"))
    assert not (killed / "fold2" / "metrics.json").exists()
    assert not (killed / "report.md").exists()
    assert main(arguments(corpus, killed, *more)) == 0
    assert "going on from" in (killed / "fold2" / LOG).read_text()
    assert not (killed / "fold1" / LOG).exists()
    assert_same_report(killed, undisturbed)
    assert set(results(killed)["folds"]) == {"1", "2"}


def wait_for(ready: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def is_free(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_the_command_of_a_fold(tmp_path: Path) -> None:
    folds = finetune.folds.Folds(out=tmp_path, every=(1, 2), material={})
    job = finetune.folds._job(folds, 2, "fold 2", ["--config", "a.yaml"])
    assert job.command == [
        sys.executable, "-m", "finetune", "fit", "--config", "a.yaml", "--data.test_fold=2",
        f"--trainer.default_root_dir={tmp_path / 'fold2'}", "--ckpt_path=auto",
    ]  # fmt: skip
    assert job.folder == tmp_path / "fold2"


def test_help_names_the_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["folds", "--help"])
    assert stop.value.code == 0
    assert "--parallel" in capsys.readouterr().out
