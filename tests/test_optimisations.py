"""The benchmark of the optimisations: what it compares are steps with the same mathematics, and it runs."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import optimisations
from benchmarks.plain import Variant, variants
from hicmae.bench.batch import SyntheticBatch
from hicmae.bench.settings import BenchSettings
from hicmae.bench.steps import finetuning_steps, pretraining_steps

SETTINGS = BenchSettings(preset="micro", batch=2)
BATCH = SyntheticBatch.make(SETTINGS.config, 2, SETTINGS.torch_device)
STEPS = {"pretrain": pretraining_steps, "finetune": finetuning_steps}


def gradients(steps, variant: Variant | None = None):
    """Loss and gradients of a step; for the optimiser's variants, the weights after it."""
    torch.manual_seed(1)  # of stochastic depth
    if variant is None:
        loss = steps.forward_backward()
    else:
        with variant.applied(steps, BATCH):
            loss = steps.forward_backward()
    return loss, {name: p.grad.clone() for name, p in steps.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_every_variant_has_the_same_loss_and_gradients(stage):
    steps = STEPS[stage](SETTINGS, BATCH)
    loss, expected = gradients(steps)
    for variant in variants(stage, on_gpu=False):
        its_loss, found = gradients(steps, variant)
        torch.testing.assert_close(its_loss, loss, rtol=1e-5, atol=0)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            error = (found[name] - gradient).abs().max() / gradient.abs().max()
            assert error < 1e-3, (variant.name, name)
    again, _ = gradients(steps)
    assert torch.equal(again, loss), "a variant left something behind"


def test_the_optimiser_takes_the_same_step_tensor_by_tensor():
    weights = []
    (by_tensor,) = (v for v in variants("finetune", on_gpu=False) if v.name == "AdamW tensor by tensor")
    for variant in (None, by_tensor):
        steps = finetuning_steps(SETTINGS, BATCH)
        torch.manual_seed(1)
        for _ in range(2):  # the first has a learning rate of 0
            if variant is None:
                steps.whole()
            else:
                with variant.applied(steps, BATCH):
                    steps.whole()
        weights.append(list(steps.model.parameters()))
    for a, b in zip(*weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_command_writes_page_figures_and_numbers(tmp_path, capsys, monkeypatch):
    # Whole seconds of arithmetic, and another process.
    monkeypatch.setattr(optimisations, "matrix_peak", lambda *_: 1e11)
    monkeypatch.setattr(optimisations, "bandwidth", lambda *_: 1e10)
    monkeypatch.setattr(optimisations, "measure_allocator", lambda *_: [])
    assert optimisations.main(["--quick", "--preset", "micro", "--batch", "1", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "optimisations.json").read_text())
    rows = {row["name"]: row for row in result["stages"]["pretrain"]["rows"]}
    library = rows["the library's step"]
    assert library["ratio"] == 1
    assert library["predicted_ratio"] is None
    less = ("norms and GELUs computed again", "activations computed again")
    for name, sign in (("attention written out", 1), *((name, -1) for name in less)):
        for kind in ("kept_bytes", "predicted_kept_bytes"):
            assert sign * rows[name][kind] > sign * library["kept_bytes"]
    assert "attention written out" in (tmp_path / "optimisations.md").read_text()
    assert (tmp_path / "optimisations.png").stat().st_size > 10_000
    assert "attention written out" in capsys.readouterr().out
