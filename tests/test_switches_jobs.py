"""The switches in the jobs, set as users set them: a run goes on exactly, and its export says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.__main__ import main as finetune
from finetune.module import FinetuneModule
from hicmae.backbone import Backbone
from hicmae.checkpoint import read_backbone, read_export, read_pretraining, save_export
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.labels import LabelSpec
from hicmae.data.manifest import Manifest
from hicmae.data.shard_writer import write_shards
from hicmae.pretraining import Objective
from pretrain.__main__ import main as pretrain
from pretrain.module import PretrainModule
from tests.corpus import EMOTIONS, make_corpus
from tests.test_pretrain import SMALL, arguments, curve, make_data, weights

VARIANT = SMALL | {"skip_connections": False, "decoder_depth": 2, "fusion_direction": "to_video"}
LABELS = LabelSpec(classes={"emotion": EMOTIONS})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_corpus(tmp_path_factory.mktemp("switches") / "corpus", 16)


@pytest.fixture(scope="module")
def shards(corpus: Manifest) -> Path:
    folder = corpus.path.parent.parent / "shards"
    write_shards(corpus, folder, shard_mb=0.06)
    return folder


def run(shards: Path, root: Path, *more: str, steps: int = 2) -> int:
    return pretrain(arguments(shards, root, f"--trainer.max_steps={steps}", *more))


@pytest.fixture(scope="module")
def heard_nothing(shards: Path) -> Path:
    """A run on video alone."""
    root = shards.parent / "video_alone"
    assert run(shards, root, "--model.modalities=[video]") == 0
    return root


def test_a_variant_goes_on_exactly_and_says_what_it_is(shards: Path, tmp_path: Path, monkeypatch: Any) -> None:
    for drawing in ("draw_curves", "draw_reconstruction"):
        monkeypatch.setattr(f"pretrain.callbacks.{drawing}", lambda *args, **more: None)
    variant = (f"--model.architecture={json.dumps(VARIANT)}", "--model.objective.contrast=top")
    assert run(shards, tmp_path / "whole", *variant) == 0
    for steps in (1, 2):
        assert run(shards, tmp_path / "again", *variant, "--ckpt_path=auto", steps=steps) == 0
    assert curve(tmp_path / "again") == curve(tmp_path / "whole")
    expected, resumed = weights(tmp_path / "whole"), weights(tmp_path / "again")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    model = read_pretraining(tmp_path / "again" / "checkpoints" / "last.ckpt")
    assert model is not None
    assert model.objective.contrast == "top"
    assert model.config.switched == {"skip_connections": False, "fusion_direction": "to_video"}
    assert read_export(tmp_path / "again" / "export").config == model.config


def test_a_resumed_run_keeps_its_modalities(heard_nothing: Path, shards: Path, tmp_path: Path, capsys: Any) -> None:
    checkpoint = heard_nothing / "checkpoints" / "last.ckpt"
    assert run(shards, tmp_path, f"--ckpt_path={checkpoint}", steps=3) == 2
    assert "written with model.modalities ['video'], and is to go on with ['video', 'audio']" in capsys.readouterr().err


def test_going_on_with_another_loss_is_told(caplog: pytest.LogCaptureFixture) -> None:
    checkpoint: dict[str, Any] = {}
    PretrainModule("micro", SMALL).on_save_checkpoint(checkpoint)
    del checkpoint["hicmae"]["objective"]["contrast"]  # as before there was a choice
    PretrainModule("micro", SMALL).on_load_checkpoint(checkpoint)
    assert not caplog.messages
    PretrainModule("micro", SMALL, objective=Objective(contrast="none", temperature=0.1)).on_load_checkpoint(checkpoint)
    assert "objective.temperature was 0.07 and is 0.1, contrast was taps and is none." in caplog.text


def test_pretraining_on_one_modality_logs_exports_and_draws_that_one(heard_nothing: Path) -> None:
    assert all(video > 0 and audio == contrast == 0 for video, audio, contrast in curve(heard_nothing).values())
    assert (heard_nothing / "figures" / "reconstruction_0.png").stat().st_size > 0
    assert read_export(heard_nothing / "export").modalities == ("video",)
    assert read_backbone(heard_nothing / "checkpoints" / "last.ckpt").modalities == ("video",)
    trained = weights(heard_nothing)
    torch.manual_seed(0)
    model = read_pretraining(heard_nothing / "checkpoints" / "last.ckpt")
    assert model is not None
    assert model.modalities == ("video",)
    assert {k.removeprefix("model.") for k in trained} == set(model.state_dict())


@pytest.mark.parametrize(("modality", "missing"), [("video", "has_audio"), ("audio", "has_video")])
def test_the_other_half_of_the_clips_is_not_decoded(shards: Path, modality: str, missing: str) -> None:
    whole, half = (
        next(iter(make_data(shards, **settings).train_dataloader())) for settings in ({}, {"modalities": (modality,)})
    )
    assert half.clip_ids == whole.clip_ids
    assert not getattr(half, missing).any()
    assert getattr(half, f"has_{modality}").all()
    name = "video" if modality == "video" else "waveform"
    assert torch.equal(getattr(half, name), getattr(whole, name))  # the same windows
    for name in ("crop_box", "gain", "video_visible", "audio_visible"):
        assert torch.equal(getattr(half, name), getattr(whole, name)), name
    assert half.audio_seconds == 0 if modality == "video" else half.video_seconds == 0


def fit(corpus: Manifest, root: Path, *more: str) -> int:
    settings = {
        "--model.labels.classes": json.dumps({"emotion": EMOTIONS}), "--data.manifest": str(corpus.path),
        "--data.batch_size": "4", "--data.num_workers": "0", "--model.optimizer.warmup_epochs": "0",
        "--trainer.default_root_dir": str(root), "--trainer.max_epochs": "1", "--trainer.accelerator": "cpu",
        "--trainer.devices": "1", "--wandb": "off", "--test_after_fit": "false", "--trainer.limit_val_batches": "1",
    }  # fmt: skip
    return finetune(["fit", *(f"{name}={value}" for name, value in settings.items()), *more])


def test_finetuning_takes_the_modality_that_was_learnt_from_and_no_other(
    heard_nothing: Path, corpus: Manifest, tmp_path: Path, capsys: Any
) -> None:
    init = f"--model.init={heard_nothing / 'export'}"
    assert fit(corpus, tmp_path / "both", init) == 2
    said = capsys.readouterr().err
    assert "was trained with video alone, but model.modalities is ['video', 'audio']" in said
    assert "its audio encoder has learnt nothing" in said
    assert not (tmp_path / "both" / "checkpoints").exists()
    last = '--model.architecture={"feature_fusion": "last"}'
    assert fit(corpus, tmp_path / "video", init, "--model.modalities=[video]", last) == 0
    export = read_export(tmp_path / "video" / "export")
    assert export.modalities == ("video",)
    assert export.config.feature_fusion == "last"


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    config = ModelConfig.preset("micro", **SMALL)
    return save_export(tmp_path / "export", Backbone(config), spec=InputSpec.for_model(config), provenance={})


@pytest.mark.parametrize("preset", [None, "micro"])
def test_feature_fusion_is_chosen_anew_in_finetuning(pretrained: Path, preset: str | None) -> None:
    fields = SMALL if preset else {}
    mixed = FinetuneModule(LABELS, init=pretrained, preset=preset, architecture=fields)
    last = FinetuneModule(LABELS, init=pretrained, preset=preset, architecture=fields | {"feature_fusion": "last"})
    assert (mixed.config.feature_fusion, last.config.feature_fusion) == ("layers", "last")
    expected, found = mixed.model.backbone.state_dict(), last.model.backbone.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    trained = {n for n, p in mixed.model.named_parameters() if p.requires_grad}
    assert trained - {n for n, p in last.model.named_parameters() if p.requires_grad} == {
        "backbone.video_layer_weights", "backbone.audio_layer_weights"
    }  # fmt: skip


def test_what_weights_depend_on_is_only_checked(pretrained: Path) -> None:
    with pytest.raises(ValueError, match="fusion_direction is both, expected to_video"):
        FinetuneModule(LABELS, init=pretrained, architecture={"fusion_direction": "to_video"})
    with pytest.raises(ValueError, match="feature_fusion='top' must be one of layers, last"):
        FinetuneModule(LABELS, init=pretrained, architecture={"feature_fusion": "top"})
