"""Initial values of variants: where a variant of the model has what the paper's model has, both begin alike.

Random values are drawn in order, so a part that is left out shifts the draws of all that follow it, and a comparison of
two variants would also be one of two seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class PaperDraws:
    """The state of torch's generator before a model is built."""

    def __init__(self) -> None:
        self._state = torch.get_rng_state()

    def share(self, variant: nn.Module, build_paper: Callable[[], nn.Module]) -> None:
        """Copy into ``variant`` what the paper's model would have drawn in its place.

        The generator goes on from where the paper's model leaves it, so what is built afterwards begins alike, too.

        Args:
            variant: just built.
            build_paper: builds the paper's model; names and shapes that both have are shared, and
                the plain blocks of a decoder take those of the blocks with skip connections that they stand for.
        """
        torch.set_rng_state(self._state)
        paper = build_paper().state_dict()
        with torch.no_grad():
            for name, value in variant.state_dict().items():
                drawn = paper.get(name.replace(".plain_blocks.", ".skip_blocks."))
                if drawn is not None and drawn.shape == value.shape:
                    value.copy_(drawn)
