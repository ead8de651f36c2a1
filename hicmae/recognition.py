"""The fine-tuning model: backbone plus head (paper, section 3.4).

Shapes: B clips, T frames, D width, C classes, K dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from hicmae.backbone import MODALITIES, Backbone, Modality, known_modalities
from hicmae.drop_path import DropPath
from hicmae.heads import Head, Targets
from hicmae.hub import HubModel


@dataclass
class Recognition:
    """What a recogniser says of a batch of clips."""

    features: Tensor
    """(B, 4 D) with both modalities, (B, D) with one; after the head's LayerNorm."""
    logits: Tensor | None
    """(B, C) class logits; ``None`` without a categorical target."""
    values: Tensor | None
    """(B, K) continuous targets; ``None`` without a dimensional target."""


class EmotionRecognizer(nn.Module, HubModel):
    """Emotion categories and/or dimensions from the backbone's hierarchically fused features.

    Args:
        backbone: encoders and fusion.
        targets: what to predict.
        modalities: what the head is built for: both (4 D features: video, audio, fused video, fused audio), or one.
        init_scale: multiplies the head's initial weights.
    """

    kind = "recognizer"

    def __init__(
        self,
        backbone: Backbone,
        targets: Targets,
        *,
        modalities: Sequence[Modality] = MODALITIES,
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.modalities = known_modalities(modalities)
        self.backbone = backbone
        self.config = backbone.config
        if len(self.modalities) == 1:
            self._freeze_all_but(self.modalities[0])
        width = backbone.config.width * (4 if len(self.modalities) == 2 else 1)
        self.head = Head(width, targets, init_scale=init_scale)

    def _freeze_all_but(self, modality: Modality) -> None:
        """Parts that no gradient reaches: left trainable, they would stall data-parallel training."""
        for name, parameter in self.backbone.named_parameters():
            if not name.startswith(f"{modality}_"):
                parameter.requires_grad_(False)

    def freeze(self, layers: int | Literal["backbone"]) -> None:
        """Stop training parts of the backbone, and their stochastic depth with it.

        Args:
            layers: the patch embeddings and so many layers of both encoders, counted from the input (0: nothing);
                ``backbone``: everything but the head, as a linear probe does.

        Raises:
            ValueError: more layers than the encoders have.
        """
        backbone, depth = self.backbone, self.backbone.config.depth
        frozen: list[nn.Module] = [backbone]
        if layers != "backbone":
            if not 0 <= layers <= depth:
                raise ValueError(
                    f"freeze={layers}: the encoders have {depth} layers; give 0 to {depth}, or backbone for all but "
                    "the head"
                )
            encoders = (backbone.video_encoder, backbone.audio_encoder)
            frozen = [part for e in encoders for part in (e.embed, *e.blocks[:layers])] if layers else []
        for module in (module for part in frozen for module in part.modules()):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
            if isinstance(module, DropPath):
                module.p = 0.0

    @property
    def targets(self) -> Targets:
        """What is predicted."""
        return self.head.targets

    def forward(self, video: Tensor | None = None, log_mel: Tensor | None = None) -> Recognition:
        """Recognise.

        Args:
            video: float (B, 3, T, H, W), colour-normalised; ignored by an audio-only recogniser.
            log_mel: float (B, 1, frames, bins), normalised; ignored by a video-only recogniser.

        Raises:
            ValueError: if a modality that the head was built for is missing.
        """
        given = {"video": video, "audio": log_mel}
        missing = [m for m in self.modalities if given[m] is None]
        if missing:
            raise ValueError(
                f"this recogniser was built for {' and '.join(self.modalities)}, but {' and '.join(missing)} is missing"
            )
        features = self.backbone(
            video if "video" in self.modalities else None, log_mel if "audio" in self.modalities else None
        )
        normed, logits, values = self.head(features.pooled)
        return Recognition(features=normed, logits=logits, values=values)
