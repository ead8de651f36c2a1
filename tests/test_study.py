"""Studies: what a file amounts to, what is run and kept, what is refused, and what the table says."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import yaml

import finetune.study.figure
import finetune.study.job
import finetune.study.output
from finetune.__main__ import main
from finetune.jobs import LOG, Job
from finetune.study.figure import draw_study
from finetune.study.grid import RESULTS, Run, every_run
from finetune.study.intervals import Estimate
from finetune.study.job import reason_of, run_study
from finetune.study.output import write_outputs
from finetune.study.plan import Plan, plan_study
from finetune.study.results import read_scores
from finetune.study.spec import read_study
from finetune.study.store import FINISHED, Store
from finetune.study.summary import Summary
from hicmae.data.shard_writer import write_shards
from pretrain.__main__ import main as pretrain_main
from tests.corpus import EMOTIONS, make_corpus
from tests.test_finetune import leave_out_figures
from tests.test_folds import folded, leave_results
from tests.test_pretrain import SMALL

CONFIGS = sorted((Path(__file__).parent.parent / "configs" / "studies").glob("*.yaml"))
STUDIES = [path for path in CONFIGS if path.name not in ("pretrain.yaml", "finetune.yaml", "corpus.yaml")]
PRETRAIN = {
    "model": {"preset": "micro", "architecture": SMALL, "optimizer": {"warmup_epochs": 0.5, "lr_per_256": 0.2}},
    "data": {"batch_size": 4, "num_workers": 0}, "wandb": "off",
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1},
}  # fmt: skip
FINETUNE = {
    "model": {
        "labels": {"classes": {"emotion": list(EMOTIONS)}, "dimensions": {"valence": [0, 1]}},
        "optimizer": {"warmup_epochs": 0.5, "lr_per_256": 0.2},
    },
    "data": {"batch_size": 4, "num_workers": 0, "test_segments": 1}, "wandb": "off",
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of one division, one of two folds, shards without labels, and the jobs' files."""
    root = tmp_path_factory.mktemp("study")
    made = make_corpus(root / "corpus", 16)
    write_shards(made, root / "shards", shard_mb=0.1)
    folded(root / "folded", 12, 2)
    (root / "pretrain.yaml").write_text(yaml.safe_dump(PRETRAIN))
    (root / "finetune.yaml").write_text(yaml.safe_dump(FINETUNE))
    return root


def study(folder: Path, path: Path, **changes: Any) -> Path:
    """A study's file: two pre-trainings, two fine-tunings, two seeds, with something changed."""
    content: dict[str, Any] = {
        "title": "A test",
        "corpus": {"labelled": str(folder / "corpus" / "manifest.csv"), "unlabelled": [str(folder / "shards")]},
        "seeds": [0, 1],
        "pretraining": {
            "config": str(folder / "pretrain.yaml"),
            "variants": {"paper": {}, "no contrast": {"model.objective.contrastive_weight": 0.0}},
        },
        "finetuning": {
            "config": str(folder / "finetune.yaml"),
            "variants": {"both": {}, "sound": {"model.modalities": ["audio"]}},
        },
        "compare": {"pretraining": "paper", "finetuning": "both"},
    }
    for name, value in changes.items():
        *groups, last = name.split("__")
        place = content
        for group in groups:
            place = place[group]
        place[last] = value
        if last == "variants" and "compare" not in changes:
            content.pop("compare", None)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


_PLANS: dict[str, Plan] = {}


def plan_of(folder: Path, path: Path, **changes: Any) -> Plan:
    """Planned once for all tests that ask for the same, as every variant is read anew."""
    key = repr((folder, changes))
    if key not in _PLANS:
        _PLANS[key] = plan_study(read_study(study(folder, path, **changes)))
    return _PLANS[key]


def names(plan: Plan, kind: str) -> list[str]:
    return [run.title for run in every_run(plan.rows).values() if run.kind == kind]


# ---------------------------------------------------------------- planning


def test_rows_are_the_product_and_share_pre_trainings(folder: Path, tmp_path: Path) -> None:
    plan = plan_of(folder, tmp_path / "a.yaml")
    assert [(row.pretraining, row.finetuning, row.seed, row.fold) for row in plan.rows] == [
        (pretraining, finetuning, seed, None)
        for pretraining in ("paper", "no contrast") for finetuning in ("both", "sound") for seed in (0, 1)
    ]  # fmt: skip
    assert sorted(names(plan, "pretrain")) == [
        "no contrast, seed 0", "no contrast, seed 1", "paper, seed 0", "paper, seed 1",
    ]  # fmt: skip
    assert len(names(plan, "finetune")) == 8
    by_title = {run.title: run for run in every_run(plan.rows).values()}
    assert by_title["paper, both, seed 1"].needs == (by_title["paper, seed 1"],)


def test_a_digest_changes_with_what_decides_the_result_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    def digests(name: str, **changes: Any) -> dict[tuple[str, str], str]:
        plan = plan_of(folder, tmp_path / f"{name}.yaml", **changes)
        runs = every_run(plan.rows).values()
        return {(run.kind, run.title): run.digest for run in runs}

    before = digests("a")
    assert len(set(before.values())) == len(before)
    # Other names of variants, another title and where files lie: the same runs.
    moved = tmp_path / "moved"
    shutil.copytree(folder / "shards", moved / "shards")
    renamed = digests(
        "b", title="Another", corpus__unlabelled=[str(moved / "shards")],
        pretraining__variants={"ours": {}, "x": {"model.objective.contrastive_weight": 0.0}},
        pretraining__set={"data.num_workers": 1, "trainer.log_every_n_steps": 3, "model.objective.negatives": "local"},
    )  # fmt: skip
    assert sorted(renamed.values()) == sorted(before.values())
    # An option of fine-tuning: other fine-tunings of the same pre-trainings.
    other = digests("c", finetuning__set={"data.batch_size": 2})
    for key, digest in before.items():
        assert (other[key] == digest) == (key[0] == "pretrain")
    # An option of pre-training, threads, clips: everything that follows.
    for name, changes in {
        "d": {"pretraining__set": {"trainer.max_epochs": 3}},
        "e": {"threads": 2},
    }.items():
        assert not set(digests(name, **changes).values()) & set(before.values())
    more = digests("f", corpus__labelled=str(folded(tmp_path / "g", 12, 2)), folds=[2])
    assert {key[1] for key in more if key[0] == "finetune"} > {"paper, both, seed 0, fold 2"}
    assert {digest for key, digest in more.items() if key[0] == "pretrain"} <= set(before.values())


def test_scratch_takes_the_size_of_the_pre_training_and_needs_none(folder: Path, tmp_path: Path) -> None:
    variants = {"paper": {}, "scratch": None, "wider": {"init": None, "model.architecture.width": 64}}
    plan = plan_of(folder, tmp_path / "a.yaml", pretraining__variants=variants, seeds=[0])
    runs = {run.title: run for run in every_run(plan.rows).values()}
    scratch, wider = runs["scratch, both, seed 0"], runs["wider, both, seed 0"]
    assert not scratch.needs
    assert scratch.settings["model"]["init"] is None
    assert scratch.settings["model"]["architecture"] == SMALL
    assert wider.settings["model"]["architecture"] == SMALL | {"width": 64}
    assert runs["paper, both, seed 0"].settings["model"]["architecture"] is None  # the export brings it
    assert names(plan, "pretrain") == ["paper, seed 0"]


def test_all_folds_and_some_products(folder: Path, tmp_path: Path) -> None:
    manifest = str(folder / "folded" / "manifest.csv")
    runs = [{"pretraining": "paper"}, {"pretraining": "no contrast", "finetuning": ["sound"]}]
    plan = plan_of(folder, tmp_path / "a.yaml", corpus__labelled=manifest, folds="all", runs=runs, seeds=[3])
    assert [(row.pretraining, row.finetuning, row.fold) for row in plan.rows] == [
        ("paper", "both", 1), ("paper", "both", 2), ("paper", "sound", 1), ("paper", "sound", 2),
        ("no contrast", "sound", 1), ("no contrast", "sound", 2),
    ]  # fmt: skip
    assert len(names(plan, "pretrain")) == 2  # of any fold
    assert all(row.run.settings["data"]["test_fold"] == row.fold for row in plan.rows)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "key": ({"pretrainings": {}}, "'pretrainings' is not known here; did you mean 'pretraining'?"),
    "inner key": ({"pretraining__varants": {}}, "pretraining: 'varants' is not known here; did you mean 'variants'?"),
    "option": (
        {"finetuning__variants": {"few": {"data.val_fracton": 0.1}}},
        r"variant 'few' of 'paper': there is no option 'data.val_fracton'; did you mean 'data.val_fraction'\?",
    ),
    "value": ({"finetuning__variants": {"few": {"data.batch_size": "many"}}}, "variant 'few'.*batch_size"),
    "field": (
        {"pretraining__variants": {"x": {"model.architecture.widht": 3}}},
        "variant 'x', model.architecture: 'widht' is not known here; did you mean 'width'",
    ),
    "contradiction": ({"pretraining__variants": {"x": {"model.architecture.heads": 5}}}, "variant 'x': .*heads=5"),
    "init": ({"pretraining__variants": {"x": {"init": "no/where"}}}, "variant 'x': no checkpoint at no/where"),
    "seed": ({"finetuning__variants": {"x": {"data.seed": 1}}}, "data.seed is set by the study itself"),
    "compare": ({"compare": {"pretraining": "papr"}}, "compare.pretraining: 'papr' is not .* mean 'paper'"),
    "of": ({"finetuning__variants": {"x": {"test_only": True, "of": "y"}}}, "variant 'x', of: 'y' is not known"),
    "runs": ({"runs": [{"pretraining": ["pape"]}]}, "runs, number 1, pretraining: 'pape' .* mean 'paper'"),
    "metric": ({"metrics": ["uarr"]}, "metrics: 'uarr' is not known here; did you mean 'uar'"),
    "no folds": ({"folds": [1]}, "the corpus has one fixed division"),
    "clips": ({"corpus__labelled": "no/where.csv"}, "no/where.csv"),
    "figure": ({"figure": {"kind": "lines"}}, "lines need the option whose values are on the axis"),
    "axis": (
        {"figure": {"kind": "lines", "x": "finetuning.data.label_fractoin"}},
        "no option of finetuning; did you mean 'data.label_fraction'",
    ),
    "axis of names": ({"figure": {"kind": "lines", "x": "finetuning.model.modalities"}}, "no number in any variant"),
    "logarithm": (
        {"figure": {"kind": "lines", "x": "pretraining.model.objective.contrastive_weight", "log": True}},
        "0.0 in 'no contrast', which a logarithmic axis has no place for",
    ),
    "seeds": ({"seeds": [1, 1]}, "seeds: .* not a list of different whole numbers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_before_anything_runs(
    case: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, message = WRONG[case]
    path = study(folder, tmp_path / "s.yaml", **changes)
    assert main(["study", str(path), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert re.search(message, said), said
    assert not (tmp_path / "runs").exists()


def test_a_name_that_stands_twice_is_refused(folder: Path, tmp_path: Path) -> None:
    path = study(folder, tmp_path / "s.yaml")
    path.write_text(path.read_text().replace("no contrast:", "paper:"))
    with pytest.raises(ValueError, match="'paper' stands there twice"):
        read_study(path)


@pytest.mark.parametrize("path", STUDIES, ids=[path.stem for path in STUDIES])
def test_shipped_studies_are_understood(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent.parent.parent)
    if "lab" in path.stem:
        read_study(path)  # its clips are a lab's
    else:
        assert plan_study(read_study(path)).rows


# ---------------------------------------------------------------- running, with commands that are not the jobs


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Runs copy the results of a template and note their names in ``ran``; those named in ``broken`` fail, those named
    in ``slow`` take their time."""
    template = tmp_path / "template"
    for number in range(3):
        table = leave_results(template / str(number), number)
        for column in ("clip_id", "subject"):  # of the same clips, whatever their fold
            table[column] = table[column].str.replace(f"f{number}", "")
        table.to_parquet(template / str(number) / "predictions.parquet")
    for name in ("ran", "broken", "slow"):
        (tmp_path / name).write_text("")

    def prepare(store: Store, run: Run) -> list[str]:
        folder = store.folder(run)
        is_named = f'grep -qxF "{run.title}" {tmp_path}'
        lines = [
            f'echo "{run.title}" >> {tmp_path}/ran',
            f"{is_named}/slow && exec sleep 60",
            f'if {is_named}/broken; then echo "12:00:00 ERROR out of luck"; exit 7; fi',
        ]
        for name in RESULTS[run.kind]:
            lines += [f"mkdir -p $(dirname {folder}/{name})", f"touch {folder}/{name}"]
        if run.kind == "finetune":
            lines += [f"cp {template}/{int(run.digest, 16) % 3}/* {folder}", f"mkdir -p {folder}/checkpoints"]
        return ["sh", "-c", "\n".join(lines)]

    monkeypatch.setattr(Store, "prepare", prepare)
    monkeypatch.setattr(finetune.study.output, "draw_study", lambda *_: None)
    return tmp_path


def ran(stubs: Path) -> list[str]:
    return (stubs / "ran").read_text().splitlines()


def test_runs_follow_what_they_need_and_are_made_once(folder: Path, stubs: Path, tmp_path: Path) -> None:
    plan, store = plan_of(folder, tmp_path / "a.yaml"), Store(tmp_path / "runs")
    assert run_study(plan, store, tmp_path / "out", parallel=2) == 0
    order = ran(stubs)
    assert len(order) == len(set(order)) == 12
    for row in plan.rows:
        assert order.index(row.run.needs[0].title) < order.index(row.run.title)
        assert not (store.folder(row.run) / "checkpoints").exists()
    assert run_study(plan, Store(tmp_path / "runs"), tmp_path / "out") == 0
    assert ran(stubs) == order
    # Another study, with other names: shared runs are found, and one more seed is run.
    variants = {"ours": {}}
    more = plan_of(folder, tmp_path / "b.yaml", pretraining__variants=variants, seeds=[0, 1, 2], compare={})
    kept = Store(tmp_path / "runs", keep_checkpoints=True)
    assert run_study(more, kept, tmp_path / "out2") == 0
    assert ran(stubs)[12:] == ["ours, seed 2", "ours, both, seed 2", "ours, sound, seed 2"]
    assert (kept.folder(more.rows[2].run) / "checkpoints").exists()


def test_a_run_that_fails_leaves_a_hole_and_the_rest_goes_on(
    folder: Path, stubs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (stubs / "broken").write_text("paper, seed 1\nno contrast, sound, seed 0\n")
    plan, store, out = plan_of(folder, tmp_path / "a.yaml"), Store(tmp_path / "runs"), tmp_path / "out"
    assert run_study(plan, store, out) == 1
    table = pd.read_csv(out / "table.csv")
    status = table.groupby(["pretraining", "finetuning", "seed"])["status"].first().to_dict()
    reason = "failed: out of luck"
    assert status["no contrast", "sound", 0] == reason
    assert status["paper", "both", 1] == status["paper", "sound", 1] == f"not run: pre-training paper, seed 1 {reason}"
    assert list(status.values()).count("finished") == 5
    assert table[table.status != "finished"].value.isna().all()
    assert table[table.status == "finished"].value.notna().all()
    report = (out / "report.md").read_text()
    assert "5 of 8 rows are finished" in report
    assert f"- fine-tuning no contrast, sound, seed 0: {reason}" in report
    assert "2 runs that need it are left out" in caplog.text
    # The reason is remembered by later starts that do not try again.
    assert run_study(plan, store, out, only="no contrast, both") == 0
    write_outputs(plan, Store(tmp_path / "runs"), tmp_path / "again", {})
    for place in (out, tmp_path / "again"):
        pd.testing.assert_frame_equal(pd.read_csv(place / "table.csv"), table)
    (stubs / "broken").write_text("")
    before = len(ran(stubs))
    assert run_study(plan, store, out) == 0
    assert sorted(ran(stubs)[before:]) == [
        "no contrast, sound, seed 0", "paper, both, seed 1", "paper, seed 1", "paper, sound, seed 1",
    ]  # fmt: skip
    assert (pd.read_csv(out / "table.csv").status == "finished").all()


def test_a_reason_says_what_the_last_words_do_not(tmp_path: Path) -> None:
    job = Job(name="a", command=[], folder=tmp_path)
    (tmp_path / LOG).write_text("12:00:00 ERROR out of luck\n\n")
    assert reason_of(job, 7) == "out of luck"
    assert reason_of(job, 0) == "it ended well and left no results; the last it said: out of luck"
    assert reason_of(job, -9) == "ended by SIGKILL, as when memory runs out; the last it said: out of luck"
    assert reason_of(job, -15) == "ended by SIGTERM; the last it said: out of luck"
    (tmp_path / LOG).write_text("")
    assert reason_of(job, 7) == "status 7"


def test_a_run_that_another_study_began_meanwhile_is_found_by_whatever_name(folder: Path, tmp_path: Path) -> None:
    ours = plan_of(folder, tmp_path / "a.yaml", pretraining__variants={"ours": {}}).rows[0].run
    theirs = plan_of(folder, tmp_path / "b.yaml", pretraining__variants={"theirs": {}}).rows[0].run
    assert ours.digest == theirs.digest
    first, second = Store(tmp_path / "runs"), Store(tmp_path / "runs")
    assert not first.is_finished(ours)  # looks for it before the other makes its folder
    second.prepare(theirs.needs[0])
    second.prepare(theirs)
    first.prepare(ours)
    assert first.folder(ours) == second.folder(theirs)
    assert len(list(tmp_path.glob("runs/finetune-*"))) == 1


def test_a_kill_while_checkpoints_are_removed_does_not_undo_a_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, store = plan_of(folder, tmp_path / "a.yaml").rows[0].run, Store(tmp_path / "runs")
    for name in RESULTS[run.kind]:
        (store.folder(run) / name).parent.mkdir(parents=True, exist_ok=True)
        (store.folder(run) / name).touch()

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        store.finish(run, 1.0)
    assert store.is_finished(run)


def test_a_probe_is_chosen_by_the_lowest_error(folder: Path, tmp_path: Path) -> None:
    plan = plan_of(
        folder, tmp_path / "a.yaml", finetuning__variants={"frozen": {"job": "probe"}}, metrics=["mae_valence", "mae"]
    )
    row, store = plan.rows[0], Store(tmp_path / "runs")
    place = store.folder(row.run) / "probe"
    place.mkdir(parents=True)
    found: list[dict[str, Any]] = [
        {"feature": feature, "method": "linear", "task": "valence", "setting": "1"}
        | {part: {"mae_valence": value, "mae": value} for part in ("val", "test")}
        for feature, value in (("a", 0.3), ("b", 0.1), ("c", None), ("d", 0.2))
    ]
    found[2]["test"] = found[0]["test"]
    about = {"label": "", "labels": {"classes": {}, "dimensions": ["valence"]}}
    (place / "probe.json").write_text(json.dumps({"about": about, "rows": found}))
    names = ["feature", "method", "task", "split", "clip_id"]
    pd.DataFrame([["b", "linear", "valence", "test", "x"]], columns=names).to_parquet(place / "predictions.parquet")
    assert read_scores(plan.study, row, store)[0].detail == "b, linear (1)"


def test_a_study_that_was_killed_repeats_no_finished_run(folder: Path, stubs: Path, tmp_path: Path) -> None:
    plan, out = plan_of(folder, tmp_path / "a.yaml"), tmp_path / "out"
    (stubs / "slow").write_text("paper, sound, seed 1\n")
    child = multiprocessing.get_context("fork").Process(
        target=run_study, args=(plan, Store(tmp_path / "runs"), out), kwargs={"parallel": 1}
    )
    child.start()
    deadline = time.monotonic() + 60
    while "paper, sound, seed 1" not in ran(stubs) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    before = ran(stubs)
    (stubs / "slow").write_text("")
    finished = {json.loads(path.read_text())["run"].split(" ", 1)[1] for path in tmp_path.glob(f"runs/*/{FINISHED}")}
    assert finished == set(before) - {"paper, sound, seed 1"}
    assert run_study(plan, Store(tmp_path / "runs"), out) == 0
    after = ran(stubs)[len(before) :]
    assert not finished & set(after)
    assert finished | set(after) == {run.title for run in every_run(plan.rows).values()}


def test_the_same_scores_give_the_same_files(folder: Path, stubs: Path, tmp_path: Path) -> None:
    plan = plan_of(folder, tmp_path / "a.yaml")
    texts = []
    for number in range(2):
        out = tmp_path / f"out{number}"
        assert run_study(plan, Store(tmp_path / f"runs{number}"), out, parallel=1 + number) == 0
        texts.append([(out / name).read_bytes() for name in ("table.csv", "summary.csv", "differences.csv")])
    assert texts[0] == texts[1]
    table = pd.read_csv(tmp_path / "out0" / "table.csv")
    assert set(table.checkpoint) == {"best", "last"}
    assert len(table) == 8 * 2 * 2
    one = table[(table.run == Store(tmp_path / "runs0").folder(plan.rows[0].run).name) & (table.checkpoint == "best")]
    scores = json.loads((tmp_path / "runs0" / one.run.iloc[0] / "metrics.json").read_text())["best"]["test"]
    assert one.set_index("metric").value.to_dict() == pytest.approx({"uar": scores["uar"], "war": scores["war"]})
    differences = pd.read_csv(tmp_path / "out0" / "differences.csv")
    assert set(differences.axis) == {"pretraining", "finetuning"}
    assert len(differences) == (2 + 2) * 2


def test_some_rows_alone(folder: Path, stubs: Path, tmp_path: Path) -> None:
    plan, store = plan_of(folder, tmp_path / "a.yaml"), Store(tmp_path / "runs")
    assert run_study(plan, store, tmp_path / "out", only="paper, both, seed 0") == 0
    assert ran(stubs) == ["paper, seed 0", "paper, both, seed 0"]
    for wrong, reason in (({"only": "papr"}, "there is no such row"), ({"only": "(paper"}, "put a backslash before"),
                          ({"parallel": 0}, "must be at least 1")):  # fmt: skip
        with pytest.raises(ValueError, match=reason):
            run_study(plan, store, tmp_path / "out", **wrong)  # type: ignore[arg-type]


def test_check_lists_runs_and_runs_nothing(
    folder: Path, stubs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, runs = study(folder, tmp_path / "a.yaml"), tmp_path / "runs"
    run_study(plan_study(read_study(path)), Store(runs), tmp_path / "out", only="paper, both, seed 0")
    before = ran(stubs)
    capsys.readouterr()
    assert main(["study", str(path), "--check", "--runs", str(runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("finished") for line in lines) == 2
    assert lines[-1] == "8 rows from 12 runs (4 pretrain, 8 finetune); 10 are to be run"
    assert ran(stubs) == before


# ---------------------------------------------------------------- running, in earnest


class InProcess:
    """Runs a study's commands here, one after another: a process's start takes longer than these runs."""

    def __init__(self, slots: Any) -> None:
        self.seconds: dict[str, float] = {}
        self.stopped_by = None

    def run(self, jobs: list[Job], on_end: Callable[[Job, int], list[Job]]) -> None:
        pending = list(jobs)
        while pending:
            job = pending.pop(0)
            assert job.command[:2] == [sys.executable, "-m"]
            job.folder.mkdir(parents=True, exist_ok=True)
            (job.folder / LOG).touch()
            status = {"pretrain": pretrain_main, "finetune": main}[job.command[2]](job.command[3:])
            self.seconds[job.name] = 1.0
            pending = on_end(job, status) + pending


def test_a_study_from_clips_to_figure(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune.study.job, "JobRunner", InProcess)
    leave_out_figures(monkeypatch)
    variants = {
        "fine-tuned": {},
        "frozen": {"job": "probe", "method": "linear"},
        "no picture": {"test_only": True, "of": "fine-tuned", "data.test_without": "video"},
    }
    path = study(
        folder, tmp_path / "a.yaml", seeds=[0], pretraining__variants={"paper": {}}, finetuning__variants=variants,
        compare={"finetuning": "fine-tuned"},
    )  # fmt: skip
    out, runs = tmp_path / "out", tmp_path / "runs"
    assert main(["study", str(path), "--runs", str(runs), "--out", str(out)]) == 0
    table = pd.read_csv(out / "table.csv", keep_default_na=False)
    assert list(zip(table.finetuning, table.checkpoint, table.metric, strict=True)) == [
        ("fine-tuned", "best", "uar"), ("fine-tuned", "last", "uar"), ("fine-tuned", "best", "war"),
        ("fine-tuned", "last", "war"), ("frozen", "frozen", "uar"), ("frozen", "frozen", "war"),
        ("no picture", "best", "uar"), ("no picture", "best", "war"),
    ]  # fmt: skip
    assert set(table.status) == {"finished"}
    assert "linear" in table[table.finetuning == "frozen"].detail.iloc[0]
    probe = next(runs.glob("probe-*"))
    rows = json.loads((probe / "probe" / "probe.json").read_text())["rows"]
    linear = [row for row in rows if row["method"] == "linear" and row["task"] == "emotion"]
    best = max(linear, key=lambda row: row["val"]["uar"])
    assert float(table[(table.finetuning == "frozen") & (table.metric == "uar")].value.iloc[0]) == best["test"]["uar"]
    tested = json.loads((next(runs.glob("test-*")) / "test" / "metrics.json").read_text())
    assert tested["about"]["test_without"] == "video"
    assert (out / "figure.png").stat().st_size > 0
    report = (out / "report.md").read_text()
    assert "no picture - fine-tuned" in report
    assert str(tmp_path) not in report
    assert not list(runs.glob("*/checkpoints"))


# ---------------------------------------------------------------- the figure


def made_up(mean: float) -> Estimate:
    return Estimate(
        mean=mean, sd=0.01, n=2, seeds=None, speakers=None, both=(mean - 0.1, mean + 0.1), groups=4
    )  # fmt: skip


def test_lines_stand_at_the_values_of_their_option(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: dict[str, float | None] = {"all": None, "few": 0.1}
    plan = plan_of(
        folder, tmp_path / "a.yaml", pretraining__variants={"paper": {}, "scratch": None},
        finetuning__variants={  # the default has its place as well
            name: {} if share is None else {"data.label_fraction": share} for name, share in shares.items()
        },
        figure={"kind": "lines", "x": "finetuning.data.label_fraction", "log": True},
    )  # fmt: skip
    pairs = {
        (start, name): 0.2 + 0.5 * (share or 1) for start in ("paper", "scratch") for name, share in shares.items()
    }
    summary = Summary(
        means={(*pair, "best", metric): made_up(mean) for pair, mean in pairs.items() for metric in ("uar", "war")},
        differences={}, headline=dict.fromkeys(pairs, "best"),
    )  # fmt: skip
    drawn: list[Any] = []
    monkeypatch.setattr(finetune.study.figure, "save_figure", lambda figure, path: drawn.append(figure))
    draw_study(plan, summary, tmp_path / "figure.png")
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "log"
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}
    assert lines == {name: ([0.1, 1.0], pytest.approx([25.0, 70.0])) for name in ("paper", "scratch")}
    assert len(axes.collections) == 2  # bands
    plt.close(drawn[0])


def test_bars_name_the_one_pre_training_that_is_finished(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(folder, tmp_path / "a.yaml")
    pairs = [("paper", "both"), ("paper", "sound")]
    summary = Summary(
        means={(*pair, "best", "uar"): made_up(0.5) for pair in pairs}, differences={},
        headline=dict.fromkeys([*pairs, ("no contrast", "both")], "best"),
    )  # fmt: skip
    drawn: list[Any] = []
    monkeypatch.setattr(finetune.study.figure, "save_figure", lambda figure, path: drawn.append(figure))
    draw_study(plan, summary, tmp_path / "figure.png")
    legend = drawn[0].axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["paper"]
    plt.close(drawn[0])


def test_random_weights_are_a_line_across_lengths_of_pre_training(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = {"scratch": None, "short": {"trainer.max_epochs": 2}, "long": {"trainer.max_epochs": 9}}
    plan = plan_of(
        folder, tmp_path / "a.yaml", pretraining__variants=variants, finetuning__variants={"tuned": {}},
        figure={"kind": "lines", "x": "pretraining.trainer.max_epochs"},
    )  # fmt: skip
    means = {(name, "tuned", "best", "uar"): made_up(0.3) for name in variants}
    summary = Summary(means=means, differences={}, headline={(name, "tuned"): "best" for name in variants})
    drawn: list[Any] = []
    monkeypatch.setattr(finetune.study.figure, "save_figure", lambda figure, path: drawn.append(figure))
    draw_study(plan, summary, tmp_path / "figure.png")
    lines = {line.get_label(): list(line.get_xdata()) for line in drawn[0].axes[0].get_lines()}
    assert lines["tuned"] == [2.0, 9.0]
    assert set(lines) == {"tuned", "tuned, scratch"}
    plt.close(drawn[0])
