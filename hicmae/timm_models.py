"""The video encoder as timm models: ``import hicmae.timm_models``, then ``timm.create_model("hicmae_base.mae", ...)``.

The tag ``mae`` says, as it does for timm's own models, how weights of that name come about: by masked autoencoding,
without a head. No weights are published; they come from an exported folder (``folder="exported"``), or as timm has it,
``pretrained=True, pretrained_cfg_overlay={"file": "exported/model.safetensors"}``.

Shapes: B clips, T frames, H x W pixels, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from hicmae.checkpoint import check_same_architecture, read_backbone
from hicmae.config import PRESETS, InputSpec, ModelConfig
from hicmae.encoder import Encoder
from hicmae.layers import initialize
from hicmae.patches import video_to_patches

_POOLINGS = ("avg", "")


class VideoEncoder(nn.Module):
    """HiCMAE's video encoder with timm's interface; takes clips (B, 3, T, H, W).

    Args:
        config: the architecture; its audio part is not built.
        num_classes: outputs of a linear head on pooled tokens; 0 returns the pooled features.
        global_pool: ``avg``, the mean over tokens, or empty: tokens are not pooled.
        in_chans: colour channels: 3.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic-depth rate of the last layer; it grows linearly from 0.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        num_classes: int = 0,
        global_pool: str = "avg",
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if in_chans != 3:
            raise ValueError(f"in_chans={in_chans}: the video encoder takes red, green and blue; give 3 channels")
        self.config = config
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = self.embed_dim = config.width
        self.global_pool = _pooling(global_pool)
        self.encoder = Encoder(
            tokens=config.video_tokens,
            patch_values=config.video_patch_values,
            width=config.width,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            drop_path=[drop_path_rate * layer / max(1, config.depth - 1) for layer in range(config.depth)],
        )
        initialize(self.encoder)
        self.feature_info = [
            {"module": f"encoder.blocks.{layer}", "num_chs": config.width, "reduction": config.patch_size}
            for layer in range(config.depth)
        ]
        self.head_drop = nn.Dropout(drop_rate)
        self.head = self._head(num_classes)

    def _head(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """The head; an identity without classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head."""
        self.num_classes = num_classes
        self.global_pool = self.global_pool if global_pool is None else _pooling(global_pool)
        parameter = next(self.parameters())
        self.head = self._head(num_classes).to(parameter.device, parameter.dtype).train(self.training)

    def no_weight_decay(self) -> set[str]:
        """Parameters of more than one axis that do not decay: none, positions are fixed."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which layer, for layer-wise learning rates."""
        return {
            "stem": r"^encoder\.embed",
            "blocks": [(r"^encoder\.blocks\.(\d+)", None), (r"^encoder\.norm", (99999,))],
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Only to switch off what is off: the encoder keeps its activations."""
        if enable:
            raise ValueError("hicmae's video encoder has no gradient checkpointing; leave it off")

    def forward_features(self, x: Tensor) -> Tensor:
        """float (B, 3, T, H, W), colour-normalised -> (B, N, D), normed."""
        tokens: Tensor = self.encoder(video_to_patches(x, self.config)).tokens
        return tokens

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        output_fmt: str = "NLC",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Tokens of chosen layers, in their order from the input on.

        Args:
            x: float (B, 3, T, H, W), colour-normalised.
            indices: a number: so many of the last layers; a sequence: these layers, from the last one where negative;
                ``None``: all.
            norm: apply the final norm to them.
            output_fmt: ``NLC``: (B, N, D); ``NCHW``: tokens at their places, (B, D, T / tubelet, H / patch, W / patch),
                as a clip has one axis more than a picture.
            intermediates_only: return no final features.

        Returns:
            Final features (B, N, D), normed, and the list of intermediates; or that list.
        """
        if output_fmt not in ("NLC", "NCHW"):
            raise ValueError(f"output_fmt={output_fmt!r} must be NLC or NCHW")
        take, _ = feature_take_indices(self.config.depth, None if indices is None else indices)
        output = self.encoder(video_to_patches(x, self.config), taps=take, norm_taps=norm)
        tokens = output.taps
        if output_fmt == "NCHW":
            tokens = [t.transpose(1, 2).unflatten(2, self.config.video_grid).contiguous() for t in tokens]
        return tokens if intermediates_only else (output.tokens, tokens)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, N, D) -> (B, num_classes), or pooled (B, D)."""
        pooled = self.head_drop(x.mean(dim=1) if self.global_pool else x)
        logits: Tensor = pooled if pre_logits else self.head(pooled)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """float (B, 3, T, H, W), colour-normalised -> (B, num_classes), or (B, D) without a head."""
        return self.forward_head(self.forward_features(x))


def _pooling(name: str) -> str:
    if name not in _POOLINGS:
        raise ValueError(f"global_pool={name!r} must be 'avg' (the mean over tokens) or '' (tokens as they are)")
    return name


def _cfg(preset: str) -> dict[str, Any]:
    config = ModelConfig.preset(preset)
    spec = InputSpec.for_model(config)
    return {
        # of a frame: timm's has no axis for time; the model's own is num_frames
        "input_size": (3, config.image_size, config.image_size),
        "fixed_input_size": False,  # or timm would pass img_size, which the preset fixes
        "mean": spec.image_mean,
        "std": spec.image_std,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "num_classes": 0,
        "pool_size": None,
        "first_conv": None,
        "classifier": "head",
        "license": "mit",
        "paper_name": "HiCMAE: Hierarchical Contrastive Masked Autoencoder for Self-Supervised Audio-Visual Emotion "
        "Recognition",
    }


default_cfgs = generate_default_cfgs({f"hicmae_{preset}.mae": _cfg(preset) for preset in PRESETS})


def checkpoint_filter_fn(state: dict[str, Tensor], model: VideoEncoder) -> dict[str, Tensor]:
    """The weights of a ``VideoEncoder`` in a state dict of an export, of a training checkpoint, or of timm's own.

    Raises:
        ValueError: some are missing (timm itself would go on with random ones where there is a new head).
    """
    for prefix in ("model.backbone.video_encoder.", "backbone.video_encoder.", "video_encoder."):
        if any(name.startswith(prefix) for name in state):
            state = {f"encoder.{k.removeprefix(prefix)}": v for k, v in state.items() if k.startswith(prefix)}
    wanted = {f"encoder.{name}" for name in model.encoder.state_dict()}
    if missing := sorted(wanted - set(state)):
        raise ValueError(f"these are no weights of this video encoder: {', '.join(missing)} missing")
    return state


def _create(preset: str, *, pretrained: bool, folder: str | Path | None, **settings: Any) -> nn.Module:
    config = ModelConfig.preset(preset)
    variant = f"hicmae_{preset}"
    if pretrained:
        source = {name: settings.get(name) for name in ("pretrained_cfg", "pretrained_cfg_overlay")}
        if folder is not None or not resolve_pretrained_cfg(variant, **source).has_weights:
            raise ValueError(
                f"{variant} has no weights on a hub; pass folder='exported' instead of pretrained=True, or with it "
                "pretrained_cfg_overlay={'file': 'exported/model.safetensors'}"
            )
    weights = None if folder is None else read_backbone(folder)
    if weights is not None:
        # what is switched off lies beyond the video encoder
        check_same_architecture(weights.config, replace(config, **weights.config.switched), str(folder))
        if "video" not in weights.modalities:
            raise ValueError(f"{folder} was trained with audio alone: its video encoder is not to be used")
    model: nn.Module = build_model_with_cfg(
        VideoEncoder,
        variant,
        pretrained,
        config=config,
        feature_cfg={"out_indices": config.taps, "feature_cls": "getter"},
        pretrained_filter_fn=checkpoint_filter_fn,
        **settings,
    )
    if weights is not None:
        # timm puts another model around this one for features_only
        own = model if isinstance(model, VideoEncoder) else model.model
        assert isinstance(own, VideoEncoder)
        own.load_state_dict(checkpoint_filter_fn(weights.state, own) | _head_of(own))
    return model


def _head_of(model: VideoEncoder) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if name.startswith("head.")}


@register_model
def hicmae_micro(pretrained: bool = False, folder: str | Path | None = None, **settings: Any) -> nn.Module:
    """The micro video encoder; ``folder`` is an exported folder or any checkpoint ``read_backbone`` reads."""
    return _create("micro", pretrained=pretrained, folder=folder, **settings)


@register_model
def hicmae_tiny(pretrained: bool = False, folder: str | Path | None = None, **settings: Any) -> nn.Module:
    """The tiny video encoder; ``folder`` as for ``hicmae_micro``."""
    return _create("tiny", pretrained=pretrained, folder=folder, **settings)


@register_model
def hicmae_small(pretrained: bool = False, folder: str | Path | None = None, **settings: Any) -> nn.Module:
    """The small video encoder; ``folder`` as for ``hicmae_micro``."""
    return _create("small", pretrained=pretrained, folder=folder, **settings)


@register_model
def hicmae_base(pretrained: bool = False, folder: str | Path | None = None, **settings: Any) -> nn.Module:
    """The base video encoder; ``folder`` as for ``hicmae_micro``."""
    return _create("base", pretrained=pretrained, folder=folder, **settings)


@register_model
def hicmae_large(pretrained: bool = False, folder: str | Path | None = None, **settings: Any) -> nn.Module:
    """The large video encoder; ``folder`` as for ``hicmae_micro``."""
    return _create("large", pretrained=pretrained, folder=folder, **settings)
