"""Temporal convolutional network: dilated residual blocks (Bai et al., 2018), as Zhang et al. (2021) use it.

Shapes: B windows, L steps, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class TemporalBlock(nn.Module):
    """Two dilated convolutions with weight normalisation, leaky ReLU and dropout of whole channels; a residual path."""

    def __init__(self, inputs: int, channels: int, *, kernel: int, dilation: int, dropout: float, causal: bool) -> None:
        super().__init__()
        reach = (kernel - 1) * dilation
        self.padding = (reach, 0) if causal else (reach // 2, reach - reach // 2)
        self.first = weight_norm(nn.Conv1d(inputs, channels, kernel, dilation=dilation))
        self.second = weight_norm(nn.Conv1d(channels, channels, kernel, dilation=dilation))
        self.match = nn.Conv1d(inputs, channels, 1) if inputs != channels else None
        self.dropout = nn.Dropout1d(dropout)
        for convolution in (self.first, self.second, self.match):
            if convolution is not None:
                assert convolution.bias is not None
                nn.init.zeros_(convolution.bias)
        if self.match is not None:
            nn.init.xavier_uniform_(self.match.weight, gain=math.sqrt(2))

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """(B, inputs, L), 0/1 (B, 1, L) -> (B, channels, L), zero where ``keep`` is."""
        y = self.dropout(F.leaky_relu(self.first(F.pad(x, self.padding)))) * keep
        y = self.dropout(F.leaky_relu(self.second(F.pad(y, self.padding))))
        residual = x if self.match is None else self.match(x)
        return F.leaky_relu(y + residual) * keep


class TemporalConvolution(nn.Module):
    """A stack of ``TemporalBlock``.

    Args:
        inputs: values of a step.
        channels: values of a step after every block.
        kernel: steps that a convolution reads.
        dilations: one for each block.
        dropout: share of the channels left out in training.
        causal: whether a step sees the steps up to itself only (the paper's choice), or as many after as before.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        *,
        kernel: int = 5,
        dilations: Sequence[int] = (1, 2, 4, 8),
        dropout: float = 0.1,
        causal: bool = True,
    ) -> None:
        super().__init__()
        self.receptive_steps = 1 + 2 * (kernel - 1) * sum(dilations)
        """Steps that one output depends on: 121 with the paper's settings."""
        self.blocks = nn.ModuleList(
            TemporalBlock(
                inputs if number == 0 else channels,
                channels,
                kernel=kernel,
                dilation=dilation,
                dropout=dropout,
                causal=causal,
            )
            for number, dilation in enumerate(dilations)
        )

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Features of steps.

        Args:
            x: float (B, L, inputs).
            present: bool (B, L). Absent steps are zeros for every convolution, as the steps before a sequence are: so
                a padded window gives what the sequence alone would.

        Returns:
            float (B, L, channels), zero at absent steps.
        """
        keep = present.to(x.dtype).unsqueeze(1)  # (B, 1, L)
        # where, not a product: what stands at an absent step may be anything, NaN included
        y = x.transpose(1, 2).masked_fill(~present.unsqueeze(1), 0.0)
        for block in self.blocks:
            y = block(y, keep)
        return y.transpose(1, 2)
