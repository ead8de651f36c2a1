"""Task heads: emotion categories, continuous dimensions, or both at once (paper, section 3.4).

Shapes: B clips, D feature width, C classes, K dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hicmae.layers import LayerNorm


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a recogniser predicts, by name and in order.

    ``classes`` are the categories of one single-label task; ``dimensions`` are continuous targets.
    """

    classes: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict, compare=False)
    """(lowest, highest) label of dimensions, where known. Outputs are not cut to it; two tasks do not differ by it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "dimensions", tuple(self.dimensions))
        ranges = {name: (float(low), float(high)) for name, (low, high) in self.ranges.items()}
        object.__setattr__(self, "ranges", ranges)
        if unknown := sorted(set(ranges) - set(self.dimensions)):
            raise ValueError(f"ranges are given for {unknown}, which are not among dimensions {list(self.dimensions)}")
        if not self.classes and not self.dimensions:
            raise ValueError("a head needs classes, dimensions or both; e.g. classes=['happy', 'sad']")
        if len(self.classes) == 1:
            raise ValueError(f"one class {self.classes[0]!r} leaves nothing to tell apart; give at least two")
        for names in (self.classes, self.dimensions):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"names given twice: {twice}")


def categorical(classes: int | Sequence[str]) -> Targets:
    """Targets of a categorical task, by class names or by their number (names are then '0', '1', ...)."""
    return Targets(classes=tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes))


def dimensional(names: Sequence[str]) -> Targets:
    """Targets of a dimensional task, e.g. ``dimensional(['valence', 'arousal'])``."""
    return Targets(dimensions=tuple(names))


class Head(nn.Module):
    """LayerNorm, then one linear layer per kind of target."""

    def __init__(self, width: int, targets: Targets, *, init_scale: float = 1.0) -> None:
        """``init_scale`` multiplies the initial weights (the paper's fine-tuning uses 1e-3)."""
        super().__init__()
        self.targets = targets
        self.norm = LayerNorm(width)
        self.classifier = nn.Linear(width, len(targets.classes)) if targets.classes else None
        self.regressor = nn.Linear(width, len(targets.dimensions)) if targets.dimensions else None
        for layer in (self.classifier, self.regressor):
            if layer is not None:
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
                with torch.no_grad():
                    layer.weight.mul_(init_scale)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(B, D) -> normed features (B, D), class logits (B, C) or None, dimensions (B, K) or None."""
        features = self.norm(pooled)
        logits = self.classifier(features) if self.classifier is not None else None
        values = self.regressor(features) if self.regressor is not None else None
        return features, logits, values
