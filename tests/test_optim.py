"""Optimiser groups, layer decay and the schedule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hicmae.backbone import Backbone
from hicmae.heads import categorical
from hicmae.recognition import EmotionRecognizer
from hicmae.training.optim import (
    OptimizerConfig,
    build_optimizer,
    decays,
    layer_scale,
    parameter_groups,
    warmup_cosine,
)
from tests.tiny_model import TINY, pretraining_model

SIZES = dict(depth=TINY.depth, fusion_depth=TINY.fusion_depth)


@pytest.fixture
def recognizer() -> EmotionRecognizer:
    return EmotionRecognizer(Backbone(TINY), categorical(3))


# ---------------------------------------------------------------- rates and settings


def test_rates_scale_with_the_global_batch():
    config = OptimizerConfig(lr_per_256=3e-4, min_lr_per_256=1e-5)
    assert config.peak_lr(160) == pytest.approx(3e-4 * 160 / 256)
    assert config.floor_lr(160) == pytest.approx(1e-5 * 160 / 256)
    fixed = OptimizerConfig(min_lr_per_256=1e-6, scale_min_lr=False)
    assert fixed.floor_lr(56) == 1e-6


def test_the_defaults_are_the_papers_pretraining():
    config = OptimizerConfig()
    assert (config.lr_per_256, config.min_lr_per_256, config.warmup_epochs) == (3e-4, 1e-5, 5)
    assert (config.weight_decay, config.betas, config.eps, config.layer_decay) == (0.05, (0.9, 0.95), 1e-8, 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(lr_per_256=-1.0), "lr_per_256=-1.0 must be 0 or more"),
        (dict(weight_decay=-0.1), "weight_decay=-0.1 must be 0 or more"),
        (dict(layer_decay=0.0), "layer_decay=0.0 must be above 0"),
        (dict(layer_decay=1.5), "layer_decay=1.5 must be above 0 and at most 1"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**fields)


# ---------------------------------------------------------------- groups


def test_what_decays():
    model = pretraining_model()
    without = {name for name, p in model.named_parameters() if not decays(name, p)}
    assert {"video_decoder.mask_token", "audio_decoder.mask_token"} < without
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim == 2
        assert (name not in without) == matrix, name


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("backbone.video_encoder.embed.weight", 0),
        ("backbone.audio_encoder.embed.bias", 0),
        ("backbone.video_encoder.blocks.0.attn.qkv.weight", 1),
        ("backbone.audio_encoder.blocks.9.mlp.fc1.bias", 10),
        ("backbone.fusion.video_blocks.0.norm1.weight", 11),
        ("backbone.fusion.audio_blocks.1.cross_attn.kv.weight", 12),
        ("backbone.video_encoder.norm.weight", 13),
        ("backbone.fusion.audio_norm.bias", 13),
        ("backbone.video_layer_weights", 13),
        ("head.classifier.weight", 13),
    ],
)
def test_layer_scale_of_the_base_model(name, layer):
    assert layer_scale(name, depth=10, fusion_depth=2, layer_decay=0.75) == 0.75 ** (13 - layer)


def test_groups_hold_every_trainable_parameter_once(recognizer):
    recognizer.backbone.fusion.requires_grad_(False)
    groups = parameter_groups(recognizer.named_parameters(), OptimizerConfig(layer_decay=0.5), lr=2.0, **SIZES)
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, p in recognizer.named_parameters() if p.requires_grad)
    by_name = dict(recognizer.named_parameters())
    assert len({(g["weight_decay"], g["lr_scale"]) for g in groups}) == len(groups)
    for group in groups:
        assert group["lr"] == 2.0 * group["lr_scale"]
        assert all(by_name[n] is p for n, p in zip(group["names"], group["params"], strict=True))
        assert {0.05 if decays(n, by_name[n]) else 0.0 for n in group["names"]} == {group["weight_decay"]}
    assert {g["lr_scale"] for g in groups} == {0.5**k for k in (0, 3, 4, 5, 6, 7)}


# ---------------------------------------------------------------- schedule


def test_warm_up_meets_the_peak_twice_and_the_floor_never():
    rates = [warmup_cosine(s, peak=1.0, floor=0.1, warmup_steps=5, total_steps=25) for s in range(25)]
    np.testing.assert_allclose(rates[:5], np.linspace(0, 1, 5))
    np.testing.assert_allclose(rates[5:], 0.1 + 0.45 * (1 + np.cos(np.pi * np.arange(20) / 20)))
    assert rates[4] == rates[5] == 1.0
    assert rates[-1] > 0.1


@given(
    warmup=st.integers(0, 20), rest=st.integers(1, 50), peak=st.floats(1e-5, 1), share=st.floats(0, 1),
    step=st.integers(0, 200),
)  # fmt: skip
def test_the_schedule_stays_between_its_ends(warmup, rest, peak, share, step):
    settings = dict(peak=peak, floor=peak * share, warmup_steps=warmup, total_steps=warmup + rest)
    rate = warmup_cosine(step, **settings)
    assert 0 <= rate <= peak * (1 + 1e-12)
    if step >= warmup:
        assert rate >= peak * share * (1 - 1e-12)
        assert warmup_cosine(step + 1, **settings) <= rate + 1e-15
    if step >= warmup + rest:
        assert rate == pytest.approx(peak * share)


def test_without_warm_up_training_starts_at_the_peak():
    assert warmup_cosine(0, peak=1.0, floor=0.0, warmup_steps=0, total_steps=10) == 1.0


def test_the_optimizer_follows_the_schedule_with_every_group_scaled(recognizer):
    config = OptimizerConfig(
        lr_per_256=1e-3, min_lr_per_256=1e-6, scale_min_lr=False, warmup_epochs=1, betas=(0.8, 0.97),
        weight_decay=0.02, eps=1e-7, layer_decay=0.75,
    )  # fmt: skip
    optimizer, schedule = build_optimizer(recognizer, config, global_batch=64, steps_per_epoch=4, epochs=3, **SIZES)
    assert optimizer.defaults["betas"] == (0.8, 0.97)
    assert optimizer.defaults["eps"] == 1e-7
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.0, 0.02}
    for step in range(12):
        expected = warmup_cosine(step, peak=2.5e-4, floor=1e-6, warmup_steps=4, total_steps=12)
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(expected * group["lr_scale"], rel=1e-9)
        optimizer.step()
        schedule.step()


def test_weight_decay_moves_matrices_only(recognizer):
    optimizer, _ = build_optimizer(
        recognizer,
        OptimizerConfig(warmup_epochs=0, lr_per_256=0.1),
        global_batch=256,
        steps_per_epoch=1,
        epochs=1,
        **SIZES,
    )
    before = {name: p.detach().clone() for name, p in recognizer.named_parameters()}
    for parameter in recognizer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in recognizer.named_parameters():
        factor = 1 - 0.1 * 0.05 if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter, before[name] * factor)


def test_warm_up_as_long_as_training_is_refused(recognizer):
    with pytest.raises(ValueError, match=r"warm-up of 5.0 epochs \(10 steps\) leaves nothing of 5 epochs \(10 steps\)"):
        build_optimizer(recognizer, OptimizerConfig(), global_batch=8, steps_per_epoch=2, epochs=5, **SIZES)


def test_a_rate_of_zero_trains_nothing(recognizer):
    optimizer, schedule = build_optimizer(
        recognizer, OptimizerConfig(lr_per_256=0.0, min_lr_per_256=0.0, warmup_epochs=0), global_batch=8,
        steps_per_epoch=2, epochs=5, **SIZES,
    )  # fmt: skip
    optimizer.step()
    schedule.step()
    assert {g["lr"] for g in optimizer.param_groups} == {0.0}
