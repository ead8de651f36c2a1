"""The fine-tuning job, run as a user runs it: results, checkpoints, refusals."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch._dynamo.utils
from scipy import stats
from sklearn import metrics as sk

import hicmae
from finetune.__main__ import main
from finetune.data import FinetuneData
from finetune.module import FinetuneModule
from finetune.origin import origin_of, origins_of
from hicmae.backbone import Backbone
from hicmae.checkpoint import read_export, read_pretraining, save_export
from hicmae.cli import main as hicmae_main
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.batch import ClipBatch
from hicmae.data.labels import LabelSpec
from hicmae.data.manifest import read_manifest, write_manifest
from hicmae.data.shard_writer import write_shards
from hicmae.data.source import ManifestSource
from hicmae.losses import ccc_loss
from hicmae.mixing import MixConfig
from hicmae.speed import SpeedConfig, accelerate
from hicmae.training.provenance import RunProvenance, weights_origin
from tests.corpus import EMOTIONS, make_corpus
from tests.test_exported import documented

CONFIGS = [  # continuous*.yaml are another job's: tests/test_continuous.py
    path
    for path in sorted((Path(__file__).parent.parent / "configs" / "finetune").glob("*.yaml"))
    if not path.name.startswith("continuous")
]
SMALL: dict[str, Any] = {
    "image_size": 32, "width": 32, "heads": 2, "depth": 2, "fusion_depth": 1, "decoder_width": 16,
    "decoder_heads": 2, "decoder_depth": 3, "taps": [0, 1], "audio_patch_size": 32,
}  # fmt: skip
LABELS = LabelSpec(classes={"emotion": EMOTIONS}, dimensions={"valence": (0, 1)})


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 clips: three speakers to train with, a fourth, of 5 clips, in the test. One of the latter is cut short."""
    made = make_corpus(tmp_path_factory.mktemp("finetune") / "corpus", 22, corrupt=[11])
    # The files have the same content: let each clip start elsewhere in it, so that no two are alike.
    rows = [replace(clip, start_s=0.04 * i) for i, clip in enumerate(made.clips)]
    return write_manifest(made.path, rows)


def arguments(manifest: Path, root: Path, *more: str, command: str = "fit") -> list[str]:
    settings = {
        "--model.preset": "micro", "--model.architecture": json.dumps(SMALL),
        "--model.labels.classes": json.dumps({"emotion": EMOTIONS}),
        "--model.labels.dimensions": json.dumps({"valence": [0, 1]}),
        "--model.optimizer.warmup_epochs": "0.5", "--model.optimizer.lr_per_256": "0.2",
        "--data.manifest": str(manifest), "--data.batch_size": "4", "--data.num_workers": "0",
        "--data.max_skip_fraction": "0.5",
        "--trainer.default_root_dir": str(root), "--trainer.max_epochs": "2", "--trainer.accelerator": "cpu",
        "--trainer.devices": "1", "--trainer.log_every_n_steps": "1", "--wandb": "off",
    }  # fmt: skip
    return [command, *(f"{name}={value}" for name, value in settings.items()), *more]


def leave_out_figures(patch: pytest.MonkeyPatch) -> None:
    """Drawing takes half of the time of runs as short as these; one of them shows that they are drawn."""
    for drawing in ("finish.draw_confusion", "finish.draw_scatter", "callbacks.draw_curves"):
        patch.setattr(f"finetune.{drawing}", lambda *args, **more: None)


def results(root: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    return json.loads((root / "metrics.json").read_text()), pd.read_parquet(root / "predictions.parquet")


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def run(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "both"
    assert main(arguments(manifest, root)) == 0
    return root


# ---------------------------------------------------------------- what a run leaves


def test_a_run_leaves_checkpoints_results_figures_and_export(run: Path) -> None:
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "metrics.json", "predictions.parquet",
                 "export/model.safetensors", "export/README.md", "figures/learning_curves.png",
                 "figures/confusion_test_best.png", "figures/scatter_test_last.png"):  # fmt: skip
        assert (run / name).stat().st_size > 0, name


def test_scores_are_those_of_the_predictions(run: Path, manifest: Path) -> None:
    scores, table = results(run)
    truth = {clip.clip_id: clip for clip in read_manifest(manifest).clips}
    assert set(zip(table.checkpoint, table.split, strict=True)) == {
        (name, part) for name in ("best", "last") for part in ("val", "test")
    }
    for (name, part), rows in table.groupby(["checkpoint", "split"]):
        found = scores[name][part]
        assert rows.label.tolist() == [truth[clip].labels["emotion"] for clip in rows.clip_id]
        assert rows.subject.tolist() == [truth[clip].subject for clip in rows.clip_id]
        probabilities = rows[[f"probability_{emotion}" for emotion in EMOTIONS]].to_numpy()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
        assert rows.predicted.tolist() == [EMOTIONS[i] for i in probabilities.argmax(axis=1)]
        assert found["war"] == pytest.approx(sk.accuracy_score(rows.label, rows.predicted))
        assert found["uar"] == pytest.approx(
            sk.recall_score(rows.label, rows.predicted, labels=rows.label.unique(), average="macro")
        )
        error = rows.valence_prediction - rows.valence_target
        assert found["mae_valence"] == found["mae"] == pytest.approx(error.abs().mean())
        assert found["pcc"] == pytest.approx(stats.pearsonr(rows.valence_prediction, rows.valence_target).statistic)
        assert (rows.n_segments == (2 if part == "test" else 1)).all()


def test_what_cannot_be_decoded_is_counted_and_not_scored(run: Path) -> None:
    scores, table = results(run)
    assert scores["best"]["test"]["clips"] == 5
    assert scores["best"]["test"]["clips_not_decoded"] == 1
    assert np.sum(scores["best"]["test"]["confusion"]) == 4
    assert "clip011" not in set(table.clip_id)


def test_validation_speakers_are_in_no_other_part(run: Path) -> None:
    scores, table = results(run)
    val, test = (set(table[table.split == part].subject) for part in ("val", "test"))
    assert len(val) == 1
    assert test == {"subject3"}
    assert scores["about"]["splits"]["train"]["subjects"] == 2
    assert "carved" in scores["about"]["validation"]


def test_best_is_the_epoch_with_the_highest_validation_score(run: Path) -> None:
    scores, _ = results(run)
    logged = pd.read_csv(run / "logs" / "version_0" / "metrics.csv")["val/uar"].dropna().tolist()
    assert len(logged) == 2
    assert scores["best"]["val"]["uar"] == pytest.approx(max(logged))
    assert scores["last"]["val"]["uar"] == pytest.approx(logged[-1])
    assert scores["best"]["step"] == (1 + logged.index(max(logged))) * scores["last"]["step"] / 2


def test_checkpoint_says_what_it_is_in_plain_values(run: Path) -> None:
    about = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["hicmae"]
    assert about["job"] == "finetune"
    assert about["targets"] == {"classes": list(EMOTIONS), "dimensions": ["valence"]}
    assert about["model"]["width"] == 32
    assert about["modalities"] == ["video", "audio"]
    json.dumps(about)


def test_export_is_the_best_checkpoint(run: Path) -> None:
    model, _ = hicmae.load_recognizer(run / "export")
    best = weights(run / "checkpoints" / "best.ckpt")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, best[f"model.{name}"], rtol=0, atol=0)
    provenance = read_export(run / "export").provenance
    assert provenance["checkpoint"].startswith("best")
    scores = results(run)[0]["best"]["test"]
    assert provenance["metrics"]["test/uar"] == scores["uar"]
    assert model.targets.ranges == {"valence": (0.0, 1.0)}
    # one speaker in the test tells nothing of others: tests/test_protocol.py has two
    assert (provenance["intervals"]["groups"], provenance["intervals"]["bounds"]) == (1, {})


def test_the_export_says_what_it_was_made_of(run: Path, manifest: Path, tmp_path: Path) -> None:
    found = read_export(run / "export").provenance
    assert {f"provenance.{name}" for name in found} <= set(documented())
    assert found["data"]["index"] == ManifestSource(manifest).fingerprint
    assert (found["data"]["name"], found["data"]["clips"]) == ("manifest.csv", 22)
    assert found["data"]["splits"]["test"]["clips"] == 5
    assert found["init"] is None
    assert found["recipe"]["model"]["mixing"]["cutmix_alpha"] == 1.0
    assert found["recipe"]["data"]["augmentation"]["rand_augment"]["operations"] == 4
    assert str(manifest.parent) not in json.dumps(found)
    assert hicmae_main(["export", str(run / "checkpoints" / "best.ckpt"), str(tmp_path / "out")]) == 0
    assert read_pretraining(run / "checkpoints" / "best.ckpt") is None
    again = read_export(tmp_path / "out")
    assert again.targets is not None
    assert again.targets.ranges == {"valence": (0.0, 1.0)}
    assert again.provenance["recipe"] == found["recipe"]
    assert hicmae_main(["export", str(tmp_path / "out"), str(tmp_path / "cut"), "--backbone-only"]) == 0
    for kept in (run / "export", run / "checkpoints" / "best.ckpt", tmp_path / "out", tmp_path / "cut"):
        assert origin_of(kept) == found["protocol"]  # else it could start a run of another fold
        assert [protocol for _, protocol in origins_of(kept)] == [found["protocol"]]
    assert again.sha256["model.safetensors"] == read_export(run / "export").sha256["model.safetensors"]


def test_the_origin_of_a_start_is_its_hash_and_its_own_provenance(pretrained: Path, run: Path) -> None:
    export = read_export(pretrained)
    origin = weights_origin(pretrained)
    assert origin == {
        "name": "export", "sha256": export.sha256["model.safetensors"], "provenance": export.provenance
    }  # fmt: skip
    checkpoint = run / "checkpoints" / "best.ckpt"
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    found = weights_origin(checkpoint)
    assert (found["name"], found["sha256"]) == ("best.ckpt", digest)
    assert found["provenance"]["protocol"] == read_export(run / "export").provenance["protocol"]


def test_a_teacher_is_noted_as_a_start_is(pretrained: Path, manifest: Path) -> None:
    trainer: Any = SimpleNamespace(
        is_global_zero=True, datamodule=SimpleNamespace(source=ManifestSource(manifest)), callbacks=[], world_size=1,
        precision="32-true", global_step=3, current_epoch=1,
    )  # fmt: skip
    for teacher in (pretrained, None):
        noted = RunProvenance()
        noted.on_fit_start(trainer, SimpleNamespace(init=pretrained, teacher_path=teacher))  # type: ignore[arg-type]
        found = noted.now(trainer)
        assert found["init"] == weights_origin(pretrained)
        assert found.get("teacher") == (None if teacher is None else weights_origin(teacher))


# ---------------------------------------------------------------- test alone


@pytest.mark.parametrize(
    ("given", "name"), [("--ckpt_path=checkpoints/last.ckpt", "last"), ("--model.init=export", "best")]
)
def test_a_test_alone_repeats_the_scores(
    run: Path, manifest: Path, tmp_path: Path, given: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    option, path = given.split("=")
    leave_out_figures(monkeypatch)
    # another batch size, so that clips and segments fall into other batches
    more = (f"{option}={run / path}", "--data.batch_size=3")
    assert main(arguments(manifest, tmp_path, *more, command="test")) == 0
    scores, table = results(tmp_path / "test")
    expected, all_rows = results(run)
    assert scores["tested"]["test"]["confusion"] == expected[name]["test"]["confusion"]
    rows = all_rows[(all_rows.checkpoint == name) & (all_rows.split == "test")]
    assert table.clip_id.tolist() == rows.clip_id.tolist()
    for column in ("probability_happy", "valence_prediction"):
        np.testing.assert_allclose(table[column], rows[column], atol=1e-6)


def test_two_processes_train_and_score_as_one(run: Path, manifest: Path, tmp_path: Path) -> None:
    """Two processes with 5 test clips of 2 segments: uneven shares, padding. One process scores the same weights."""
    two = arguments(
        manifest, tmp_path / "two", "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=1",
        "--model.optimizer.warmup_epochs=0", "--data.batch_size=2", "--model.ema_decay=0.7", "--model.freeze=1",
        "--model.class_weights=balanced",
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "tests.two_ranks", *two], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "MEMBER: 2/2" in done.stderr
    scores, table = results(tmp_path / "two")
    last = tmp_path / "two" / "checkpoints" / "last.ckpt"
    assert main(arguments(manifest, tmp_path / "one", f"--ckpt_path={last}", command="test")) == 0
    one_scores, one_table = results(tmp_path / "one" / "test")
    rows = table[(table.checkpoint == "last") & (table.split == "test")]
    assert rows.clip_id.tolist() == one_table.clip_id.tolist()
    assert rows.n_segments.tolist() == one_table.n_segments.tolist()
    np.testing.assert_allclose(rows.probability_happy, one_table.probability_happy, atol=1e-6)
    assert scores["last"]["test"]["confusion"] == one_scores["tested"]["test"]["confusion"]
    assert scores["last"]["test"]["rmse"] == pytest.approx(one_scores["tested"]["test"]["rmse"], abs=1e-6)


# ---------------------------------------------------------------- repeat and resume


def test_a_resumed_run_ends_as_an_undisturbed_one(
    run: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With mixing and drop path: what is drawn belongs to the step, not to the process's past."""
    leave_out_figures(monkeypatch)
    few = arguments(manifest, tmp_path, "--test_after_fit=false")
    assert main([*few, "--trainer.max_steps=2"]) == 0
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    torch.manual_seed(123)
    assert main([*few, f"--ckpt_path={tmp_path / 'checkpoints' / 'last.ckpt'}"]) == 0
    ours, expected = weights(tmp_path / "checkpoints" / "last.ckpt"), weights(run / "checkpoints" / "last.ckpt")
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name
    scores, table = results(tmp_path)
    assert "test" not in scores["last"]
    assert set(table.split) == {"val"}


# ---------------------------------------------------------------- starting points


def module(**settings: Any) -> FinetuneModule:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {"labels": LABELS, "preset": "micro", "architecture": SMALL}
    return FinetuneModule(**(defaults | settings))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported backbone whose frames lie 0.2 s apart."""
    config = ModelConfig.preset("micro", **SMALL)
    folder = tmp_path_factory.mktemp("pretrained") / "export"
    torch.manual_seed(5)
    spec = InputSpec.for_model(config, frame_interval_s=0.2)
    return save_export(folder, Backbone(config), spec=spec, provenance={})


def test_init_brings_weights_architecture_and_input(pretrained: Path) -> None:
    started = module(init=pretrained, preset=None, architecture=None)
    expected, _ = hicmae.load_backbone(pretrained)
    for name, value in expected.state_dict().items():
        assert torch.equal(started.model.backbone.state_dict()[name], value), name
    assert started.config.width == 32
    assert started.spec.frame_interval_s == 0.2


def test_init_from_a_fine_tuned_checkpoint_takes_the_backbone_alone(run: Path) -> None:
    started = module(init=run / "checkpoints" / "last.ckpt", labels=LabelSpec(classes={"emotion": ("a", "b")}))
    name = "model.backbone.video_encoder.embed.weight"
    assert torch.equal(started.state_dict()[name], weights(run / "checkpoints" / "last.ckpt")[name])
    assert started.model.head.targets.classes == ("a", "b")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": {"width": 48}, "preset": None}, "width is 32, expected 48"),
        ({"architecture": None, "preset": "tiny"}, "width is 32, expected 256"),
        ({"architecture": {"widht": 48}, "preset": None}, "widht"),
    ],
)
def test_a_size_that_contradicts_init_is_named(pretrained: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(init=pretrained, **settings)


def test_the_head_starts_small() -> None:
    small, large = (module(head_init_scale=scale).model.head.classifier for scale in (1e-3, 1.0))
    assert small is not None
    assert large is not None
    torch.testing.assert_close(small.weight, large.weight * 1e-3)


# ---------------------------------------------------------------- one batch


def batch(count: int = 4) -> ClipBatch:
    spec = module().spec
    rng = np.random.default_rng(0)
    side = spec.image_size
    ones = torch.ones(count, dtype=torch.bool)
    return ClipBatch(
        clip_ids=[f"c{i}" for i in range(count)],
        video=torch.from_numpy(rng.integers(0, 256, (count, spec.num_frames, side, side, 3), dtype=np.uint8)),
        waveform=torch.from_numpy(rng.integers(-9000, 9000, (count, spec.audio_samples), dtype=np.int16)),
        sound_samples=torch.full((count,), spec.audio_samples), has_video=ones, has_audio=ones,
        crop_box=torch.tensor([[0.0, 0.0, side, side]]).expand(count, 4),
        flip=~ones, gain=torch.ones(count),
        labels={"emotion": torch.arange(count) % 3, "valence": torch.linspace(0, 1, count)},
        index=torch.arange(count), segment=torch.zeros(count, dtype=torch.int64), valid=ones,
    )  # fmt: skip


def step(tuned: FinetuneModule, clips: ClipBatch, *, seed: int = 0, past: int = 0) -> dict[str, torch.Tensor]:
    """A training step outside a trainer."""
    tuned._trainer = SimpleNamespace(  # type: ignore[assignment]
        datamodule=SimpleNamespace(seed=seed), global_step=3, lightning_module=tuned
    )
    torch.manual_seed(past)
    tuned.train()
    return tuned.training_step(clips, 0)


def test_a_compiled_step_computes_the_same_and_evaluations_compile_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr("finetune.module.accelerate", partial(accelerate, backend="eager"))
    tuned, plain = module(speed=SpeedConfig(compile="blocks"), drop_path=0.5), module(drop_path=0.5)
    tuned.on_fit_start()
    for _ in range(2):
        assert torch.equal(step(tuned, batch())["loss"], step(plain, batch())["loss"])
        tuned.eval()
        with torch.no_grad():
            tuned.validation_step(batch(3), 0)
        made = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert made == 3, "a graph for each of: a block without drop path, one with it, a cross block"
    torch._dynamo.reset()


def test_a_step_draws_from_seed_step_and_clip() -> None:
    tuned, clips = module(drop_path=0.5), batch()
    loss = step(tuned, clips, past=1)["loss"]
    assert torch.equal(step(tuned, clips, past=2)["loss"], loss)
    assert not torch.equal(step(tuned, clips, seed=1)["loss"], loss)
    assert not torch.equal(step(tuned, replace(clips, clip_ids=["other", "c1", "c2", "c3"]))["loss"], loss)


@pytest.mark.parametrize(("modality", "missing"), [("video", "waveform"), ("audio", "video")])
def test_the_other_modality_costs_nothing(modality: Any, missing: str) -> None:
    tuned = module(modalities=(modality,), mixing=MixConfig(probability=1.0))
    clips = replace(batch(), **{missing: None})  # touching it would fail
    output = step(tuned, clips)
    output["loss"].backward()
    for name, parameter in tuned.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    trained = {name.split(".")[2] for name, p in tuned.named_parameters() if p.requires_grad and "backbone" in name}
    assert trained == {f"{modality}_encoder", f"{modality}_layer_weights"}
    assert tuned(clips).features.shape == (4, 32)


def test_losses_of_classes_and_dimensions_are_added() -> None:
    tuned, clips = module(dimensional_loss="ccc", dimensional_weight=3.0, label_smoothing=0.0).eval(), batch()
    output = tuned(clips)
    losses = tuned.losses(output, clips.labels)
    assert output.logits is not None
    assert output.values is not None
    entropy = torch.nn.functional.cross_entropy(output.logits, clips.labels["emotion"])
    torch.testing.assert_close(losses["class_loss"], entropy)
    concordance = ccc_loss(output.values, clips.labels["valence"][:, None])
    torch.testing.assert_close(losses["loss"], entropy + 3 * concordance)
    only = module(labels=LabelSpec(dimensions={"valence": (0, 1)}))
    assert list(only.losses(only(clips), clips.labels)) == ["loss"]
    assert (only.monitored, tuned.monitored) == ("val/ccc", "val/uar")


def test_a_few_steps_learn_a_batch() -> None:
    tuned, clips = module(mixing=MixConfig(probability=0.0), drop_path=0.0, label_smoothing=0.0), batch()
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(40):
        loss = step(tuned, clips)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3
    logits = tuned(clips).logits
    assert logits is not None
    assert logits.argmax(dim=1).tolist() == clips.labels["emotion"].tolist()


# ---------------------------------------------------------------- data


def data(path: Path, **settings: Any) -> FinetuneData:
    spec = InputSpec.for_model(ModelConfig.preset("micro", **SMALL))
    defaults: dict[str, Any] = {"labels": LABELS, "manifest": path, "batch_size": 2, "num_workers": 0}
    prepared = FinetuneData(spec=spec, **(defaults | settings))
    prepared.setup("fit")
    return prepared


def test_shards_and_files_hold_the_same_parts(manifest: Path, tmp_path: Path) -> None:
    write_shards(read_manifest(manifest), tmp_path / "shards", shard_mb=0.06)
    packed = data(manifest, manifest=None, shards=[tmp_path / "shards"], max_train_subjects=1)
    loose = data(manifest, max_train_subjects=1)
    for part in ("train", "val", "test"):
        named = []
        for prepared in (packed, loose):
            source = getattr(prepared.splits, part)
            named.append({source.info(i).clip_id for i in range(len(source))} - {"clip011"})  # is not packed
        assert named[0] == named[1]
    assert {row["subjects"] for row in packed.splits.summary().values()} == {1}  # type: ignore[union-attr]


def test_neither_or_both_sources_are_refused(manifest: Path) -> None:
    for settings in ({"manifest": None}, {"shards": [manifest.parent]}):
        with pytest.raises(ValueError, match="one of the two"):
            data(manifest, **settings)


def test_a_group_with_clips_in_training_and_test_is_refused(manifest: Path, tmp_path: Path) -> None:
    rows = [
        replace(clip, subject="", labels={"emotion": "happy", "valence": 0.5, "label:task": f"t{i % 2}"})
        for i, clip in enumerate(read_manifest(manifest).clips)
    ]
    with pytest.raises(ValueError, match="clips of one group"):
        data(write_manifest(tmp_path / "manifest.csv", rows), average_over="label:task")


def test_absent_classes_are_warned_of(manifest: Path, caplog: pytest.LogCaptureFixture) -> None:
    data(manifest, labels=LabelSpec(classes={"emotion": (*EMOTIONS, "bored")}))
    assert "no clip of the split 'test' has emotion bored" in caplog.text


# ---------------------------------------------------------------- refusals


def altered(manifest: Path, folder: Path, **changes: Any) -> Path:
    """The manifest with another value in its first row."""
    rows = list(read_manifest(manifest).clips)
    labels = rows[0].labels | changes.pop("labels", {})
    rows[0] = replace(rows[0], labels=labels, **changes)
    return write_manifest(folder / "manifest.csv", rows)


def test_refusals_name_the_cause_before_training(
    run: Path, manifest: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = run / "checkpoints" / "last.ckpt"
    wrong = tmp_path / "wrong.ckpt"
    shutil.copy(last, wrong)
    stored = torch.load(wrong, weights_only=True)
    stored["hicmae"]["job"] = "pretrain"
    torch.save(stored, wrong)
    bored = altered(manifest, tmp_path / "bored", labels={"emotion": "bored"})
    shared = altered(manifest, tmp_path / "shared", subject="subject3")
    other = '--model.labels.classes={"emotion": ["happy", "angry", "neutral"]}'
    init = ("--model.preset=null", "--model.architecture=null")
    cases: list[tuple[Path, str, tuple[str, ...], tuple[str, ...]]] = [
        (bored, "fit", (), ("clip000", "'bored'", "not among the classes")),
        (shared, "fit", (), ("train and test share 'subject3'", "allow_shared_subjects")),
        (manifest, "test", (), ("nothing to test", "--ckpt_path")),
        (manifest, "test", (f"--model.init={pretrained}", *init), ("no trained head",)),
        (manifest, "test", (f"--model.init={run / 'export'}", other, *init),
         ("['angry', 'happy', 'neutral']", "['happy', 'angry', 'neutral']")),
        (manifest, "test", (f"--ckpt_path={last}", other), ("['angry', 'happy', 'neutral']", "model.labels names")),
        (manifest, "test", (f"--ckpt_path={last}", "--model.modalities=[video]"), ("video and audio", "['video']")),
        (manifest, "fit", (f"--ckpt_path={wrong}",), ("--model.init instead of --ckpt_path",)),
        (manifest, "fit", (f"--model.init={tmp_path / 'gone'}",), ("no checkpoint at",)),
        (manifest, "fit", ("--data.val_fraction=2",), ("val_fraction=2",)),
        (manifest, "fit", ("--model.modalities=[audio]", "--model.mixing.video_only=true"), ("needs video",)),
    ]  # fmt: skip
    for path, command, more, expected in cases:
        assert main(arguments(path, tmp_path / "refused", *more, command=command)) == 2, more
        message = capsys.readouterr().err
        assert "finetune: error:" in message
        for words in expected:
            assert words in message, (more, message[-600:])
    assert not (tmp_path / "refused" / "checkpoints").exists()


def test_an_unknown_setting_is_refused(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments(manifest, tmp_path, "--model.mixing.share=0.8"))
    assert "share" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "path"),
    [("test", path) for path in CONFIGS] + [("fit", path) for path in CONFIGS if path.stem == "demo"],
    ids=lambda one: one if isinstance(one, str) else one.stem,
)
def test_shipped_settings_are_understood(path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the benchmarks are run, not read only, by ``fit`` in tests/test_benchmark_configs.py."""
    with pytest.raises(SystemExit) as stop:
        main([command, "--config", str(path), "--print_config"])
    assert stop.value.code == 0
    assert "layer_decay" in capsys.readouterr().out
