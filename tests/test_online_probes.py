"""Probes during pre-training: what they report, and that the training does not notice them."""

from __future__ import annotations

import csv
import json
import logging
import math
import random
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from hicmae.data.labels import LabelSpec
from hicmae.data.manifest import Clip, read_manifest, write_manifest
from hicmae.data.shard_writer import write_shards
from hicmae.data.source import ManifestSource
from hicmae.probe_history import ProbeHistory, ProbeRow, best, read_probes
from hicmae.training.aside import aside
from pretrain.__main__ import main
from pretrain.module import PretrainModule
from pretrain.online_probes import OnlineProbes
from pretrain.probe_clips import ProbeChoice, choose_probe_clips, find_overlap
from pretrain.probe_scores import score_parts
from pretrain.probe_words import collapsed, sentence, stillness_warning
from tests.corpus import EMOTIONS, make_corpus
from tests.test_pretrain import SMALL, arguments, curve, lines, weights
from tests.tiny_model import pretraining_model

LABELS = {"classes": {"emotion": list(EMOTIONS)}, "dimensions": {"valence": [0, 1]}}
SPEC = LabelSpec(classes={"emotion": EMOTIONS}, dimensions={"valence": (0, 1)})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("probes")
    manifest = make_corpus(folder / "corpus", 24)
    write_shards(manifest, folder / "shards", shard_mb=0.06)
    return folder


def probed(corpus: Path, root: Path, *more: str) -> list[str]:
    return arguments(
        corpus / "shards", root, f"--probe.manifest={corpus / 'corpus' / 'manifest.csv'}",
        f"--probe.labels={json.dumps(LABELS)}", "--probe.max_share=1", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain(corpus, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "plain"
    assert main(arguments(corpus / "shards", root)) == 0
    return root


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "probed"
    assert main(probed(corpus, root)) == 0
    return root


def table(root: Path) -> list[ProbeRow]:
    return read_probes(root / "probes.csv")


def of_features(root: Path) -> list[tuple[Any, ...]]:
    """All that does not depend on the machine's pace."""
    return [(r.epoch, r.step, r.part, r.metric, r.value) for r in table(root) if r.part != "run"]


def same_training(first: Path, second: Path) -> None:
    assert curve(first) == curve(second)
    for row, other in zip(lines(first), lines(second), strict=True):
        assert {n: row[n] for n in ("train/loss", "lr", "grad_norm")} == {
            n: other[n] for n in ("train/loss", "lr", "grad_norm")
        }
    expected, found = weights(first), weights(second)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    moments = [
        torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
        for root in (first, second)
    ]
    assert all(torch.equal(moments[1][i][name], value) for i, one in moments[0].items() for name, value in one.items())


# ---------------------------------------------------------------- the training does not notice


def test_losses_and_weights_are_those_of_a_run_without_to_the_last_bit(plain, run):
    same_training(plain, run)


def test_they_are_across_an_interruption_and_no_line_is_lost_or_doubled(plain, run, corpus, tmp_path, caplog):
    """Stopped within the second of two epochs, and with a line cut off in the table."""
    caplog.set_level(logging.INFO)
    assert main(probed(corpus, tmp_path, "--trainer.max_steps=8")) == 0
    assert "3 of the probe's 3 speakers occur in the pre-training data, by name: subject0, subject1" in caplog.text
    assert "18 of the probe's 18 clips occur" in caplog.text
    assert "and 8 more (all in probes.json)" in caplog.text
    assert "probes before training | kNN UAR of emotion: video layer" in caplog.text
    assert "probes after epoch 1.333 | " in caplog.text
    path = tmp_path / "probes.csv"
    assert sorted({row.step for row in table(tmp_path)}) == [0, 6, 8]
    path.write_text(path.read_text() + "2,99,fused,knn_uar_emotion,0.2,\n2,12,fused,knn_uar_em")
    assert main(probed(corpus, tmp_path, "--ckpt_path=auto")) == 0
    same_training(plain, tmp_path)
    assert [row for row in of_features(tmp_path) if row[1] != 8] == of_features(run)
    assert path.read_text().count("fused,knn_uar_emotion") == 4


def test_everything_is_as_it_was_after_a_look_aside():
    model = pretraining_model().train()
    model.video_decoder.eval()
    before = [part.training for part in model.modules()]
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    expected = torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    with suppress(KeyError), aside(model, torch.device("cpu")):
        torch.rand(5), np.random.rand(5), random.random()  # noqa: NPY002
        assert not any(part.training for part in model.modules())
        assert not torch.is_grad_enabled()
        raise KeyError  # what goes wrong within must not show afterwards either
    assert (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()) == expected  # noqa: NPY002
    assert [part.training for part in model.modules()] == before
    assert torch.is_grad_enabled()


# ---------------------------------------------------------------- what is reported


def test_every_layer_and_part_is_told_at_the_start_and_after_each_epoch(run):
    rows = table(run)
    assert sorted({(row.epoch, row.step) for row in rows}) == [(0, 0), (1, 6), (2, 12)]
    parts = {f"{m}_layer{n}" for m in ("video", "audio") for n in (1, 2, 3)} | {"video", "audio", "fused", "all"}
    for step in (0, 6, 12):
        now = {(row.part, row.metric): row for row in rows if row.step == step}
        for part in parts:
            for metric in ("knn_uar_emotion", "linear_uar_emotion", "knn_ccc_valence", "linear_ccc_valence",
                           "uniformity", "effective_rank"):  # fmt: skip
                assert math.isfinite(now[part, metric].value), (part, metric)
            assert now[part, "knn_uar_emotion"].chance == pytest.approx(1 / 3, abs=1e-5)
        for layer in ("layer1", "layer3"):  # the taps of the tests' model
            assert now[layer, "alignment"].value >= 0
            assert now[layer, "alignment"].chance > 0
            found = [now[layer, f"video_to_audio_recall_at_{at}"] for at in (1, 5, 10)]
            assert [row.value for row in found] == sorted(row.value for row in found)
            assert found[1].chance == pytest.approx(5 / 18, abs=1e-5)
        assert now["run", "time_share_percent"].value > 0
    assert [row for row in rows if row.step == 0 and row.part != "run"] != []
    assert [r.value for r in rows if r.step == 0 and r.part != "run"] != [
        r.value for r in rows if r.step == 12 and r.part != "run"
    ]


def test_loggers_and_figures_have_them_too(run):
    with next(run.glob("logs/version_0/metrics.csv")).open() as file:
        logged = list(csv.DictReader(file))
    at_end = [row for row in logged if row["step"] == "12" and row["probe/fused/knn_uar_emotion"]]
    assert len(at_end) == 1
    value = next(r.value for r in table(run) if (r.step, r.part, r.metric) == (12, "fused", "knn_uar_emotion"))
    assert float(at_end[0]["probe/fused/knn_uar_emotion"]) == pytest.approx(value, rel=1e-5)
    assert float(at_end[0]["probe/time_share_percent"]) > 0
    assert len([row for row in logged if row["train/loss"]]) == 12
    assert (run / "figures" / "probes.png").stat().st_size > 10_000


def test_what_is_also_trained_on_is_named(run):
    about = json.loads((run / "probes.json").read_text())
    assert about["divided"] == "split train, by speakers"
    assert about["clips"] == {"fit": 12, "queries": 6}
    assert about["subjects"] == {"fit": 2, "queries": 1}
    assert about["also_in_pretraining"]["subjects"] == ["subject0", "subject1", "subject2"]
    assert len(about["also_in_pretraining"]["clips"]) == 18


class Clock:
    """Epochs of six steps each, of which probes take a share of the time."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, epochs: int, **settings: Any):
        self.probes, self.epochs = OnlineProbes(max_share=0.02, **settings), epochs
        self.probes._history = ProbeHistory(tmp_path / "probes.csv", step=0)
        self.probes._history.rows = rows_of((0, "fused", "knn_uar_emotion", 0.3))
        self.share = share
        monkeypatch.setattr(OnlineProbes, "time_share", property(lambda _: self.share))

    def probed_after(self) -> list[int]:
        found = []
        for epoch in range(1, self.epochs + 1):
            trainer = SimpleNamespace(
                global_step=6 * epoch, current_epoch=epoch - 1, max_steps=-1, max_epochs=self.epochs, callbacks=[],
                should_stop=False,
            )  # fmt: skip
            history = self.probes._history
            assert history is not None
            if self.probes._is_due(trainer, float(epoch)):  # type: ignore[arg-type]
                found.append(epoch)
                history.rows.append(replace(history.rows[0], epoch=float(epoch), step=6 * epoch))
                assert not self.probes._is_due(trainer, float(epoch)), "twice"  # type: ignore[arg-type]
        return found


def test_probes_that_take_too_long_are_put_off_but_for_the_last(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    assert Clock(tmp_path, monkeypatch, share=0.021, epochs=6).probed_after() == [6]
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[0] for text in said] == [
        f"probes put off after epoch {n} ({n} in a row)" for n in (1, 2, 4)
    ]
    assert "they have taken 2.1% of the time, and probe.max_share allows for 2.0%" in said[0]
    assert Clock(tmp_path, monkeypatch, share=0.02, epochs=6).probed_after() == [1, 2, 3, 4, 5, 6]


def test_every_so_many_epochs_and_after_the_last(tmp_path, monkeypatch):
    assert Clock(tmp_path, monkeypatch, share=0.0, epochs=7, every_n_epochs=3).probed_after() == [3, 6, 7]


def test_without_clips_nothing_is_written(plain):
    assert not list(plain.glob("probes*"))
    assert not (plain / "figures" / "probes.png").exists()


def started(folder: Path, choice: ProbeChoice, step: int) -> tuple[OnlineProbes, Any, PretrainModule]:
    """Probes of these clips, a trainer that has made so many steps, and its model."""
    module = PretrainModule("micro", SMALL)
    trainer: Any = SimpleNamespace(
        global_step=step, is_global_zero=True, default_root_dir=folder / "run", loggers=[],
        datamodule=SimpleNamespace(source=choice.source),
        precision_plugin=SimpleNamespace(forward_context=nullcontext),
    )  # fmt: skip
    probes = OnlineProbes(manifest=folder / "manifest.csv", labels=EMOTION)
    probes._choice = choice
    return probes, trainer, module


@pytest.mark.parametrize("step", [0, 6])
def test_clips_that_cannot_be_decoded_end_a_run_before_it_trains_also_one_that_goes_on(tmp_path, step):
    choice = choose_probe_clips(labelled(tmp_path, several(["train", "val"])), EMOTION, max_clips=8, seed=0)
    probes, trainer, module = started(tmp_path, choice, step)
    with pytest.raises(ValueError, match="0 clips to fit probes to and 0 that ask can be used"):
        probes.on_train_start(trainer, module)


def test_a_model_without_finite_features_is_told_and_not_probed(corpus, tmp_path, caplog):
    source = ManifestSource(read_manifest(corpus / "corpus" / "manifest.csv"))
    choice = choose_probe_clips(source, SPEC, max_clips=8, seed=0)
    probes, trainer, module = started(tmp_path, choice, 0)
    probes.labels = SPEC
    for parameter in module.parameters():
        parameter.data.fill_(math.nan)
    probes.on_train_start(trainer, module)
    assert "are not finite and are not probed" in caplog.text
    assert not list((tmp_path / "run").rglob("probes.*[vg]"))  # no table, no figure


# ---------------------------------------------------------------- values


def test_features_that_tell_the_class_score_one_and_noise_scores_chance():
    rng = np.random.default_rng(0)
    emotion, fit = np.arange(240) % 4, np.arange(240) < 120
    valence = rng.uniform(size=240)
    telling = np.eye(6)[emotion] + 0.05 * rng.normal(size=(240, 6))
    noise = rng.normal(size=(240, 6))
    found = {
        (value.part, value.metric): value
        for value in score_parts(
            {"video_layer1": telling, "audio_layer1": noise, "all": np.hstack([noise, valence[:, None] * 3])},
            fit=fit, targets={"emotion": emotion, "valence": valence}, classes={"emotion": 4}, layers=(0,),
        )
    }  # fmt: skip
    for method in ("knn", "linear"):
        assert found["video_layer1", f"{method}_uar_emotion"].value == 1
        assert found["audio_layer1", f"{method}_uar_emotion"].value == pytest.approx(0.25, abs=0.12)
        assert found["audio_layer1", f"{method}_uar_emotion"].chance == 0.25
    # The penalty halves the guess of a single telling feature: concordance 2 (1/2) / (1 + 1/4) at most.
    assert found["all", "linear_ccc_valence"].value == pytest.approx(0.8, abs=0.03)
    assert abs(found["audio_layer1", "linear_ccc_valence"].value) < 0.3
    assert found["layer1", "alignment"].chance == pytest.approx(2, abs=0.2)


def test_pairs_are_compared_at_taps_alone_and_find_themselves():
    rng = np.random.default_rng(0)
    video = rng.normal(size=(20, 8))
    parts = {"video_layer2": video, "audio_layer2": video * 3, "video_layer1": video, "audio_layer1": video}
    values = score_parts(parts, fit=np.arange(20) < 10, targets={}, classes={}, layers=(1,))
    found = {value.metric: value for value in values if value.part == "layer2"}
    assert found["video_to_audio_recall_at_1"].value == found["audio_to_video_recall_at_1"].value == 1
    assert (found["video_to_audio_recall_at_5"].chance, found["alignment"].value) == (0.25, pytest.approx(0))
    assert not [value for value in values if value.part == "layer1"]
    one_sided = score_parts({"video_layer2": video}, fit=np.arange(20) < 10, targets={}, classes={}, layers=(1,))
    assert {value.metric for value in one_sided} == {"uniformity", "effective_rank"}


def rows_of(*values: tuple[int, str, str, float]) -> list[ProbeRow]:
    return [ProbeRow(epoch=float(s), step=s, part=p, metric=m, value=v, chance=0.3) for s, p, m, v in values]


def test_collapsed_features_are_told(tmp_path):
    rows = rows_of(
        (1, "video_layer2", "effective_rank", 1.1), (1, "audio_layer2", "effective_rank", 9.0),
        (1, "video_layer1", "effective_rank", 1.0), (1, "fused", "effective_rank", 0.0),
    )  # fmt: skip
    assert [row.part for row in collapsed(rows, layers=(1,))] == ["video_layer2", "fused"]


def test_that_nothing_has_moved_is_said_after_several_probes_and_with_its_error(tmp_path):
    def history(last: float) -> ProbeHistory:
        made = ProbeHistory(tmp_path / "probes.csv", step=0)
        for step in range(6):
            for method in ("knn", "linear"):
                value = last if step == 5 and method == "knn" else 0.3
                made.rows += rows_of((step, "fused", f"{method}_uar_emotion", value))
        return made

    said = stillness_warning(history(0.33), SPEC, 100)
    assert said is not None
    assert "UAR of emotion, kNN 0.33 (fused) against 0.30 +- 0.05; linear 0.30" in said
    assert stillness_warning(history(0.4), SPEC, 100) is None
    early = history(0.3)
    early.rows = [row for row in early.rows if row.step < 5]
    assert stillness_warning(early, SPEC, 100) is None
    told = history(0.4)
    told.rows += rows_of((5, "video_layer2", "effective_rank", 7.0))
    assert "random weights at best 0.30" in sentence(told, 5, SPEC, (1,))
    assert "effective rank video layer 2 7.0" in sentence(told, 5, SPEC, (1,))
    found = best(history(0.4).rows, "knn_uar_emotion")
    assert found is not None
    assert (found.value, found.step) == (0.4, 5)


# ---------------------------------------------------------------- the clips


def labelled(folder: Path, clips: list[tuple[str, str, str]]) -> ManifestSource:
    """Clips of (speaker, split, emotion)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clip.mp4").write_bytes(b"-")
    rows = [
        Clip(clip_id=f"clip{i:03d}", video=folder / "clip.mp4", subject=subject, split=split,
             labels={"emotion": emotion} if emotion else {})
        for i, (subject, split, emotion) in enumerate(clips)
    ]  # fmt: skip
    return ManifestSource(read_manifest(write_manifest(folder / "manifest.csv", rows)))


EMOTION = LabelSpec(classes={"emotion": ("angry", "happy")})


def several(splits: list[str], each: int = 4) -> list[tuple[str, str, str]]:
    return [(f"s{i}", split, ("angry", "happy")[n % 2]) for i, split in enumerate(splits) for n in range(each)]


def test_the_splits_decide_and_the_test_is_left_alone(tmp_path):
    source = labelled(tmp_path, [*several(["train", "train", "val", "test"]), ("u", "unlabelled", "")])
    chosen = choose_probe_clips(source, EMOTION, max_clips=100, seed=0)
    by_split = {(info.split, bool(fit)) for info, fit in zip(chosen.infos, chosen.fit, strict=True)}
    assert by_split == {("train", True), ("val", False)}
    assert len(chosen.infos) == 12


@pytest.mark.parametrize("splits", [["train"] * 6 + ["test"], [""] * 6, ["fold1", "fold2"] * 3, ["val"] * 6 + ["test"]])
def test_without_a_split_val_speakers_are_divided(tmp_path, splits):
    chosen = choose_probe_clips(labelled(tmp_path, several(splits)), EMOTION, max_clips=100, seed=0)
    sides = [
        {i.subject for i, own in zip(chosen.infos, chosen.fit, strict=True) if own == fit} for fit in (True, False)
    ]
    assert len(sides[0]) == 4
    assert len(sides[1]) == 2
    assert not sides[0] & sides[1]
    assert "test" not in {info.split for info in chosen.infos}


def test_a_few_clips_are_of_all_classes_and_do_not_depend_on_their_place(tmp_path):
    clips = [(f"s{i % 3}", "train", "happy" if i % 10 == 0 else "angry") for i in range(60)]
    clips += [("v", "val", ("angry", "happy")[i % 2]) for i in range(6)]
    source = labelled(tmp_path, clips)
    chosen = choose_probe_clips(source, EMOTION, max_clips=20, seed=0)
    fitted = [str(info.labels["emotion"]) for info, fit in zip(chosen.infos, chosen.fit, strict=True) if fit]
    assert (len(fitted), fitted.count("happy"), int((~chosen.fit).sum())) == (14, 6, 6)  # what val lacks is fitted to
    turned = labelled(tmp_path / "turned", clips)
    turned._clips = tuple(reversed(source._clips))
    again = choose_probe_clips(turned, EMOTION, max_clips=20, seed=0)
    assert {info.clip_id for info in again.infos} == {info.clip_id for info in chosen.infos}
    assert again.digest == chosen.digest
    assert choose_probe_clips(source, EMOTION, max_clips=22, seed=0).digest != chosen.digest


def test_names_that_both_have_are_found(tmp_path):
    chosen = choose_probe_clips(labelled(tmp_path, several(["train", "val"])), EMOTION, max_clips=100, seed=0)
    training = labelled(tmp_path / "other", [("s1", "unlabelled", ""), ("new", "unlabelled", "")])
    overlap = find_overlap(chosen, training)
    assert overlap.subjects == ["s1"]
    assert overlap.clips == ["clip000", "clip001"]


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([("s0", "", "angry"), ("s0", "", "happy")], "all of one speaker, 's0'"),
        ([("s0", "train", "angry"), ("s0", "train", "happy")], "all of one speaker, 's0'"),
        (several(["test", "test"]), "are of the split 'test', which is left alone"),
        ([*several(["train", "val"]), ("s5", "train", "")], "has no label 'emotion'"),
        ([(f"s{i}", "", "angry") for i in range(6)], "have emotion 'angry'; a probe needs clips of two classes"),
        ([(f"s{i}", "", "furious") for i in range(6)], "'furious', which is not among the classes"),
        ([("s0", "train", "angry"), ("s0", "val", "happy")], "train and val share 's0'"),
    ],
)
def test_clips_that_cannot_be_probed_are_refused(tmp_path, clips, message):
    with pytest.raises(ValueError, match=message):
        choose_probe_clips(labelled(tmp_path, clips), EMOTION, max_clips=100, seed=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shards": ["a"], "manifest": "b", "labels": EMOTION}, "probe.shards or as probe.manifest, not both"),
        ({"shards": ["a"]}, "no probe.labels"),
        ({"every_n_epochs": 0}, "every_n_epochs=0 must be 1 or more"),
        ({"max_clips": 4}, "max_clips=4 must be 8 or more"),
        ({"max_share": 2.0}, "max_share=2.0 must lie between 0 and 1"),
    ],
)
def test_contradictions_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OnlineProbes(**settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--probe.manifest=absent.csv"], "clips of the probes: "),
        (['--probe.labels={"classes": {"mood": ["a", "b"]}}'], "has no label 'mood' (it has ['emotion', 'valence'])"),
    ],
)
def test_errors_come_before_training_and_fill_one_line(corpus, tmp_path, capsys, change, message):
    assert main(probed(corpus, tmp_path, *change)) == 2
    error = capsys.readouterr().err
    assert "pretrain: error: clips of the probes: " in error
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "checkpoints").exists()


def test_labels_are_flags_as_in_fine_tuning(corpus, tmp_path, capsys):
    given = ["--probe.labels.classes={emotion: [angry, happy]}", "--probe.labels.dimensions={valence: [0, 1]}"]
    with pytest.raises(SystemExit) as stop:
        main(arguments(corpus / "shards", tmp_path, "--probe.shards=[somewhere]", *given, "--print_config"))
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["probe"]["labels"] == {
        "classes": {"emotion": ["angry", "happy"]}, "dimensions": {"valence": [0, 1]},
    }  # fmt: skip


def test_a_run_does_not_go_on_with_other_clips(run, corpus, capsys):
    assert main(probed(corpus, run, "--ckpt_path=auto", "--trainer.max_epochs=3", "--probe.max_clips=8")) == 2
    assert "begun with other clips or labels" in capsys.readouterr().err
