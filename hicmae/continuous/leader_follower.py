"""Leader-follower attentive fusion (Zhang et al., "Continuous Emotion Recognition with Audio-visual Leader-follower
Attentive Fusion", ICCVW 2021): the stream that is trusted, and beside it what attention makes of all streams.

Shapes: B windows, L steps, M streams, A attention width, K targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hicmae.continuous.temporal_convolution import TemporalConvolution


@dataclass(frozen=True, kw_only=True)
class LeaderFollowerConfig:
    """Sizes of the head; the defaults are the paper's."""

    leader_width: int = 128
    """Channels of the leader's temporal convolutions."""
    follower_width: int = 32
    """Channels of every follower's temporal convolutions."""
    attention_width: int = 32
    """Width of keys, queries and values."""
    kernel: int = 5
    """Steps that a convolution reads."""
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    """Dilation of each block of two convolutions."""
    dropout: float = 0.1
    """Share of channels left out in training."""
    causal: bool = True
    """Whether a step sees the past only, as in the paper; false: as much of the future."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dilations", tuple(self.dilations))
        for name in ("leader_width", "follower_width", "attention_width", "kernel"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)} must be at least 1")
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"model.dilations={list(self.dilations)} must be one or more numbers from 1 on")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout={self.dropout} must be at least 0 and below 1")


@dataclass
class ContinuousOutput:
    """What the head says of windows."""

    values: Tensor
    """float (B, L, K): the targets, without bounds."""
    attention: Tensor | None
    """float (B, L, M, M): how much the query of stream i (rows) reads of stream j; ``None`` without followers."""


class LeaderFollower(nn.Module):
    """Predicts targets at every step from streams of features.

    The leader's and the followers' features pass temporal convolutions of their own. At every step each stream has a
    key, a query and a value; attention runs over the streams of that step, is added to the values and normalised over
    streams and channels; the leader's features and the result side by side go through a linear layer.

    Args:
        inputs: width of every stream, the leader first.
        targets: K.
        config: sizes.
    """

    def __init__(self, inputs: Mapping[str, int], targets: int, config: LeaderFollowerConfig) -> None:
        super().__init__()
        if not inputs or targets < 1:
            raise ValueError(f"{len(inputs)} streams and {targets} targets: give at least one of each")
        self.streams = tuple(inputs)
        self.config = config
        widths = {name: config.follower_width if n else config.leader_width for n, name in enumerate(inputs)}
        for name, width in inputs.items():
            # The training steps' statistics: a backbone's features may have any scale (set_statistics).
            self.register_buffer(f"mean_{name}", torch.zeros(width))
            self.register_buffer(f"scale_{name}", torch.ones(width))
        self.temporal = nn.ModuleDict({
            name: TemporalConvolution(
                width,
                widths[name],
                kernel=config.kernel,
                dilations=config.dilations,
                dropout=config.dropout,
                causal=config.causal,
            )
            for name, width in inputs.items()
        })  # fmt: skip
        fused = 0
        if len(inputs) > 1:
            self.keys = nn.ModuleDict({name: nn.Linear(widths[name], config.attention_width) for name in inputs})
            self.queries = nn.ModuleDict({name: nn.Linear(widths[name], config.attention_width) for name in inputs})
            self.values = nn.ModuleDict({name: nn.Linear(widths[name], config.attention_width) for name in inputs})
            self.norm = nn.LayerNorm([len(inputs), config.attention_width])
            fused = len(inputs) * config.attention_width
        self.head = nn.Linear(config.leader_width + fused, targets)

    def set_statistics(self, mean: Mapping[str, Tensor], std: Mapping[str, Tensor]) -> None:
        """Standardise every stream by these, float (width,) each; features that do not vary become 0."""
        for name in self.streams:
            getattr(self, f"mean_{name}").copy_(mean[name])
            getattr(self, f"scale_{name}").copy_(torch.where(std[name] > 1e-6, 1 / std[name].clamp(min=1e-6), 0.0))

    def forward(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> ContinuousOutput:
        """Targets of every step.

        Args:
            features: float (B, L, width) for each stream.
            present: bool (B, L) for each stream: False for padding and where the modality is missing; what stands
                there does not matter. A missing stream is neither read nor asked by attention.
        """
        leader = self.streams[0]
        hidden = {}
        for name in self.streams:
            scaled = (features[name].float() - getattr(self, f"mean_{name}")) * getattr(self, f"scale_{name}")
            hidden[name] = self.temporal[name](scaled, present[name])
        if len(self.streams) == 1:
            return ContinuousOutput(values=self.head(hidden[leader]), attention=None)
        there = torch.stack([present[name] for name in self.streams], dim=-1)  # (B, L, M)
        key, query, value = (
            torch.stack([part[name](hidden[name]) for name in self.streams], dim=-2)  # (B, L, M, A)
            for part in (self.keys, self.queries, self.values)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(key.shape[-1])  # (B, L, M, M)
        # The lowest finite number: with no stream at all, weights are even, and not NaN.
        scores = scores.masked_fill(~there.unsqueeze(-2), torch.finfo(scores.dtype).min)
        attention = scores.softmax(dim=-1)
        value = value * there.unsqueeze(-1)
        follower = self.norm((attention @ value + value) * there.unsqueeze(-1)).flatten(-2)  # (B, L, M * A)
        return ContinuousOutput(
            values=self.head(torch.cat([hidden[leader], follower], dim=-1)),
            attention=attention,
        )
