"""Compiled models: the same numbers, one graph a part, none anew after the first step, the same names."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch._dynamo.utils import counters

import hicmae.speed
from hicmae import reference
from hicmae.backbone import Backbone
from hicmae.heads import Targets
from hicmae.layers import Block, CrossBlock
from hicmae.pretraining import HiCMAE
from hicmae.recognition import EmotionRecognizer
from hicmae.speed import SpeedConfig, accelerate, eagerly
from tests.goldens_data import FINETUNE_STATE, MICRO, PRETRAIN_STATE, losses, numbers, pretrain_inputs, tensors
from tests.tiny_model import TINY, clips, pretraining_batch

SHALLOW = type(TINY)(**TINY.to_dict() | {"depth": 2, "fusion_depth": 1, "decoder_depth": 2, "taps": [0]})


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Nothing compiled before or after, and the limit of graphs as torch has it."""
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(recompile_limit=8):
        yield
    torch._dynamo.reset()


def graphs() -> int:
    """Graphs made so far; none is broken."""
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


def recognizer() -> EmotionRecognizer:
    torch.manual_seed(0)
    return EmotionRecognizer(Backbone(SHALLOW), Targets(classes=("a", "b")))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


# ---------------------------------------------------------------- graphs


@pytest.mark.parametrize(("how", "expected"), [("blocks", 4), ("whole", 5)])
def test_a_pretraining_step_is_a_few_graphs_that_later_steps_use_again(how: Any, expected: int) -> None:
    torch.manual_seed(0)
    plain = HiCMAE(SHALLOW)
    model = copy.deepcopy(plain)
    names = list(model.state_dict())
    accelerate(model, SpeedConfig(compile=how), "cpu", backend="eager")
    assert [*model.state_dict()] == [*dict(model.named_parameters())] == names
    for step in range(2):
        output, other = model(*pretraining_batch(2, seed=step)), plain(*pretraining_batch(2, seed=step))
        assert torch.equal(output.loss, other.loss)
        output.loss.backward()
        # blocks and cross blocks, in encoders and decoders; two encoders, the fusion, two decoders
        assert graphs() == expected
    other.loss.backward()
    with eagerly(), torch.no_grad():
        assert torch.equal(model.eval()(*pretraining_batch(3)).loss, plain.eval()(*pretraining_batch(3)).loss)
    assert graphs() == expected, "a batch of another size was compiled within eagerly()"


def test_layers_that_differ_in_their_drop_path_alone_share_a_graph() -> None:
    torch.manual_seed(0)
    model = Backbone(replace(SHALLOW, depth=3), drop_path=0.5)
    accelerate(model, SpeedConfig(compile="blocks"), "cpu", backend="eager")
    model(*clips(2)).pooled.sum().backward()
    assert graphs() == 3  # a block with stochastic depth, one without, a cross block
    assert not torch.equal(model(*clips(2)).pooled, model(*clips(2)).pooled), "no clip skipped anything"


def test_recomputing_works_inside_of_a_graph() -> None:
    model, plain = recognizer(), recognizer()
    accelerate(model, SpeedConfig(compile="blocks", recompute="blocks"), "cpu", backend="aot_eager")
    for one in (model, plain):
        one(*clips(2)).features.square().sum().backward()
    assert graphs()
    torch.testing.assert_close(gradients(model), gradients(plain))
    assert {block.recompute for block in model.modules() if isinstance(block, Block)} == {"blocks"}


def test_a_copy_of_a_compiled_model_computes_with_its_own_weights() -> None:
    """As the average of the weights is made."""
    model = recognizer()
    accelerate(model, SpeedConfig(compile="blocks"), "cpu", backend="eager")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.backbone.parameters():
            parameter.zero_()
    assert not torch.equal(model.eval()(*clips(1)).features, twin.eval()(*clips(1)).features)


# ---------------------------------------------------------------- numbers


@pytest.mark.slow
def test_a_block_compiled_for_this_machine_computes_what_it_did_uncompiled() -> None:
    def results(block: CrossBlock) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        x, context = (torch.randn(2, n, 16, generator=generator, requires_grad=True) for n in (5, 3))
        y = block(x, context)
        y.square().sum().backward()
        return [y, x.grad, context.grad, *gradients(block).values()]  # type: ignore[list-item]

    torch.manual_seed(0)
    plain = CrossBlock(width=16, heads=2, mlp_ratio=2.0)
    block = copy.deepcopy(plain)
    accelerate(block, SpeedConfig(compile="blocks"), "cpu")
    compiled, expected = results(block), results(plain)
    assert graphs() == 1
    for ours, theirs in zip(compiled, expected, strict=True):
        assert (ours - theirs).abs().max() <= 2e-6 * theirs.abs().max()


@pytest.mark.parametrize(
    ("how", "recompute", "backend"),
    [
        ("blocks", "none", "aot_eager"),  # the graphs and what autograd makes of them, run by eager kernels
        *(pytest.param(how, recompute, "inductor", marks=pytest.mark.compiled)
          for how in ("blocks", "whole") for recompute in ("none", "pointwise", "blocks")),
    ],
)  # fmt: skip
def test_goldens_hold_compiled(how: Any, recompute: Any, backend: str) -> None:
    """The bounds of tests/test_reference.py."""
    model = reference.load_pretraining(PRETRAIN_STATE, MICRO).train()
    accelerate(model, SpeedConfig(compile=how, recompute=recompute), "cpu", backend=backend)
    output, golden = model(*pretrain_inputs()), numbers("pretrain_micro")
    output.loss.backward()
    for name, bound in {"video": 1e-6, "audio": 1e-6, "contrastive_sum": 5e-6, "total": 1e-6}.items():
        assert losses(output)[name] == pytest.approx(golden["losses"][name], rel=bound)
    for prediction, name in ((output.video_prediction, "out.video"), (output.audio_prediction, "out.audio")):
        expected = tensors("pretrain_micro")[name]
        assert (prediction - expected).abs().max() <= 2e-6 * expected.abs().max()
    norm = torch.stack([g.norm() for g in gradients(model).values()]).norm().item()
    total = sum(value**2 for value in golden["grad_norms"].values()) ** 0.5
    assert norm == pytest.approx(total, rel=1e-5)

    tuned = reference.load_recognizer(FINETUNE_STATE, MICRO).train()
    accelerate(tuned, SpeedConfig(compile=how, recompute=recompute), "cpu", backend=backend)
    inputs = tensors("finetune_micro")
    result = tuned(inputs["in.video"], inputs["in.audio"])
    for ours, name in ((result.features, "out.features"), (result.logits, "out.logits")):
        assert (ours - inputs[name]).abs().max() <= 2e-6 * inputs[name].abs().max()


# ---------------------------------------------------------------- what it does where


def compiled_parts(settings: SpeedConfig, device_type: str) -> set[type]:
    model = recognizer()
    accelerate(model, settings, device_type, backend="eager")
    return {type(m) for m in model.modules() if m._compiled_call_impl is not None}


def test_auto_compiles_blocks_on_a_gpu_and_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hicmae.speed, "_missing_tools", lambda device_type: None)
    assert compiled_parts(SpeedConfig(), "cuda") == {Block, CrossBlock}
    assert compiled_parts(SpeedConfig(), "cpu") == compiled_parts(SpeedConfig(compile="off"), "cuda") == set()


def test_a_machine_without_compiler_says_so_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler --fast")
    with pytest.raises(ValueError, match=r"speed.compile=blocks needs a C\+\+ compiler \(no-such-compiler was not"):
        compiled_parts(SpeedConfig(compile="blocks"), "cpu")
    monkeypatch.setattr(hicmae.speed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"speed.compile=whole needs the package triton"):
        compiled_parts(SpeedConfig(compile="whole"), "cuda")
    with caplog.at_level(logging.WARNING):
        assert compiled_parts(SpeedConfig(), "cuda") == set()
    assert [record.message for record in caplog.records] == [
        "training without torch.compile, which costs speed and memory: it needs the package triton, which comes with "
        "PyTorch's builds for CUDA. Install it, or set speed.compile=off to do without this warning"
    ]


def test_an_old_gpu_and_missing_headers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GTX 1080")
    monkeypatch.setattr(hicmae.speed.importlib.util, "find_spec", lambda name: object())
    assert str(hicmae.speed._missing_tools("cuda")).endswith("7.0 or above; GTX 1080 has 6.1")
    monkeypatch.setattr(hicmae.speed.sysconfig, "get_path", lambda name: "/nowhere")
    monkeypatch.setenv("CXX", "sh")
    assert str(hicmae.speed._missing_tools("cpu")).startswith("Python's headers")


def test_an_unknown_way_of_compiling_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of auto, off, blocks, whole"):
        SpeedConfig(compile="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be one of none, pointwise, blocks"):
        SpeedConfig(recompute="all")  # type: ignore[arg-type]
