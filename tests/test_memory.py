"""A step that does not fit: what is found out, what is said, and that nobody waits for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from hicmae import distributed
from hicmae.speed import SpeedConfig
from hicmae.training.memory import MemoryAdvice, largest_that_fits


@pytest.mark.parametrize("limit", range(12))
def test_the_largest_that_fits(limit: int) -> None:
    tried: list[int] = []

    def fits(count: int) -> bool:
        tried.append(count)
        return count <= limit

    assert largest_that_fits(fits, 12) == limit
    assert tried[0] == 6
    assert len(tried) <= 4


@dataclass(frozen=True)
class Rows:
    """As much of a ``ClipBatch`` as is needed."""

    values: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)

    def first(self, count: int) -> Rows:
        return replace(self, values=self.values[:count])


class Data(pl.LightningDataModule):
    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self) -> Any:
        return DataLoader(range(64), batch_size=self.batch_size, collate_fn=lambda x: Rows(torch.tensor(x).float()))

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return batch


class Limited(pl.LightningModule):
    """A device that holds ``limit`` rows, and forgets what it held with the step's tensors."""

    def __init__(self, limit: int, **settings: Any) -> None:
        super().__init__()
        self.limit, self.speed = limit, SpeedConfig(**settings)
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.steps: list[int] = []
        self.worlds: list[int] = []

    def training_step(self, batch: Rows, batch_idx: int) -> dict[str, torch.Tensor]:
        self.steps.append(len(batch))
        assert torch.is_autocast_enabled("cpu"), "the search runs in another precision than the step"
        if len(batch) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nA long account")
        self.worlds.append(distributed.world_size())
        return {"loss": self.weight.sum() * batch.values.mean()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters())


def failed(module: Limited, data: Data, root: Any, **trainer: Any) -> str:
    fitting = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, precision="bf16-mixed", callbacks=[MemoryAdvice()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=root,
        **trainer,
    )  # fmt: skip
    weight = module.weight.detach().clone()
    with pytest.raises(torch.OutOfMemoryError) as error:
        fitting.fit(module, datamodule=data)
    assert torch.equal(module.weight, weight), "a smaller batch trained in secret"
    return str(error.value)


def test_the_error_names_the_largest_batch_the_one_asked_for_and_the_remedies(tmp_path) -> None:
    module = Limited(5)
    said = failed(module, Data(16), tmp_path)
    assert said == (
        "out of memory on cpu in a step with data.batch_size=16; the largest that fits is 5. Nothing was changed and "
        "nothing tried again: set data.batch_size=5, or keep the clips of a step with data.batch_size=4 and "
        "trainer.accumulate_grad_batches=4, or set model.speed.recompute=true, which trades memory for a third more "
        "arithmetic. (CUDA out of memory. Tried to allocate 2 GiB.)"
    )
    assert module.steps == [16, 8, 4, 6, 5]
    assert module.weight.grad is None


def test_parts_of_a_batch_are_searched_and_advised_where_the_model_takes_them(tmp_path) -> None:
    whole, parts = Limited(5), Limited(1, recompute=True)
    whole.micro_batch_size, parts.micro_batch_size = None, 4  # type: ignore[assignment]
    assert "keep the batch and set model.micro_batch_size=5, which changes no result" in failed(
        whole, Data(16), tmp_path
    )
    said = failed(parts, Data(16), tmp_path)
    assert "with model.micro_batch_size=4; the largest that fits is 1" in said
    assert "set model.micro_batch_size=1. (" in said
    assert "recompute" not in said


def test_one_clip_may_be_too_many(tmp_path) -> None:
    assert "; not even 1 fits" in failed(Limited(0), Data(2), tmp_path)


def test_a_rank_searches_without_the_others(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a collective would wait for is not there: the model believes itself alone, and DDP hears of no gradient."""
    two = SimpleNamespace(is_available=lambda: True, is_initialized=lambda: True, get_world_size=lambda: 2)
    monkeypatch.setattr(distributed, "dist", two)
    module = Limited(5)
    heard: list[Any] = []
    module.weight.register_post_accumulate_grad_hook(heard.append)
    assert "fits is 5" in failed(module, Data(8), tmp_path)
    assert module.worlds == [1, 1]
    assert not heard
    assert distributed.world_size() == 2


def test_weights_shared_out_over_ranks_are_not_searched(tmp_path) -> None:
    class Sharded(pl.strategies.SingleDeviceStrategy):
        """Stands for one whose weights are not whole on any rank."""

    module = Limited(5)
    module.micro_batch_size = None  # type: ignore[assignment]
    said = failed(module, Data(8), tmp_path, strategy=Sharded("cpu"))
    assert module.steps == [8]
    assert "data.batch_size=8. Nothing was changed" in said
    assert "set data.batch_size=4, on more devices" in said
    assert "micro_batch_size" not in said, "it is refused with such a strategy"


def test_other_errors_pass_unchanged(tmp_path) -> None:
    advice = MemoryAdvice()
    error = RuntimeError("something else")
    advice.on_exception(None, None, error)  # type: ignore[arg-type]
    assert str(error) == "something else"
