"""Activation checkpointing: the same gradients, less kept, nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hicmae.backbone import Backbone
from hicmae.heads import categorical
from hicmae.layers import Block, set_recompute
from hicmae.recognition import EmotionRecognizer
from tests.tiny_model import TINY, clips, pretraining_batch, pretraining_model

Case = tuple[nn.Module, Callable[[], Tensor]]


def pre_training() -> Case:
    model, batch = pretraining_model(), pretraining_batch(2)
    return model, lambda: model(*batch).loss


def fine_tuning() -> Case:
    torch.manual_seed(0)
    model, batch = EmotionRecognizer(Backbone(TINY, drop_path=0.5), categorical(3)), clips(4)

    def loss() -> Tensor:
        logits = model(*batch).logits
        assert logits is not None
        return logits.square().sum()

    return model, loss


def run(model: nn.Module, loss: Callable[[], Tensor]) -> tuple[int, dict[str, Tensor]]:
    """Bytes that the forward pass kept for the backward pass, parameters aside, and the gradients."""
    torch.manual_seed(1)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = loss()
    total.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return sum(kept.values()), gradients


@pytest.mark.parametrize("case", [pre_training, fine_tuning])
@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("what", "share"), [("pointwise", 0.85), ("blocks", 0.5)])
def test_gradients_are_the_same_to_the_bit_and_less_is_kept(case, bfloat16, what, share):
    model, loss = case()

    def cast() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return loss()

    names = list(model.state_dict())
    kept, expected = run(model, cast)
    set_recompute(model, what)
    kept_less, gradients = run(model, cast)
    assert gradients.keys() == expected.keys()
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)
    assert kept_less < share * kept
    assert list(model.state_dict()) == names
    set_recompute(model, "none")
    assert run(model, cast)[0] == kept


def test_norms_and_gelus_are_computed_again_but_no_product():
    model, loss = fine_tuning()
    counted = []
    for what in ("none", "pointwise", "blocks"):
        set_recompute(model, what)
        with FlopCounterMode(display=False) as counter:
            loss().backward()
        counted.append(counter.get_total_flops())
    assert counted[1] == counted[0] < counted[2]


def test_nothing_is_computed_twice_without_training():
    model, loss = pre_training()
    set_recompute(model, "blocks")
    calls: list[int] = []
    for block in model.modules():
        if isinstance(block, Block):
            block.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    model.eval()
    loss().backward()
    blocks = len(calls)
    with torch.no_grad():
        model.train()
        loss()
    assert len(calls) == 2 * blocks
    loss().backward()
    assert len(calls) == 4 * blocks


def test_a_block_that_recomputes_can_be_compiled_whole():
    block = Block(width=24, heads=2, mlp_ratio=2)
    x = torch.randn(2, 5, 24, requires_grad=True)
    expected = torch.autograd.grad(block(x, start=2).square().sum(), x)[0]
    set_recompute(block, "blocks")
    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    result = torch.autograd.grad(compiled(x, start=2).square().sum(), x)[0]
    torch.testing.assert_close(result, expected)
