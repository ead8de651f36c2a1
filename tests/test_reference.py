"""Parity with the authors' code, on goldens computed with it: float32, CPU, tolerances of the design."""

from __future__ import annotations

import argparse
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import hicmae
from hicmae import reference
from hicmae.heads import categorical
from hicmae.losses import soft_cross_entropy
from hicmae.training.optim import OptimizerConfig, build_optimizer, decays, parameter_groups, warmup_cosine
from tests.goldens_data import (
    FINETUNE_STATE,
    MICRO,
    PRETRAIN_STATE,
    losses,
    numbers,
    pretrain_inputs,
    tensors,
)

LOSS_BOUNDS = {"video": 1e-6, "audio": 1e-6, "contrastive_sum": 5e-6, "total": 1e-6}
TRAJECTORY_BOUNDS = {"video": 1e-6, "audio": 1e-6, "contrastive_sum": 2e-5, "total": 1e-6}
GRADIENT_BOUND = 1e-5


def assert_close(ours: Tensor, golden: Tensor, bound: float) -> None:
    """Largest difference over the largest golden value."""
    assert ours.shape == golden.shape
    error = ((ours - golden).abs().max() / golden.abs().max()).item()
    assert error <= bound, f"off by {error:.2e}, allowed {bound:.0e}"


@pytest.fixture
def pretrain_model() -> hicmae.HiCMAE:
    return reference.load_pretraining(PRETRAIN_STATE, MICRO)


@pytest.fixture
def recognizer() -> hicmae.EmotionRecognizer:
    return reference.load_recognizer(FINETUNE_STATE, MICRO)


# ---------------------------------------------------------------- pre-training


def test_video_prediction(pretrain_model):
    assert_close(pretrain_model(*pretrain_inputs()).video_prediction, tensors("pretrain_micro")["out.video"], 2e-6)


def test_audio_prediction(pretrain_model):
    assert_close(pretrain_model(*pretrain_inputs()).audio_prediction, tensors("pretrain_micro")["out.audio"], 2e-6)


@pytest.mark.parametrize("tap", [0, 1])
def test_contrastive_logits(pretrain_model, tap):
    logits = pretrain_model(*pretrain_inputs()).contrastive_logits[tap]
    assert_close(logits, tensors("pretrain_micro")[f"out.logits_per_video.{tap}"], 2e-6)


@pytest.mark.parametrize("name", list(LOSS_BOUNDS))
def test_pretraining_loss(pretrain_model, name):
    golden = numbers("pretrain_micro")["losses"][name]
    assert losses(pretrain_model(*pretrain_inputs()))[name] == pytest.approx(golden, rel=LOSS_BOUNDS[name])


def test_pretraining_gradient_norm_of_every_parameter(pretrain_model):
    pretrain_model(*pretrain_inputs()).loss.backward()
    golden = numbers("pretrain_micro")["grad_norms"]
    ours = {
        reference.reference_name(name): parameter.grad.norm().item()
        for name, parameter in pretrain_model.named_parameters()
        if parameter.requires_grad
    }
    assert ours.keys() == golden.keys()
    total = sum(value**2 for value in golden.values()) ** 0.5
    assert total == pytest.approx(numbers("pretrain_micro")["grad_norm"], rel=GRADIENT_BOUND)
    # A norm near zero is rounding: it is held to the bound times a small share of the total.
    off = {
        n: (ours[n], golden[n])
        for n in golden
        if ours[n] != pytest.approx(golden[n], rel=GRADIENT_BOUND, abs=1e-5 * 1e-3 * total)
    }
    assert not off


def test_pretraining_trajectory_through_our_optimizer_and_schedule(pretrain_model):
    golden = numbers("pretrain_micro")
    plan = golden["schedule"]
    config = OptimizerConfig(
        lr_per_256=plan["base_lr"], min_lr_per_256=plan["min_lr"], warmup_epochs=plan["warmup_epochs"]
    )
    optimizer, schedule = build_optimizer(
        pretrain_model,
        config,
        global_batch=256,
        steps_per_epoch=plan["steps_per_epoch"],
        epochs=plan["epochs"],
        depth=MICRO.depth,
        fusion_depth=MICRO.fusion_depth,
    )
    for step, expected in enumerate(golden["trajectory"]):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected["lr"], rel=1e-9), f"step {step}"
        output = pretrain_model(*pretrain_inputs())
        for name, bound in TRAJECTORY_BOUNDS.items():
            assert losses(output)[name] == pytest.approx(expected[name], rel=bound), f"{name} at step {step}"
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        schedule.step()


def test_schedule_of_the_whole_run():
    plan = numbers("pretrain_micro")["schedule"]
    steps = plan["steps_per_epoch"]
    ours = [
        warmup_cosine(
            step,
            peak=plan["base_lr"],
            floor=plan["min_lr"],
            warmup_steps=plan["warmup_epochs"] * steps,
            total_steps=plan["epochs"] * steps,
        )
        for step in range(plan["epochs"] * steps)
    ]
    assert ours == pytest.approx(plan["values"], rel=1e-12)


def test_decay_groups_differ_from_the_reference_by_one_mask_token(pretrain_model):
    golden = {group["weight_decay"]: group["n"] for group in numbers("pretrain_micro")["decay_groups"]}
    groups = parameter_groups(pretrain_model.named_parameters(), OptimizerConfig(), lr=1.0, depth=4, fusion_depth=2)
    ours = {group["weight_decay"]: group["names"] for group in groups}
    # The reference decays the audio mask token and not the video one; ours decays neither.
    assert len(ours[0.05]) == golden[0.05] - 1
    assert len(ours[0.0]) == golden[0.0] + 1
    assert {"video_decoder.mask_token", "audio_decoder.mask_token"} <= set(ours[0.0])


# ---------------------------------------------------------------- fine-tuning


def test_finetune_features(recognizer):
    golden = tensors("finetune_micro")
    assert_close(recognizer(golden["in.video"], golden["in.audio"]).features, golden["out.features"], 2e-6)


def test_finetune_logits(recognizer):
    golden = tensors("finetune_micro")
    assert_close(recognizer(golden["in.video"], golden["in.audio"]).logits, golden["out.logits"], 2e-6)


def test_finetune_loss_and_gradient_norm_of_every_parameter(recognizer):
    inputs, golden = tensors("finetune_micro"), numbers("finetune_micro")
    logits = recognizer(inputs["in.video"], inputs["in.audio"]).logits
    loss = soft_cross_entropy(logits, torch.tensor([0, 1]), label_smoothing=0.1)
    assert loss.item() == pytest.approx(golden["loss"], rel=1e-6)
    loss.backward()
    ours = {reference.reference_name(n): p.grad.norm().item() for n, p in recognizer.named_parameters()}
    assert ours.keys() == golden["grad_norms"].keys()
    floor = 1e-5 * 1e-3 * golden["grad_norm"]
    off = {
        n: (ours[n], expected)
        for n, expected in golden["grad_norms"].items()
        if ours[n] != pytest.approx(expected, rel=GRADIENT_BOUND, abs=floor)
    }
    assert not off


def test_layer_decay_scale_of_every_parameter(recognizer):
    golden = numbers("finetune_micro")
    config = OptimizerConfig(layer_decay=golden["layer_decay"])
    groups = parameter_groups(recognizer.named_parameters(), config, lr=1.0, depth=4, fusion_depth=2)
    ours = {reference.reference_name(name): group["lr_scale"] for group in groups for name in group["names"]}
    assert ours == golden["lr_scales"]


def test_finetune_parameters_without_decay(recognizer):
    ours = {reference.reference_name(n) for n, p in recognizer.named_parameters() if not decays(n, p)}
    assert ours == set(numbers("finetune_micro")["no_weight_decay"])


# ---------------------------------------------------------------- published sizes


@pytest.mark.parametrize(("preset", "millions"), [("tiny", 20.47), ("small", 45.65), ("base", 80.79)])
def test_finetune_parameter_count(preset, millions):
    with torch.device("meta"):
        backbone = hicmae.Backbone(hicmae.ModelConfig.preset(preset))
        model = hicmae.EmotionRecognizer(backbone, categorical(6))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(("preset", "millions"), [("small", 50.58), ("base", 99.61), ("large", 299.22)])
def test_pretraining_parameter_count(preset, millions):
    with torch.device("meta"):
        model = hicmae.HiCMAE(hicmae.ModelConfig.preset(preset))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6 == pytest.approx(millions, abs=0.005)


# ---------------------------------------------------------------- names and files


@pytest.mark.parametrize("path", [PRETRAIN_STATE, FINETUNE_STATE], ids=["pretraining", "finetuning"])
def test_every_name_and_value_survives_the_way_there_and_back(path):
    load = reference.load_pretraining if path == PRETRAIN_STATE else reference.load_recognizer
    state = reference.read_state(path)
    returned = reference.to_reference(load(path, MICRO))
    assert returned.keys() == state.keys()
    assert all(torch.equal(returned[name], state[name]) for name in state)


def test_missing_unknown_and_misshapen_names_are_listed(tmp_path):
    state = reference.read_state(PRETRAIN_STATE)
    state["decoder.extra.weight"] = state.pop("decoder.norm.weight")
    state["mask_token"] = torch.zeros(1, 1, 3)
    torch.save({"model": state}, tmp_path / "odd.pth")
    with pytest.raises(ValueError) as error:
        reference.load_pretraining(tmp_path / "odd.pth", MICRO)
    assert re.search(r"missing: decoder\.norm\.weight\b", str(error.value))
    assert re.search(r"unknown: decoder\.extra\.weight\b", str(error.value))
    assert "mask_token has (1, 1, 3), expected (1, 1, 16)" in str(error.value)


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_pth_with_a_namespace_loads(tmp_path, prefix):
    state = {prefix + name: value for name, value in reference.read_state(PRETRAIN_STATE).items()}
    args = argparse.Namespace(
        lr=0.1, output=Path("x"), scale=np.float64(2), shape=(1, 2), nested=argparse.Namespace(a=[1])
    )
    torch.save({"model": state, "args": args, "epoch": 3}, tmp_path / "official.pth")
    model = reference.load_pretraining(tmp_path / "official.pth", MICRO)
    output = model(*pretrain_inputs())
    assert output.video_loss.item() == pytest.approx(numbers("pretrain_micro")["losses"]["video"], rel=1e-6)


class _Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_code_in_a_pth_is_not_run(tmp_path):
    victim = tmp_path / "was_run"
    assert not victim.exists()
    pickle.loads(pickle.dumps(_Attack(victim)))  # noqa: S301
    assert victim.exists(), "the attack of this test must work on plain pickle"
    victim.unlink()
    state = reference.read_state(PRETRAIN_STATE)
    torch.save({"model": state, "args": _Attack(victim)}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="would have to run code"):
        reference.load_pretraining(tmp_path / "evil.pth", MICRO)
    assert not victim.exists()


def test_architecture_is_inferred_from_shapes(tmp_path):
    for preset in ("small", "tiny"):
        config = hicmae.ModelConfig.preset(preset)
        with torch.device("meta"):
            state = reference.to_reference(hicmae.HiCMAE(config))
        assert reference.infer_config(state) == config


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    text = tmp_path / "weights.pth"
    text.write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"weights\.pth is no torch checkpoint"):
        reference.read_state(text)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        reference.read_state(tmp_path / "absent.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        reference.read_state(tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="use load_pretraining"):
        reference.load_recognizer(PRETRAIN_STATE)
