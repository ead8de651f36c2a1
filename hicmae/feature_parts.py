"""Parts of what a backbone gives, by the names under which probes show them."""

from __future__ import annotations

import torch
from torch import Tensor

from hicmae.backbone import Features


def named_features(features: Features, *, layers: bool) -> dict[str, Tensor]:
    """Parts of what the backbone gives, (B, D) each: video and audio (the mix of encoder layers), fused_video and
    fused_audio, and with ``layers`` video_layer1 and so on, counted from the input."""
    present = list(features.layer_means)
    order = [*present, *(f"fused_{name}" for name in present if len(present) == 2)]
    named: dict[str, Tensor] = dict(zip(order, features.pooled.chunk(len(order), dim=1), strict=True))
    if layers:
        for name, means in features.layer_means.items():
            named |= {f"{name}_layer{number + 1}": mean for number, mean in enumerate(means)}
    return named


def with_joint_parts(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, and of both modalities ``fused`` (both fused streams side by side) and ``all`` (all pooled parts)."""
    if "fused_video" not in named:
        return named
    fused = torch.cat([named["fused_video"], named["fused_audio"]], dim=1)
    return named | {"fused": fused, "all": torch.cat([named["video"], named["audio"], fused], dim=1)}
