"""The video encoder as timm models: ``import hicmae.timm_models; timm.create_model("hicmae_base", folder="exported")``.

Shapes: B clips, T frames, N tokens, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.models import register_model
from torch import Tensor, nn

from hicmae.backbone import Backbone
from hicmae.checkpoint import check_same_architecture, read_backbone
from hicmae.config import InputSpec, ModelConfig
from hicmae.patches import video_to_patches


class VideoEncoder(nn.Module):
    """HiCMAE's video encoder with timm's interface.

    Args:
        config: the architecture; its audio part is not built.
        num_classes: outputs of a linear head on mean-pooled tokens; 0 returns the pooled features.
        drop_path_rate: stochastic-depth rate of the last layer.
    """

    def __init__(self, config: ModelConfig, *, num_classes: int = 0, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        spec = InputSpec.for_model(config)
        self.config = config
        self.num_classes = num_classes
        self.num_features = self.embed_dim = config.width
        self.default_cfg = {
            "input_size": (3, config.num_frames, config.image_size, config.image_size),
            "mean": spec.image_mean,
            "std": spec.image_std,
            "num_classes": num_classes,
        }
        self.encoder = Backbone(config, drop_path=drop_path_rate).video_encoder
        self.head = self._head(num_classes)

    def _head(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head."""
        self.num_classes = num_classes
        self.head = self._head(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """float (B, 3, T, H, W), colour-normalised -> (B, N, D)."""
        tokens: Tensor = self.encoder(video_to_patches(x, self.config)).tokens
        return tokens

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, N, D) -> (B, num_classes), or pooled (B, D)."""
        pooled = x.mean(dim=1)
        logits: Tensor = pooled if pre_logits else self.head(pooled)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """float (B, 3, T, H, W), colour-normalised -> (B, num_classes), or (B, D) without a head."""
        return self.forward_head(self.forward_features(x))


def _create(preset: str, *, pretrained: bool, folder: str | Path | None, **settings: Any) -> VideoEncoder:
    # timm passes settings of its own hub and cache, which have no meaning here.
    wanted = {name: settings[name] for name in ("num_classes", "drop_path_rate") if settings.get(name) is not None}
    if pretrained:
        raise ValueError(f"hicmae_{preset} has no weights on a hub; pass folder='exported' instead of pretrained=True")
    config = ModelConfig.preset(preset)
    model = VideoEncoder(config, **wanted)
    if folder is not None:
        weights = read_backbone(folder)
        check_same_architecture(weights.config, config, folder)
        state = {
            k.removeprefix("video_encoder."): v for k, v in weights.state.items() if k.startswith("video_encoder.")
        }
        model.encoder.load_state_dict(state)
    return model


@register_model
def hicmae_micro(pretrained: bool = False, folder: str | Path | None = None, **settings: Any) -> VideoEncoder:
    """The micro video encoder; ``folder`` is an exported folder or any checkpoint ``read_backbone`` reads."""
    return _create("micro", pretrained=pretrained, folder=folder, **settings)


@register_model
def hicmae_tiny(pretrained: bool = False, folder: str | Path | None = None, **settings: Any) -> VideoEncoder:
    """The tiny video encoder; ``folder`` as for ``hicmae_micro``."""
    return _create("tiny", pretrained=pretrained, folder=folder, **settings)


@register_model
def hicmae_small(pretrained: bool = False, folder: str | Path | None = None, **settings: Any) -> VideoEncoder:
    """The small video encoder; ``folder`` as for ``hicmae_micro``."""
    return _create("small", pretrained=pretrained, folder=folder, **settings)


@register_model
def hicmae_base(pretrained: bool = False, folder: str | Path | None = None, **settings: Any) -> VideoEncoder:
    """The base video encoder; ``folder`` as for ``hicmae_micro``."""
    return _create("base", pretrained=pretrained, folder=folder, **settings)
