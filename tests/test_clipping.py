"""Clipped gradients in mixed precision: the run goes, clips what it should, and logs the norm of the true gradients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader

from hicmae.training.monitor import TrainingMonitor
from hicmae.training.optim import OptimizerConfig
from hicmae.training.run_optimizer import run_optimizer
from tests.tiny_model import TINY


class Job(pl.LightningModule):
    """A model whose gradient has norm 6."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Linear(2, 2, bias=False)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        return {"loss": 3 * self.model.weight.sum()}

    def configure_optimizers(self) -> Any:
        return run_optimizer(self.trainer, self.model, OptimizerConfig(warmup_epochs=0.0), TINY)


class Data(pl.LightningDataModule):
    batch_size = batches_per_epoch = 1

    def train_dataloader(self) -> Any:
        return DataLoader(range(1), collate_fn=lambda clips: SimpleNamespace(clip_ids=clips))


@pytest.mark.parametrize(
    ("precision", "clip", "norm"), [("16-mixed", None, 6.0), ("16-mixed", 0.5, 0.5), ("bf16-mixed", 0.5, 0.5)]
)
def test_gradients_are_clipped_in_mixed_precision(precision: Any, clip: float | None, norm: float, tmp_path) -> None:
    scaler = torch.amp.GradScaler("cpu") if precision == "16-mixed" else None
    job, monitor = Job(), TrainingMonitor()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, plugins=[MixedPrecision(precision, "cpu", scaler=scaler)],
        gradient_clip_val=clip, callbacks=[monitor], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(job, datamodule=Data())
    assert monitor.history[0]["grad_norm"] == pytest.approx(6.0)
    (state,) = trainer.optimizers[0].state.values()
    assert state["exp_avg"].norm().item() == pytest.approx((1 - 0.9) * norm, rel=1e-5)
