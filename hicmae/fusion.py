"""Cross-modal fusion: each modality attends to the other (paper, section 3.1).

Shapes: B clips, V video tokens, A audio tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hicmae.layers import CrossBlock, LayerNorm


class FusionEncoder(nn.Module):
    """Layers of cross-attention, self-attention and MLP for both streams, without shared weights.

    Within a layer both streams read the other's value from *before* the layer. ``drop_path`` gives one rate per
    layer.
    """

    def __init__(self, *, width: int, heads: int, mlp_ratio: float, drop_path: Sequence[float]) -> None:
        super().__init__()

        def stream() -> nn.ModuleList:
            return nn.ModuleList(
                CrossBlock(width=width, heads=heads, mlp_ratio=mlp_ratio, drop_path=rate) for rate in drop_path
            )

        self.video_blocks, self.audio_blocks = stream(), stream()
        self.video_norm, self.audio_norm = LayerNorm(width), LayerNorm(width)

    def forward(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(B, V, D), (B, A, D) -> fused and normed (B, V, D), (B, A, D)."""
        for video_block, audio_block in zip(self.video_blocks, self.audio_blocks, strict=True):
            video, audio = video_block(video, audio), audio_block(audio, video)
        return self.video_norm(video), self.audio_norm(audio)
