"""The transformer's parts: attention, the self-attention block, the cross-attention block.

Pre-norm, exact GELU, LayerNorm with eps 1e-6 in float32; queries and values have a bias, keys have none.

Shapes: B clips, N tokens, C context tokens, D width, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth


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
    """Multi-head self-attention: (B, N, D) -> (B, N, D)."""

    no_key_bias: Tensor

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("no_key_bias", torch.zeros(width), persistent=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, self.no_key_bias, self.v_bias])
        q, k, v = F.linear(x, self.qkv.weight, bias).chunk(3, dim=-1)
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
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Self-attention, then MLP, each pre-normed and residual: (B, N, D) -> (B, N, D).

    ``drop_path`` is the chance that a clip skips a residual branch while training (stochastic depth).
    """

    def __init__(self, *, width: int, heads: int, mlp_ratio: float, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn = SelfAttention(width, heads)
        self.norm2 = LayerNorm(width)
        self.mlp = MLP(width, mlp_ratio)
        self.drop_path = StochasticDepth(drop_path, mode="row") if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class CrossBlock(Block):
    """Cross-attention to a context, then a ``Block``: (B, N, D), (B, C, D) -> (B, N, D).

    Serves the fusion encoder (context: the other modality) and the decoders (context: an encoder layer).
    """

    def __init__(self, *, width: int, heads: int, mlp_ratio: float, drop_path: float = 0.0) -> None:
        super().__init__(width=width, heads=heads, mlp_ratio=mlp_ratio, drop_path=drop_path)
        self.cross_norm = LayerNorm(width)
        self.context_norm = LayerNorm(width)
        self.cross_attn = CrossAttention(width, heads)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        x = x + self.drop_path(self.cross_attn(self.cross_norm(x), self.context_norm(context)))
        return super().forward(x)


def initialize(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every linear layer below ``module`` (as masked autoencoders do)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
