"""Steps of both jobs, with augmentation and the callbacks of the trainer: the host never waits for a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hicmae.data.batch import ClipBatch
from hicmae.masking import random_mask, tube_mask
from hicmae.media.rand_augment import OPERATIONS, FrameOp
from hicmae.media.random_erasing import Erasure
from hicmae.pretraining import Objective
from hicmae.training.monitor import TrainingMonitor
from hicmae.training.optim import OptimizerConfig, build_optimizer
from hicmae.training.status import StepStatus
from pretrain.module import PretrainModule
from tests.test_finetune import SMALL, batch, module, step
from tests.waiting import no_waiting


def whole_step(
    tuned: Any, clips: ClipBatch, losses: Callable[[], dict[str, torch.Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step as the trainer runs it, callbacks included, off the steps that are logged."""
    settings = OptimizerConfig(warmup_epochs=0.0)
    optimizer, schedule = build_optimizer(
        tuned.model, settings, global_batch=4, steps_per_epoch=9, epochs=1, depth=2, fusion_depth=1
    )
    trainer: Any = SimpleNamespace(
        global_step=5, current_epoch=0, global_rank=0, world_size=1, log_every_n_steps=50, datamodule=None, scaler=None
    )
    monitor, status = TrainingMonitor(), StepStatus()
    monkeypatch.setattr(status, "_read", lambda *args, **more: None)  # reads at once, but on a processor alone
    for _ in range(2):  # the optimiser's first step makes its moments
        with no_waiting():
            outputs = losses()
            outputs["loss"].backward()
            monitor.on_before_optimizer_step(trainer, tuned, optimizer)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            monitor.on_train_batch_end(trainer, tuned, outputs, clips, 0)
            status.on_train_batch_end(trainer, tuned, outputs, clips, 0)


def augmented(count: int) -> ClipBatch:
    """Clips with each operation of RandAugment, erasures, and stripes."""
    ops = [FrameOp(name, operation.amount(0.7, 1.0)) for name, operation in OPERATIONS.items()]
    clips = batch(count)
    return replace(
        clips,
        frame_ops=[tuple(ops[i::count]) for i in range(count)],
        erasures=[Erasure(top=2, left=2, height=4, width=4, seed=i) for i in range(count)],
        stripes=torch.tensor([[[0.1, 0.2, 0.0, 1.0]]]).expand(count, 1, 4),
    )


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 3.0]], ids=["plain", "weighted"])
def test_a_step_of_fine_tuning(weights: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
        return (labels[:, None] == torch.arange(classes)).long()

    monkeypatch.setattr(torch.nn.functional, "one_hot", one_hot)  # torch's looks at the labels on a processor alone
    tuned, clips = module(drop_path=0.5, class_weights=weights), augmented(4)
    whole_step(tuned, clips, lambda: step(tuned, clips), monkeypatch)


@pytest.mark.parametrize("negatives", ["local", "global"])
def test_a_step_of_pretraining(negatives: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job = PretrainModule("micro", SMALL, objective=Objective(negatives=negatives))
    rng = np.random.default_rng(0)

    def drawn(draw: Callable[[], Sequence[int]]) -> torch.Tensor:
        return torch.from_numpy(np.stack([draw() for _ in range(4)]))

    clips = replace(
        batch(4),
        video_visible=drawn(lambda: tube_mask(rng, job.config.video_grid, 0.5)),  # type: ignore[arg-type, return-value]
        audio_visible=drawn(lambda: random_mask(rng, job.config.audio_tokens, 0.5)),  # type: ignore[arg-type, return-value]
    )
    whole_step(job, clips, lambda: job.training_step(clips, 0), monkeypatch)
