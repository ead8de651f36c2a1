"""The transformer's parts: attention, the self-attention block, the cross-attention block.

Pre-norm, exact GELU, LayerNorm with eps 1e-6 in float32; queries and values have a bias, keys have none.

Shapes: B clips, N tokens, C context tokens, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hicmae.drop_path import DropPath

Recompute = Literal["none", "pointwise", "blocks"]


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the last axis, computed in float32 whatever autocast says."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()  # sharding may have gathered them as bfloat16
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention of heads that lie side by side: (B, N, D), (B, C, D), (B, C, D) -> (B, N, D)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, H, N, D / H)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head self-attention: (B, N, D) -> (B, N - start, D); only tokens from ``start`` on ask, all are asked."""

    no_key_bias: Tensor

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("no_key_bias", torch.zeros(width), persistent=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        return self.answer(*self.ask(x, start))

    def ask(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, N - start, D), keys and values (B, N, D)."""
        bias = torch.cat([self.q_bias, self.no_key_bias, self.v_bias])
        if not start:
            q, k, v = F.linear(x, self.qkv.weight, bias).chunk(3, dim=-1)  # one product instead of two
        else:
            width = len(self.q_bias)
            q = F.linear(x[:, start:], self.qkv.weight[:width], self.q_bias)
            k, v = F.linear(x, self.qkv.weight[width:], bias[width:]).chunk(2, dim=-1)
        return q, k, v

    def answer(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention and its projection: (B, N - start, D)."""
        return self.proj(attend(q, k, v, self.heads))


class CrossAttention(nn.Module):
    """Multi-head attention of a stream to a context: (B, N, D), (B, C, D) -> (B, N, D)."""

    no_key_bias: Tensor

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("no_key_bias", torch.zeros(width), persistent=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q = F.linear(x, self.q.weight, self.q_bias)
        k, v = F.linear(context, self.kv.weight, torch.cat([self.no_key_bias, self.v_bias])).chunk(2, dim=-1)
        return self.proj(attend(q, k, v, self.heads))


class MLP(nn.Module):
    """Two linear layers with GELU between: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, int(width * ratio))
        self.fc2 = nn.Linear(int(width * ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.fc1(x))

    def narrow(self, hidden: Tensor) -> Tensor:
        """From the hidden width back to D."""
        return self.fc2(F.gelu(hidden))


class Block(nn.Module):
    """Self-attention, then MLP, each pre-normed and residual: (B, N, D) -> (B, N - start, D).

    ``drop_path`` is the chance that a clip skips a residual branch while training (stochastic depth). ``start``: tokens
    before it are attended to, but nothing is computed for them; for a layer after which nobody reads them.
    """

    recompute: Recompute = "none"
    """What is computed again in the backward pass of a training, rather than kept for it (``set_recompute``)."""

    def __init__(self, *, width: int, heads: int, mlp_ratio: float, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn = SelfAttention(width, heads)
        self.norm2 = LayerNorm(width)
        self.mlp = MLP(width, mlp_ratio)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, *, start: int = 0) -> Tensor:
        return self._run(self._self_and_mlp, x, start)

    def _self_and_mlp(self, x: Tensor, start: int) -> Tensor:
        if self._recomputes("pointwise"):
            return self._thriftily(x, start)
        x = x[:, start:] + self.drop_path(self.attn(self.norm1(x), start))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _thriftily(self, x: Tensor, start: int) -> Tensor:
        """The same, in pieces that each end in a matrix product, whose result nobody needs to compute again."""
        piece = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        q, k, v = piece(lambda x: self.attn.ask(self.norm1(x), start), x)
        x = x[:, start:] + self.drop_path(self.attn.answer(q, k, v))
        hidden = piece(lambda x: self.mlp.fc1(self.norm2(x)), x)
        return x + self.drop_path(piece(self.mlp.narrow, hidden))

    def _recomputes(self, what: Recompute) -> bool:
        return self.recompute == what and self.training and torch.is_grad_enabled()

    def _run(self, layers: Callable[..., Tensor], *inputs: object) -> Tensor:
        if self._recomputes("blocks"):
            result: Tensor = checkpoint(layers, *inputs, use_reentrant=False)
            return result
        return layers(*inputs)


class CrossBlock(Block):
    """Cross-attention to a context, then a ``Block``: (B, N, D), (B, C, D) -> (B, N - start, D).

    Serves the fusion encoder (context: the other modality) and the decoders (context: an encoder layer).
    """

    def __init__(self, *, width: int, heads: int, mlp_ratio: float, drop_path: float = 0.0) -> None:
        super().__init__(width=width, heads=heads, mlp_ratio=mlp_ratio, drop_path=drop_path)
        self.cross_norm = LayerNorm(width)
        self.context_norm = LayerNorm(width)
        self.cross_attn = CrossAttention(width, heads)

    def forward(self, x: Tensor, context: Tensor, *, start: int = 0) -> Tensor:  # type: ignore[override]
        return self._run(self._cross_self_and_mlp, x, context, start)

    def _cross_self_and_mlp(self, x: Tensor, context: Tensor, start: int) -> Tensor:
        x = x + self.drop_path(self.cross_attn(self.cross_norm(x), self.context_norm(context)))
        return self._self_and_mlp(x, start)


def set_recompute(model: nn.Module, what: Recompute) -> None:
    """Choose what every block below ``model`` computes again in the backward pass (Chen et al., 2016).

    ``pointwise``: norms and GELUs, which cost little and are a third of what a block keeps. ``blocks``: all, from
    each block's input: a third more multiply-adds. The gradients are the same, to the bit where the device's kernels
    repeat themselves. Evaluation is not touched.
    """
    for block in model.modules():
        if isinstance(block, Block):
            block.recompute = what


def initialize(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every linear layer below ``module`` (as masked autoencoders do)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
