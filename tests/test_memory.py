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
from hicmae.largest_batch import largest_that_fits
from hicmae.speed import SpeedConfig
from hicmae.training.memory import MemoryAdvice, _search


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
    def __init__(self, batch_size: int, views_per_clip: int = 1) -> None:
        super().__init__()
        self.batch_size, self.views_per_clip = batch_size, views_per_clip

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


class InParts(Limited):
    """As pre-training, which may take its batch in parts, unless there is a reason why not."""

    def __init__(self, limit: int, micro_batch_size: int | None = None, why_not: str | None = None, **settings: Any):
        super().__init__(limit, **settings)
        self.micro_batch_size, self.why_not = micro_batch_size, why_not

    def why_not_in_parts(self) -> str | None:
        return self.why_not


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
        "trainer.accumulate_grad_batches=4, or set model.speed.recompute=blocks, which trades memory for a third more "
        "arithmetic. (CUDA out of memory. Tried to allocate 2 GiB.)"
    )
    assert module.steps == [16, 8, 4, 6, 5]
    assert module.weight.grad is None


def test_parts_of_a_batch_are_searched_and_advised_where_the_model_takes_them(tmp_path) -> None:
    said = failed(InParts(5), Data(16), tmp_path)
    assert "keep the batch and set model.micro_batch_size=5, which changes no result" in said
    said = failed(InParts(1, micro_batch_size=4, recompute="blocks"), Data(16), tmp_path)
    assert "with model.micro_batch_size=4; the largest that fits is 1" in said
    assert "set model.micro_batch_size=1. (" in said
    assert "recompute" not in said
    said = failed(InParts(5, why_not="float16"), Data(16), tmp_path)
    assert "nothing tried again: set data.batch_size=5, or set model.speed.recompute=blocks" in said


def test_the_batch_size_advised_is_one_that_views_per_clip_allows(tmp_path) -> None:
    said = failed(InParts(7), Data(16, views_per_clip=4), tmp_path)
    assert "fits is 7. Nothing was changed and nothing tried again: set data.batch_size=4, or keep the batch" in said
    said = failed(InParts(3), Data(16, views_per_clip=4), tmp_path)
    assert "nothing tried again: keep the batch and set model.micro_batch_size=3" in said


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("kind", [Limited, InParts])
def test_one_clip_may_be_too_many_and_then_no_smaller_batch_is_advised(tmp_path, kind: Any, batch_size: int) -> None:
    said = failed(kind(0), Data(batch_size), tmp_path)
    assert "; not even 1 fits. Nothing was changed and nothing tried again: set model.speed.recompute=blocks" in said


def test_there_may_be_no_room_for_the_optimizers_moments(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(like: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(torch, "zeros_like", no_room)
    assert "in a step with data.batch_size=8; not even 1 fits" in failed(Limited(5), Data(8), tmp_path)


@pytest.mark.parametrize(("made", "reserved"), [(0, 4), (1, 2), (2, 0)])
def test_room_is_kept_for_moments_that_are_not_there_yet(made: int, reserved: int, monkeypatch) -> None:
    """A step that runs out of memory while it makes them leaves some."""
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    for parameter in list(module.parameters())[:made]:
        optimizer.state[parameter] = {"exp_avg": parameter.detach(), "exp_avg_sq": parameter.detach()}
    held: list[torch.Tensor] = []
    zeros_like = torch.zeros_like
    monkeypatch.setattr(torch, "zeros_like", lambda like: held.append(zeros_like(like)) or held[-1])
    module.device = torch.device("cpu")  # type: ignore[assignment]
    trainer: Any = SimpleNamespace(optimizers=[optimizer])
    batch: Any = Rows(torch.zeros(1))
    assert _search(trainer, module, batch, 1, torch.OutOfMemoryError()) == 0  # type: ignore[arg-type]
    assert len(held) == reserved


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
    said = failed(module, Data(8), tmp_path, strategy=Sharded("cpu"))
    assert module.steps == [8]
    assert "data.batch_size=8. Nothing was changed and nothing tried again: set a smaller data.batch_size, or" in said


def test_other_errors_pass_unchanged(tmp_path) -> None:
    advice = MemoryAdvice()
    error = RuntimeError("something else")
    advice.on_exception(None, None, error)  # type: ignore[arg-type]
    assert str(error) == "something else"
