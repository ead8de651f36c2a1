"""The decoder of one modality: from visible tokens and tapped encoder layers to the masked patches.

The hierarchical skip connections of the paper (section 3.2): after one plain block, every layer attends to a tapped
encoder layer, the highest tap first. Without them all blocks are plain, and the tapped layers are not read.

Shapes: B clips, N tokens, V visible, M masked tokens to decode, D encoder width, E decoder width, P values per patch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hicmae.layers import Block, CrossBlock, LayerNorm
from hicmae.patches import sinusoid_positions


class Decoder(nn.Module):
    """One plain block, then one cross block per tap; a linear head predicts the masked patches.

    Args:
        tokens: N, of a whole clip.
        patch_values: P.
        encoder_width, width: D and E.
        heads, mlp_ratio: of each block.
        depth: blocks.
        skip_connections: false: all blocks are plain.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        tokens: int,
        patch_values: int,
        encoder_width: int,
        width: int,
        heads: int,
        depth: int,
        mlp_ratio: float,
        skip_connections: bool = True,
    ) -> None:
        super().__init__()
        self.from_encoder = nn.Linear(encoder_width, width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("positions", sinusoid_positions(tokens, width), persistent=False)
        self.first_block = Block(width=width, heads=heads, mlp_ratio=mlp_ratio)
        kind = CrossBlock if skip_connections else Block
        blocks = nn.ModuleList(kind(width=width, heads=heads, mlp_ratio=mlp_ratio) for _ in range(depth - 1))
        self.skip_blocks = blocks if skip_connections else nn.ModuleList()
        self.plain_blocks = nn.ModuleList() if skip_connections else blocks
        self.norm = LayerNorm(width)
        self.head = nn.Linear(width, patch_values)

    def forward(self, tokens: Tensor, taps: Sequence[Tensor], visible: Tensor, masked: Tensor) -> Tensor:
        """Reconstruct.

        Args:
            tokens: (B, V, D), the fusion output.
            taps: (B, V, D) each, tapped encoder layers in ascending order; none without skip connections.
            visible: int64 (B, V), where the visible tokens stand.
            masked: int64 (B, M), where the masked tokens stand, ascending.

        Returns:
            (B, M, P), the predicted values of the masked patches, in the order of ``masked``.
        """
        seen = visible.shape[1]
        visible_positions = self.positions[visible]  # (B, V, E)
        x = torch.cat(
            [self.from_encoder(tokens) + visible_positions, self.mask_token + self.positions[masked]], dim=1
        )  # (B, V + M, E), visible first
        # After the last block nobody reads the visible tokens.
        last = len(self.skip_blocks) + len(self.plain_blocks)
        x = self.first_block(x, start=seen if last == 0 else 0)
        for number, (block, tap) in enumerate(zip(self.skip_blocks, reversed(taps), strict=True), start=1):
            x = block(x, self.from_encoder(tap) + visible_positions, start=seen if number == last else 0)
        for number, block in enumerate(self.plain_blocks, start=1):
            x = block(x, start=seen if number == last else 0)
        return self.head(self.norm(x))  # (B, M, P)
