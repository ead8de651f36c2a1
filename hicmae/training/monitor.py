"""What a run says while it runs: losses, learning rate, gradient norm, clips/s, waiting for data, skipped clips.

Losses are summed on the device and read once per logged line, not once per step.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from hicmae.data.batch import ClipBatch
from hicmae.data.seen import Seen
from hicmae.training.sharding import joint_norm

logger = logging.getLogger(__name__)


class WaitingLoader(Protocol):
    """A loader that knows how long its consumer waited and what it skipped."""

    wait_seconds: float
    skipped: Counter[str]
    seen: Seen


class TrainingMonitor(Callback):
    """Logs one line every ``trainer.log_every_n_steps`` optimiser steps, to all loggers and to the console.

    ``training_step`` returns a dict with ``loss`` and any further scalar tensors; all of them are averaged over
    steps and ranks. The data module's ``train_loader`` says how long the job waited for data.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._batches = 0
        self._clips = 0
        self._grad_norm: Tensor | None = None
        self._lr = self._since = self._waited = 0.0
        self.clips_seen = 0
        """Clips that this run has trained on, over all ranks, resumed parts included; each view of a clip counts."""
        self.history: list[dict[str, float]] = []
        """The lines logged by this process, for figures."""

    def _loader(self, trainer: Trainer) -> WaitingLoader | None:
        return getattr(trainer.datamodule, "train_loader", None)  # type: ignore[attr-defined]

    def _restart_clock(self, trainer: Trainer) -> None:
        loader = self._loader(trainer)
        self._sums, self._batches, self._clips = {}, 0, 0
        self._since, self._waited = time.perf_counter(), loader.wait_seconds if loader else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restart_clock(trainer)

    def _due(self, trainer: Trainer, *, step: int) -> bool:
        return step == 1 or step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self._due(trainer, step=trainer.global_step + 1):
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self._grad_norm = joint_norm(gradients)
            # In float16 the loss was scaled, and with it the gradients; a fused optimiser unscales them in its step.
            if trainer.scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
                self._grad_norm = self._grad_norm / trainer.scaler.scale(torch.ones_like(self._grad_norm))
            self._lr = max(group["lr"] for group in optimizer.param_groups)  # the schedule moves on right after

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        for name, value in outputs.items():
            if isinstance(value, Tensor) and value.numel() == 1:
                detached = value.detach().float()
                self._sums[name] = self._sums[name] + detached if name in self._sums else detached
        self._batches += 1
        self._clips += len(batch.clip_ids)
        self.clips_seen += len(batch.clip_ids) * trainer.world_size
        if self._grad_norm is not None:  # set by the optimiser step of this very batch
            self._log(trainer, pl_module)
            self._grad_norm = None
            self._restart_clock(trainer)

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._grad_norm is not None
        names = list(self._sums)
        means = torch.stack([self._sums[name] for name in names]) / self._batches
        means = trainer.strategy.reduce(means, reduce_op="mean")
        line = dict(zip((f"train/{name}" for name in names), means.tolist(), strict=True))
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        loader = self._loader(trainer)
        line |= {
            "lr": self._lr,
            "grad_norm": self._grad_norm.item(),
            "clips_per_s": self._clips * trainer.world_size / elapsed,
            "data_wait_percent": 100 * (loader.wait_seconds - self._waited) / elapsed if loader else 0.0,
            "queue_depth": loader.seen.queue_depth if loader else 0.0,
            "skipped_clips": float(sum(loader.skipped.values())) if loader else 0.0,
            "clips_seen": float(self.clips_seen),
            "epoch": trainer.current_epoch
            + (trainer.fit_loop.epoch_loop.batch_idx + 1) / max(1, trainer.num_training_batches),
        }
        self.history.append({"step": float(trainer.global_step)} | line)
        for sink in trainer.loggers:
            sink.log_metrics(line, step=trainer.global_step)
        pl_module.log_dict(
            {"loss": line["train/loss"], "clips/s": line["clips_per_s"], "wait%": line["data_wait_percent"]},
            prog_bar=True,
            logger=False,
        )
        if trainer.is_global_zero:
            logger.info(_sentence(trainer.global_step, line))

    def state_dict(self) -> dict[str, Any]:
        return {"clips_seen": self.clips_seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.clips_seen = state_dict["clips_seen"]


def _sentence(step: int, line: Mapping[str, float]) -> str:
    losses = " ".join(f"{name.removeprefix('train/')} {v:.4f}" for name, v in line.items() if name.startswith("train/"))
    return (
        f"step {step} epoch {line['epoch']:.2f} | {losses} | lr {line['lr']:.2e} grad {line['grad_norm']:.3f} | "
        f"{line['clips_per_s']:.1f} clips/s, data-wait {line['data_wait_percent']:.1f}%, "
        f"{line['queue_depth']:.1f} batches ready, "
        f"skipped {line['skipped_clips']:.0f}"
    )
