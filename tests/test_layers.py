"""Attention and blocks against the formulas written out; precision under autocast."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hicmae.layers import MLP, Block, CrossAttention, CrossBlock, LayerNorm, SelfAttention, attend, initialize
from tests.tiny_model import shake

WIDTH, HEADS = 12, 3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def written_out(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(q k' / sqrt(head width)) v, head by head."""
    outputs = []
    for q_h, k_h, v_h in zip(*(x.chunk(heads, dim=-1) for x in (q, k, v)), strict=True):
        weights = (q_h @ k_h.transpose(1, 2) / math.sqrt(q_h.shape[-1])).exp()
        outputs.append(weights / weights.sum(-1, keepdim=True) @ v_h)
    return torch.cat(outputs, dim=-1)


def test_attend_is_scaled_dot_product_attention():
    q, k, v = torch.randn(2, 5, WIDTH), torch.randn(2, 7, WIDTH), torch.randn(2, 7, WIDTH)
    torch.testing.assert_close(attend(q, k, v, HEADS), written_out(q, k, v, HEADS), rtol=1e-5, atol=1e-6)


def test_self_attention():
    layer = SelfAttention(WIDTH, HEADS)
    shake(layer)
    x = torch.randn(2, 5, WIDTH)
    w_q, w_k, w_v = layer.qkv.weight.chunk(3)
    expected = written_out(x @ w_q.T + layer.q_bias, x @ w_k.T, x @ w_v.T + layer.v_bias, HEADS)
    torch.testing.assert_close(layer(x), expected @ layer.proj.weight.T + layer.proj.bias, rtol=1e-5, atol=1e-6)


def test_cross_attention_queries_the_stream_and_reads_the_context():
    layer = CrossAttention(WIDTH, HEADS)
    shake(layer)
    x, context = torch.randn(2, 5, WIDTH), torch.randn(2, 7, WIDTH)
    w_k, w_v = layer.kv.weight.chunk(2)
    expected = written_out(x @ layer.q.weight.T + layer.q_bias, context @ w_k.T, context @ w_v.T + layer.v_bias, HEADS)
    expected = expected @ layer.proj.weight.T + layer.proj.bias
    torch.testing.assert_close(layer(x, context), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [SelfAttention, CrossAttention])
def test_keys_have_no_bias(layer):
    names = {name for name, _ in layer(WIDTH, HEADS).named_parameters()}
    assert {name for name in names if name.endswith("bias")} == {"q_bias", "v_bias", "proj.bias"}
    assert not [name for name in layer(WIDTH, HEADS).state_dict() if "key" in name]


def test_gelu_is_exact():
    mlp = MLP(WIDTH, 4)
    assert mlp.fc1.out_features == 4 * WIDTH
    x = torch.randn(2, 5, WIDTH) * 3
    hidden = mlp.fc1(x)
    expected = mlp.fc2(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)
    torch.testing.assert_close(mlp(x), expected, rtol=1e-5, atol=1e-6)


def test_a_block_is_pre_normed_and_residual():
    block = Block(width=WIDTH, heads=HEADS, mlp_ratio=2)
    shake(block)
    x = torch.randn(2, 5, WIDTH)
    after = x + block.attn(block.norm1(x))
    torch.testing.assert_close(block(x), after + block.mlp(block.norm2(after)))


def test_a_cross_block_reads_the_context_first():
    block = CrossBlock(width=WIDTH, heads=HEADS, mlp_ratio=2)
    shake(block)
    x, context = torch.randn(2, 5, WIDTH), torch.randn(2, 7, WIDTH)
    x1 = x + block.cross_attn(block.cross_norm(x), block.context_norm(context))
    x2 = x1 + block.attn(block.norm1(x1))
    torch.testing.assert_close(block(x, context), x2 + block.mlp(block.norm2(x2)))


def test_drop_path_drops_whole_clips_while_training_only():
    block = Block(width=WIDTH, heads=HEADS, mlp_ratio=2, drop_path=0.5)
    block.mlp.requires_grad_(False)
    for parameter in block.mlp.fc2.parameters():
        parameter.zero_()  # leaves one branch, the attention
    x = torch.randn(400, 3, WIDTH)
    branch = block.attn(block.norm1(x))
    change = block(x) - x
    dropped = (change == 0).flatten(1).all(dim=1)
    assert 0.4 < dropped.float().mean() < 0.6
    torch.testing.assert_close(change[~dropped], 2 * branch[~dropped], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(block.eval()(x) - x, branch, rtol=1e-4, atol=1e-5)


def test_layer_norm_is_float32_under_autocast():
    norm = LayerNorm(64)
    x = torch.randn(4, 64) * 1e-3 + 5  # bfloat16 arithmetic would lose the differences
    assert norm.eps == 1e-6
    exact = F.layer_norm(x.double(), (64,), eps=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = norm(x)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=2e-3)
    assert norm(x.bfloat16()).dtype == torch.float32


def test_initialize_is_xavier_uniform_with_zero_biases():
    model = torch.nn.Sequential(torch.nn.Linear(300, 100), torch.nn.Sequential(torch.nn.Linear(100, 50, bias=False)))
    initialize(model)
    for layer, fan in ((model[0], 400), (model[1][0], 150)):
        limit = math.sqrt(6 / fan)
        assert layer.weight.abs().max() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.03)
    assert not model[0].bias.any()
