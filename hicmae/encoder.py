"""The encoder of one modality: patches of the visible tokens in, features of chosen layers out.

Shapes: B clips, N tokens, V visible tokens, P values per patch, D width, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hicmae.layers import Block, LayerNorm
from hicmae.masking import take_tokens
from hicmae.patches import sinusoid_positions


@dataclass
class EncoderOutput:
    """What an encoder gives."""

    tokens: Tensor
    """(B, V, D), the last layer's, normed."""
    taps: list[Tensor]
    """(B, V, D) for each tapped layer, from the input on; normed with the same final norm, unless asked otherwise."""
    layer_means: Tensor | None
    """(L, B, D): mean over tokens of every layer's normed output; ``None`` unless asked for."""


class Encoder(nn.Module):
    """Patch embedding, fixed positions and ``depth`` self-attention blocks (paper, section 3.1).

    ``drop_path`` gives one rate per layer.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        tokens: int,
        patch_values: int,
        width: int,
        heads: int,
        mlp_ratio: float,
        drop_path: Sequence[float],
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(patch_values, width)
        self.register_buffer("positions", sinusoid_positions(tokens, width), persistent=False)
        self.blocks = nn.ModuleList(
            Block(width=width, heads=heads, mlp_ratio=mlp_ratio, drop_path=rate) for rate in drop_path
        )
        self.norm = LayerNorm(width)

    def forward(
        self,
        patches: Tensor,
        visible: Tensor | None = None,
        *,
        taps: Sequence[int] = (),
        norm_taps: bool = True,
        with_layer_means: bool = False,
    ) -> EncoderOutput:
        """Encode.

        Args:
            patches: (B, N, P), all patches of the clip.
            visible: int64 (B, V), the tokens to encode; ``None`` encodes all. Only these are embedded.
            taps: layers (0-based) whose output is returned.
            norm_taps: norm the output of these layers; the last layer's ``tokens`` always are.
            with_layer_means: also return every layer's mean; the layers' tokens themselves are never kept.
        """
        if visible is None:
            x = self.embed(patches) + self.positions
        else:
            x = self.embed(take_tokens(patches, visible)) + self.positions[visible]
        tapped: list[Tensor] = []
        means: list[Tensor] = []
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            x = block(x)
            if with_layer_means or layer in taps or layer == last:
                normed = self.norm(x)
                if layer in taps:
                    tapped.append(normed if norm_taps else x)
                if with_layer_means:
                    means.append(normed.mean(dim=1))
        return EncoderOutput(tokens=normed, taps=tapped, layer_means=torch.stack(means) if means else None)
