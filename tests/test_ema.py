"""The average of the weights; what it does to a run is in tests/test_finetune_options.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import torch

from hicmae.training.ema import EmaWeights


class OneLayer(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)


def test_the_average_is_where_the_weights_are() -> None:
    """They go to their device after it is made of them."""
    average, module = EmaWeights(0.9), OneLayer()
    trainer: Any = SimpleNamespace()
    average.setup(trainer, module, "fit")
    average.on_fit_start(trainer, module.to("meta"))
    assert average._average_model is not None
    assert {tensor.device.type for tensor in average._average_model.parameters()} == {"meta"}
