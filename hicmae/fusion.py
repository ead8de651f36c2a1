"""Cross-modal fusion: each modality attends to the other (paper, section 3.1).

Shapes: B clips, V video tokens, A audio tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hicmae.config import FusionDirection
from hicmae.layers import CrossBlock, LayerNorm


class FusionEncoder(nn.Module):
    """Layers of cross-attention, self-attention and MLP for both streams, without shared weights.

    Within a layer both streams read the other's value from *before* the layer. ``drop_path`` gives one rate per
    layer. In one ``direction`` the stream that is attended to has no layers: it stays as its encoder leaves it and is
    normed alone, as both are where there are no layers at all.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        mlp_ratio: float,
        drop_path: Sequence[float],
        direction: FusionDirection = "both",
    ) -> None:
        super().__init__()

        def stream(name: FusionDirection) -> nn.ModuleList:
            return nn.ModuleList(
                CrossBlock(width=width, heads=heads, mlp_ratio=mlp_ratio, drop_path=rate)
                for rate in (drop_path if direction in ("both", name) else ())
            )

        self.direction = direction
        self.video_blocks, self.audio_blocks = stream("to_video"), stream("to_audio")
        self.video_norm, self.audio_norm = LayerNorm(width), LayerNorm(width)

    def forward(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(B, V, D), (B, A, D) -> fused and normed (B, V, D), (B, A, D)."""
        if self.direction == "both":
            for video_block, audio_block in zip(self.video_blocks, self.audio_blocks, strict=True):
                video, audio = video_block(video, audio), audio_block(audio, video)
        for block in self.video_blocks if self.direction == "to_video" else ():
            video = block(video, audio)
        for block in self.audio_blocks if self.direction == "to_audio" else ():
            audio = block(audio, video)
        return self.video_norm(video), self.audio_norm(audio)
