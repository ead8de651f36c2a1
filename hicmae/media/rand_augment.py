"""RandAugment of whole clips (Cubuk et al., 2020): operations drawn at random, each the same for all frames of a clip.

Operations, and what a magnitude means for each, are those of timm's ``rand-m7-n4-mstd0.5-inc1``, the paper's setting
(the set whose severity increases with the magnitude). Geometry is interpolated bilinearly; timm tosses a coin between
bilinear and bicubic. Statistics of a picture (contrast, histogram) are those of each frame, as there.

Shapes: B clips, T frames, H and W of the decoded frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

_FILL = 128  # grey, for what a warp brings in from beyond the frame
_HIGHEST = 10.0  # magnitudes lie on a scale from 0 to 10


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """How much of it; the defaults are the paper's (section 4.2: m7, n4, mstd 0.5)."""

    operations: int = 4
    """Operations drawn for a clip, with replacement."""
    probability: float = 0.5
    """With which each of them is carried out."""
    magnitude: float = 7.0
    """Mean severity, 0 to 10."""
    magnitude_std: float = 0.5
    """Standard deviation of the severity, which is drawn anew for each operation and kept within 0 to 10."""

    def __post_init__(self) -> None:
        if self.operations < 1:
            raise ValueError(f"operations={self.operations} must be at least 1; rand_augment: null switches it off")
        if not 0 < self.probability <= 1:
            raise ValueError(
                f"probability={self.probability} must be above 0 and at most 1; rand_augment: null switches it off"
            )
        if not 0 <= self.magnitude <= _HIGHEST:
            raise ValueError(f"magnitude={self.magnitude} must lie between 0 and {_HIGHEST:g}")
        if self.magnitude_std < 0:
            raise ValueError(f"magnitude_std={self.magnitude_std} must be 0 (always the same) or more")


class FrameOp(NamedTuple):
    """An operation on all frames of a clip."""

    name: str
    """One of ``OPERATIONS``."""
    amount: float
    """In the operation's own unit; 0 where it has none."""


@dataclass(frozen=True, kw_only=True)
class _Operation:
    amount: Callable[[float, float], float]
    """(level 0..1, sign -1 or 1) -> amount."""
    apply: Callable[[Tensor, float], Tensor]
    """(uint8 (T, 3, H, W), amount) -> the same shape."""


def _warp(frames: Tensor, x_from: Sequence[float], y_from: Sequence[float]) -> Tensor:
    """Move pixels: bilinear, grey where the source lies beyond the frame.

    Args:
        frames: uint8 (T, 3, H, W).
        x_from, y_from: factors of (x, y, 1) of a place of the result, whose sums say which place of ``frames`` comes
            there. In pixels; the first pixel's centre is (0.5, 0.5).
    """
    height, width = frames.shape[-2:]
    # Made on the device from plain numbers: a copy from the host could wait for the running step.
    y, x = torch.meshgrid(
        torch.arange(height, device=frames.device) + 0.5, torch.arange(width, device=frames.device) + 0.5, indexing="ij"
    )
    source_x, source_y = (factors[0] * x + factors[1] * y + factors[2] for factors in (x_from, y_from))  # (H, W)
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    grid = torch.stack([2 * source_x / width - 1, 2 * source_y / height - 1], dim=-1).expand(len(frames), -1, -1, -1)
    moved = F.grid_sample(frames.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return torch.where(inside, moved.round_(), float(_FILL)).to(torch.uint8)


def _rotate(frames: Tensor, degrees: float) -> Tensor:
    """Counter-clockwise, about the centre."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    y, x = frames.shape[-2] / 2, frames.shape[-1] / 2
    return _warp(frames, (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y))


def _shear_x(frames: Tensor, factor: float) -> Tensor:
    return _warp(frames, (1, factor, 0), (0, 1, 0))


def _shear_y(frames: Tensor, factor: float) -> Tensor:
    return _warp(frames, (1, 0, 0), (factor, 1, 0))


def _translate_x(frames: Tensor, share: float) -> Tensor:
    return _warp(frames, (1, 0, share * frames.shape[-1]), (0, 1, 0))


def _translate_y(frames: Tensor, share: float) -> Tensor:
    return _warp(frames, (1, 0, 0), (0, 1, share * frames.shape[-2]))


def _solarize(frames: Tensor, threshold: float) -> Tensor:
    return torch.where(frames.short() >= int(threshold), 255 - frames, frames)


def _solarize_add(frames: Tensor, add: float) -> Tensor:
    return torch.where(frames < 128, (frames.short() + int(add)).clamp_(max=255).to(torch.uint8), frames)


def _sharpness(frames: Tensor, factor: float) -> Tensor:
    """Away from a blurred picture: mean over 3 x 3 pixels in which the middle counts five times; the rim stays.

    torchvision's copies its kernel to the device at each call, for which the host would wait, and is a convolution,
    which autocast would do in half precision.
    """
    pixels = frames.float()
    blurred = pixels.clone()
    blurred[..., 1:-1, 1:-1] = ((9 * F.avg_pool2d(pixels, 3, stride=1) + 4 * pixels[..., 1:-1, 1:-1]) / 13).round_()
    return torch.lerp(blurred, pixels, factor).clamp_(0, 255).to(torch.uint8)


def _none(level: float, sign: float) -> float:
    return 0.0


def _enhance(level: float, sign: float) -> float:
    """1 leaves the picture alone; both less and more are stronger changes."""
    return max(0.1, 1 + sign * 0.9 * level)


OPERATIONS: dict[str, _Operation] = {
    "auto_contrast": _Operation(amount=_none, apply=lambda frames, _: tv.autocontrast(frames)),
    "equalize": _Operation(amount=_none, apply=lambda frames, _: tv.equalize(frames)),
    "invert": _Operation(amount=_none, apply=lambda frames, _: 255 - frames),
    "rotate": _Operation(amount=lambda level, sign: sign * 30 * level, apply=_rotate),
    "posterize": _Operation(  # at magnitude 10 one bit is kept: timm's none would be black
        amount=lambda level, _: max(1, 4 - int(4 * level)), apply=lambda frames, bits: tv.posterize(frames, int(bits))
    ),
    "solarize": _Operation(amount=lambda level, _: 256 - int(256 * level), apply=_solarize),
    "solarize_add": _Operation(amount=lambda level, _: int(110 * level), apply=_solarize_add),
    "color": _Operation(amount=_enhance, apply=tv.adjust_saturation),
    "contrast": _Operation(amount=_enhance, apply=tv.adjust_contrast),
    "brightness": _Operation(amount=_enhance, apply=tv.adjust_brightness),
    "sharpness": _Operation(amount=_enhance, apply=_sharpness),
    "shear_x": _Operation(amount=lambda level, sign: sign * 0.3 * level, apply=_shear_x),
    "shear_y": _Operation(amount=lambda level, sign: sign * 0.3 * level, apply=_shear_y),
    "translate_x": _Operation(amount=lambda level, sign: sign * 0.45 * level, apply=_translate_x),
    "translate_y": _Operation(amount=lambda level, sign: sign * 0.45 * level, apply=_translate_y),
}
"""By name: degrees, bits kept, brightness from which to invert, brightness added to the dark half, factors of the
colour, contrast, brightness and sharpness, slopes, shares of the frame's side."""


def draw_ops(rng: np.random.Generator, config: RandAugment) -> tuple[FrameOp, ...]:
    """Draw what happens to a clip, in order."""
    names = list(OPERATIONS)
    ops = []
    for number in rng.integers(len(names), size=config.operations):
        # All are drawn in any case, so that one operation's fate does not shift the draws of the next.
        wanted, sign = rng.random() < config.probability, 1.0 if rng.random() < 0.5 else -1.0
        level = min(max(rng.normal(config.magnitude, config.magnitude_std), 0.0), _HIGHEST) / _HIGHEST
        if wanted:
            name = names[number]
            ops.append(FrameOp(name, float(OPERATIONS[name].amount(level, sign))))
    return tuple(ops)


def apply_ops(video: Tensor, ops: Sequence[Sequence[FrameOp]]) -> Tensor:
    """Carry out each clip's operations on its frames.

    Args:
        video: uint8 (B, T, H, W, 3); left as it is.
        ops: B sequences; ``FrameOp`` are plain values, so that the host need not wait for the device to read them.

    Returns:
        uint8 (B, T, H, W, 3).
    """
    if not any(ops):
        return video
    return torch.stack([_apply(clip, todo) for clip, todo in zip(video, ops, strict=True)])


def _apply(clip: Tensor, ops: Sequence[FrameOp]) -> Tensor:
    """One clip, uint8 (T, H, W, 3)."""
    if not ops:
        return clip
    frames = clip.permute(0, 3, 1, 2).contiguous()  # (T, 3, H, W)
    for name, amount in ops:
        frames = OPERATIONS[name].apply(frames, amount)
    return frames.permute(0, 2, 3, 1)
