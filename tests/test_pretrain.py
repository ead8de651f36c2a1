"""The pre-training job, run as a user runs it: what it leaves behind, how it stops, how it goes on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch._dynamo.utils
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy

import hicmae
from hicmae.checkpoint import read_backbone, read_export, read_provenance
from hicmae.cli import main as hicmae_main
from hicmae.config import ModelConfig
from hicmae.data.shard_source import ShardSource
from hicmae.data.shard_writer import write_shards
from hicmae.pretraining import HiCMAE
from hicmae.speed import accelerate
from hicmae.training.sharding import ShardedStrategy
from pretrain.__main__ import main
from pretrain.callbacks import FinishPretraining
from pretrain.data import PretrainData
from pretrain.module import PretrainModule
from tests.corpus import make_corpus
from tests.test_exported import documented

CONFIGS = sorted((Path(__file__).parent.parent / "configs" / "pretrain").glob("*.yaml"))
SMALL = {"image_size": 32, "width": 32, "heads": 2, "depth": 3, "fusion_depth": 1, "decoder_width": 16,
         "decoder_heads": 2, "decoder_depth": 3, "taps": [0, 2], "audio_patch_size": 32}  # fmt: skip

PAPERS_LOSS = {"contrastive_weight": 0.0025, "temperature": 0.07, "negatives": "local", "frame_difference": True,
               "contrast": "taps"}  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    manifest = make_corpus(folder / "corpus", 24)
    write_shards(manifest, folder / "shards", shard_mb=0.06)
    return folder / "shards"


def arguments(shards: Path, root: Path, *more: str) -> list[str]:
    settings = {
        "--model.preset": "micro", "--model.architecture": json.dumps(SMALL),
        "--model.optimizer.warmup_epochs": "0.5", "--model.optimizer.lr_per_256": "0.2",
        "--data.shards": f"[{shards}]", "--data.batch_size": "4", "--data.num_workers": "0",
        "--trainer.default_root_dir": str(root), "--trainer.max_epochs": "2", "--trainer.accelerator": "cpu",
        "--trainer.devices": "1", "--trainer.log_every_n_steps": "1", "--wandb": "off",
    }  # fmt: skip
    return ["fit", *(f"{name}={value}" for name, value in settings.items()), *more]


def lines(root: Path) -> list[dict[str, str]]:
    """Every logged line of a run, its resumed parts included."""
    found = []
    for path in sorted(root.glob("logs/version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1])):
        with path.open() as file:
            found += [row for row in csv.DictReader(file) if row.get("train/loss")]
    return found


def curve(root: Path) -> dict[int, tuple[float, float, float]]:
    names = ("train/video_loss", "train/audio_loss", "train/contrastive_loss")
    return {int(row["step"]): tuple(float(row[name]) for name in names) for row in lines(root)}


def record(root: Path) -> dict[str, Any]:
    return json.loads((root / "run.json").read_text())


def weights(root: Path) -> dict[str, torch.Tensor]:
    return torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert main(arguments(shards, root)) == 0
    return root


def test_a_run_leaves_checkpoint_export_figures_and_log(undisturbed):
    for name in ("checkpoints/last.ckpt", "export/model.safetensors", "export/config.json", "export/README.md",
                 "figures/reconstruction_0.png", "figures/learning_curves.png", "logs/version_0/metrics.csv",
                 "logs/version_0/config.yaml"):  # fmt: skip
        assert (undisturbed / name).stat().st_size > 0, name
    row = lines(undisturbed)[-1]
    assert row["step"] == "12"
    for name in ("train/loss", "lr", "grad_norm", "clips_per_s", "data_wait_percent", "skipped_clips", "epoch"):
        assert row[name], name
    assert float(row["clips_seen"]) == 48
    assert record(undisturbed) | {"state": "finished", "reason": "", "steps": 12, "steps_planned": 12} == record(
        undisturbed
    )


def test_the_audio_loss_falls_from_epoch_to_epoch(undisturbed):
    audio = [loss for _, loss, _ in curve(undisturbed).values()]
    assert sum(audio[6:]) < 0.98 * sum(audio[:6])


def test_the_export_is_the_trained_backbone_and_loads_in_three_lines(undisturbed):
    backbone, _ = hicmae.load_backbone(undisturbed / "export")
    trained = weights(undisturbed)
    assert all(torch.equal(v, trained[f"model.backbone.{k}"]) for k, v in backbone.state_dict().items())
    assert read_backbone(undisturbed / "checkpoints" / "last.ckpt").config == backbone.config


def test_the_export_and_every_checkpoint_say_how_they_came_about(undisturbed, shards, tmp_path):
    found = read_export(undisturbed / "export").provenance
    assert {f"provenance.{name}" for name in found} <= set(documented())
    assert (found["job"], found["steps"], found["epochs"], found["init"]) == ("pretrain", 12, 2, None)
    assert found["data"] == {"name": "shards", "index": ShardSource([str(shards)]).fingerprint, "clips": 24}
    recipe = found["recipe"]
    assert recipe["model"]["optimizer"]["lr_per_256"] == 0.2
    assert recipe["data"]["shards"] == ["shards"]
    assert recipe["trainer"]["max_epochs"] == 2
    assert str(shards.parent) not in json.dumps(found)
    assert set(found["metrics"]) >= {"train/loss", "train/contrastive_loss"}
    checkpoint = undisturbed / "checkpoints" / "last.ckpt"
    of_checkpoint = read_provenance(checkpoint)
    assert of_checkpoint == {"exported_from": "last.ckpt", **{k: v for k, v in found.items() if k != "metrics"}}
    assert hicmae_main(["export", str(checkpoint), str(tmp_path / "out"), "--with-decoder"]) == 0
    assert read_export(tmp_path / "out").provenance == of_checkpoint
    model, _ = hicmae.load_pretraining(tmp_path / "out")
    assert torch.load(checkpoint, weights_only=True)["hicmae"]["objective"] == asdict(model.objective) == PAPERS_LOSS
    trained = weights(undisturbed)
    assert all(torch.equal(v, trained[f"model.{k}"]) for k, v in model.state_dict().items())


def test_a_run_stopped_in_mid_epoch_goes_on_exactly(undisturbed, shards, tmp_path):
    assert main(arguments(shards, tmp_path, "--trainer.max_steps=4")) == 0
    assert main(arguments(shards, tmp_path, "--ckpt_path=auto")) == 0
    assert curve(tmp_path) == curve(undisturbed)
    expected, resumed = weights(undisturbed), weights(tmp_path)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_batches_in_parts_log_the_losses_of_whole_ones_and_go_on_exactly(undisturbed, shards, tmp_path, monkeypatch):
    seen, genuine = [], HiCMAE.reconstruct
    monkeypatch.setattr(HiCMAE, "reconstruct", lambda self, clips: seen.append(len(clips)) or genuine(self, clips))
    in_parts = "--model.micro_batch_size=3"
    assert main(arguments(shards, tmp_path / "at_once", in_parts, "--trainer.max_steps=3")) == 0
    whole, found = curve(undisturbed), curve(tmp_path / "at_once")
    assert seen == [3, 1] * 3
    assert set(found) == {1, 2, 3}
    for step, losses in found.items():
        assert losses == pytest.approx(whole[step], rel=1e-5), f"step {step}"
    for steps in (2, 3):
        run = arguments(shards, tmp_path / "again", in_parts, f"--trainer.max_steps={steps}", "--ckpt_path=auto")
        assert main(run) == 0
    assert curve(tmp_path / "again") == found
    expected, resumed = weights(tmp_path / "at_once"), weights(tmp_path / "again")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_to_all_processes_saves_and_the_run_goes_on_exactly(undisturbed, shards, tmp_path, workers):
    """As a cluster sends it: decoding processes and their server too, and more than once."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pretrain", *arguments(shards, tmp_path, f"--data.num_workers={workers}")],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "step 2 " in line:
            os.killpg(process.pid, signal.SIGTERM)
            os.killpg(process.pid, signal.SIGTERM)
            break
    said = process.stderr.read()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert "go on with --ckpt_path auto" in said
    assert (record(tmp_path)["state"], record(tmp_path)["reason"]) == ("stopped", "StopRequestedError")
    assert max(curve(tmp_path)) < 12
    assert main(arguments(shards, tmp_path, "--ckpt_path=auto")) == 0
    assert curve(tmp_path) == curve(undisturbed)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_batch(shards, tmp_path, monkeypatch, capsys):
    genuine = PretrainModule.training_step

    def broken(self, batch, batch_idx):
        losses = genuine(self, batch, batch_idx)
        if self.global_step == 4:
            losses["loss"] = losses["loss"] * float("nan")
        return losses

    monkeypatch.setattr(PretrainModule, "training_step", broken)
    assert main(arguments(shards, tmp_path, "--checkpoint.every_n_train_steps=2")) == 1
    assert "not finite at step 5" in capsys.readouterr().err
    replay = json.loads((tmp_path / "nonfinite" / "step_5_rank_0.json").read_text())
    assert len(replay["clip_ids"]) == 4
    assert replay["seed"] == 0
    assert all(bool(torch.isfinite(v).all()) for v in weights(tmp_path).values()), "a broken checkpoint was saved"


# Joint batch of 8: 2 processes with 4 clips each, or 1 with 8.
def test_two_processes_give_the_loss_curve_of_one(shards, tmp_path):
    common = ["--model.objective.negatives=global", "--trainer.max_epochs=4", "--trainer.max_steps=10"]
    roots = {1: tmp_path / "one", 2: tmp_path / "two"}
    for processes, root in roots.items():
        command = [
            *arguments(shards, root), *common, f"--data.batch_size={8 // processes}",
            f"--trainer.devices={processes}", "--trainer.strategy=ddp" if processes == 2 else "--trainer.strategy=auto",
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "pretrain", *command], env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = curve(roots[1]), curve(roots[2])
    assert sorted(one) == list(range(1, 11))
    for step in one:
        assert two[step] == pytest.approx(one[step], abs=1e-4), f"step {step}"
    expected, joint = weights(roots[1]), weights(roots[2])
    assert all(torch.allclose(joint[name], expected[name], atol=1e-4) for name in expected)


# ---------------------------------------------------------------- less work

LESS = {"views_per_clip": 2, "windows_per_clip": 3, "video_decode_ratio": 0.5, "audio_decode_ratio": 0.5}


def make_data(shards: Path, **settings: Any) -> PretrainData:
    config = ModelConfig.preset("micro", **SMALL)
    data = PretrainData(config, [str(shards)], val_shards=[str(shards)], batch_size=4, num_workers=0, **settings)
    data.trainer = None
    return data


def test_help_says_what_the_fields_of_settings_are(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    assert "What is not kept for the backward pass" in capsys.readouterr().out  # --model.speed.recompute


def test_the_batch_size_counts_views(shards):
    data, plain = make_data(shards, **LESS), make_data(shards)
    assert (data.batch_size, data.loader.batch_size) == (4, 2)  # learning rates follow the views
    assert data.batches_per_epoch == len(data.train_dataloader()) == 2 * 3 * plain.batches_per_epoch
    with pytest.raises(
        ValueError, match=r"batch_size=4 counts views and is no multiple of views_per_clip=3; .* 3 or 6"
    ):
        make_data(shards, views_per_clip=3)
    with pytest.raises(ValueError, match="the nearest valid batch_size is 5"):
        make_data(shards, views_per_clip=5)
    with pytest.raises(ValueError, match="views_per_clip=0 must be at least 1"):
        make_data(shards, views_per_clip=0)


def test_the_model_is_told_of_views_and_of_what_to_decode(shards):
    module, calls = PretrainModule("micro", SMALL), []
    module.model.register_forward_pre_hook(lambda _, *given: calls.append(given), with_kwargs=True)
    for data in (make_data(shards, **LESS), make_data(shards)):
        batch = next(iter(data.train_dataloader()))
        rows = data.transfer_batch_to_device(data.on_before_batch_transfer(batch, 0), torch.device("cpu"), 0)
        assert len(rows.clip_ids) == 4  # what the log counts
        assert torch.isfinite(module(rows).loss)
    (_, less), (_, plain) = calls
    inputs = [less[name] for name in ("video", "log_mel", "video_visible", "audio_visible")]
    assert less["clip_of"].tolist() == [rows_of for rows_of in less["clip_of"][::2].tolist() for _ in range(2)]
    assert len(set(less["clip_of"].tolist())) == 2
    assert [len(x) for x in inputs] == [4] * 4
    assert not torch.equal(inputs[0][0], inputs[0][1])  # the same frames, cropped differently
    assert not torch.equal(inputs[1][0], inputs[1][1])  # the same sound, of another loudness
    for name, visible in (("video", inputs[2]), ("audio", inputs[3])):
        masked = 32 - visible.shape[1]
        assert less[f"{name}_decoded"].shape == (4, round(masked / 2)), name
        assert plain[f"{name}_decoded"] is None
    assert plain["clip_of"] is None


def test_held_out_clips_are_wholly_decoded_and_never_seen_twice(shards):
    batches = []
    for data in (make_data(shards, **LESS), make_data(shards)):
        batch = data.on_before_batch_transfer(next(iter(data.val_dataloader())), 0)
        batches.append(data.transfer_batch_to_device(batch, torch.device("cpu"), 0))
    less, plain = batches
    assert less.clip_ids == plain.clip_ids
    assert less.video_decoded is less.audio_decoded is less.clip_of is None
    assert torch.equal(less.video_visible, plain.video_visible)
    assert torch.equal(less.audio_visible, plain.audio_visible)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_parses(config, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(config), "--print_config"])
    assert stop.value.code == 0
    assert "contrastive_weight: 0.0025" in capsys.readouterr().out


def test_an_unknown_key_is_named(tmp_path, capsys):
    (tmp_path / "odd.yaml").write_text("model:\n  objective:\n    contrastive_wait: 0.1\n")
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(tmp_path / "odd.yaml")])
    assert stop.value.code == 2
    assert "contrastive_wait" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--data.shards=[absent]", "absent"),
        ('--model.architecture={"image_size": 50}', "image_size=50 is not divisible by patch_size=16"),
        ('--model.architecture={"widht": 50}', "widht"),
        ("--model.preset=huge", "unknown preset 'huge'"),
        ("--data.video_mask_ratio=1.0", "mask ratio 1.0"),
        ("--data.audio_decode_ratio=0", "audio_decode_ratio: decode ratio 0.0 must be above 0"),
        ("--data.views_per_clip=3", "no multiple of views_per_clip=3; the nearest valid batch_size is 3 or 6"),
        ("--data.num_workers=40", "num_workers"),
        ("--data.pixels=yuv", "pixels='yuv' needs clips stored as h264"),
        ("--data.batch_size=100", "24 clips are too few"),
        ("--model.optimizer.warmup_epochs=9", "lower warmup_epochs"),
        ("--model.micro_batch_size=0", "micro_batch_size=0 must be 1 clip or more"),
    ],
)
def test_bad_settings_end_with_one_line(shards, tmp_path, capsys, change, message):
    started = time.perf_counter()
    assert main(arguments(shards, tmp_path, change)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("pretrain: error: ")
    assert message in error
    assert time.perf_counter() - started < 20


def in_parts_of(clips: int, strategy: Strategy, precision: str = "bf16-mixed") -> PretrainModule:
    """A module in a job with batches of four."""
    module = PretrainModule("micro", SMALL, micro_batch_size=clips)
    data = SimpleNamespace(batch_size=4)
    module.trainer = SimpleNamespace(strategy=strategy, precision=precision, datamodule=data)  # type: ignore[assignment]
    return module


@pytest.mark.parametrize(
    ("strategy", "precision", "message"),
    [
        (FSDPStrategy(), "bf16-mixed", "micro_batch_size=2 needs one device or the strategy ddp, not FSDPStrategy"),
        (ShardedStrategy(), "bf16-mixed", "not ShardedStrategy"),
        (DDPStrategy(), "16-mixed", "does not work with trainer.precision=16-mixed"),
    ],
)
def test_parts_are_refused_where_their_gradients_would_be_lost(strategy, precision, message):
    job = in_parts_of(2, strategy, precision)
    with pytest.raises(ValueError, match=message):
        job.setup("fit")
    assert message.removeprefix("micro_batch_size=2 ") in str(job.why_not_in_parts()), "MemoryAdvice would advise it"


@pytest.mark.parametrize(("clips", "said"), [(3, ""), (4, "micro_batch_size=4 has no effect: data.batch_size=4")])
def test_parts_as_large_as_the_batch_are_said_to_have_no_effect(caplog, clips, said):
    in_parts_of(clips, DDPStrategy()).setup("fit")
    assert said in caplog.text
    assert bool(said) == bool(caplog.records)


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_data_that_cannot_be_used_end_with_one_line(tmp_path, capsys, share):
    damaged = tmp_path / "shards"
    write_shards(make_corpus(tmp_path / "corpus", 8), damaged, shard_mb=0.06)
    for tar in damaged.glob("*.tar"):
        tar.write_bytes(bytes(tar.stat().st_size))
    run = arguments(damaged, tmp_path / "run", "--data.num_workers=1", f"--data.max_skip_fraction={share}")
    assert main(run) == 1
    error = capsys.readouterr().err
    assert error.strip().splitlines()[-1].startswith("pretrain: error: ")
    assert "Traceback" not in error
    assert "(checksum_mismatch)" in error


def test_a_checkpoint_of_another_architecture_is_refused_by_field(undisturbed, shards, tmp_path, capsys):
    other = json.dumps(SMALL | {"width": 64})
    path = undisturbed / "checkpoints" / "last.ckpt"
    status = main(arguments(shards, tmp_path, f"--ckpt_path={path}", f"--model.architecture={other}"))
    assert status == 2
    assert "width is 32, expected 64" in capsys.readouterr().err


# ---------------------------------------------------------------- speed


def test_a_compiled_and_recomputed_run_computes_the_same_and_goes_on_exactly(
    undisturbed, shards, tmp_path, monkeypatch
):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    # The compiler of C++ takes minutes; what it is given is what counts here.
    monkeypatch.setattr("pretrain.module.accelerate", partial(accelerate, backend="eager"))
    fast = arguments(shards, tmp_path, "--model.speed.compile=blocks", "--model.speed.recompute=blocks")
    assert main([*fast, "--trainer.max_steps=4"]) == 0
    made = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    # Blocks of two encoders and two decoders, cross blocks of both streams, of both decoders and of their last layers;
    # more would be made anew at each step.
    assert 0 < made <= 10
    assert main([*fast, "--ckpt_path=auto"]) == 0
    torch._dynamo.reset()
    assert curve(tmp_path) == curve(undisturbed)
    expected, resumed = weights(undisturbed), weights(tmp_path)
    assert list(resumed) == list(expected)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_the_pictures_of_a_run_are_of_different_clips_though_each_has_several_views(shards, tmp_path, monkeypatch):
    data, module, finish = make_data(shards, **LESS), PretrainModule("micro", SMALL), FinishPretraining()
    batch = data.on_before_batch_transfer(next(iter(data.train_dataloader())), 0)
    finish._batch = data.transfer_batch_to_device(batch, torch.device("cpu"), 0)
    drawn = []
    monkeypatch.setattr("pretrain.callbacks.draw_reconstruction", lambda *_, clip, title: drawn.append((clip, title)))
    trainer = SimpleNamespace(datamodule=data, default_root_dir=str(tmp_path), global_step=3)
    finish._draw(trainer, module, module.model)
    assert drawn == [(row, f"{finish._batch.clip_ids[row]}, after 3 steps") for row in (0, 2)]
    assert finish._batch.clip_ids[0] != finish._batch.clip_ids[2]
