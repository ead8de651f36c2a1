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
    for step in (1, 2):  # tensors of that device have no values: whatever the host would read fails
        average.on_train_batch_end(SimpleNamespace(global_step=step), module, None, None, step)  # type: ignore[arg-type]
    assert average._average_model.n_averaged == 2


def test_the_average_starts_as_the_weights_and_moves_by_a_share_of_the_way() -> None:
    average, module = EmaWeights(0.75), OneLayer()
    average.setup(SimpleNamespace(), module, "fit")  # type: ignore[arg-type]
    average.on_fit_start(SimpleNamespace(), module)  # type: ignore[arg-type]
    assert average._average_model is not None
    for step, (value, expected) in enumerate([(1.0, 1.0), (5.0, 2.0), (2.0, 2.0)], start=1):
        with torch.no_grad():
            module.layer.weight.fill_(value)
        for _ in range(2):  # accumulated batches end without a step of the optimiser
            average.on_train_batch_end(SimpleNamespace(global_step=step), module, None, None, 0)  # type: ignore[arg-type]
        assert torch.equal(average._average_model.module.layer.weight, torch.full((2, 2), expected))
