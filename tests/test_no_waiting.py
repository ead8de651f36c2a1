"""No step makes the host wait for the device: nothing is read from tensors, and none is made of the host's values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

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

_WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "lift_fresh", "unique")
"""Operators that read a value of a tensor, that give a shape which depends on values, or that copy from the host."""


class Watch(TorchDispatchMode):
    """Notes the operators that would make the host of a GPU wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        chosen = args[1] if name == "index" else ()
        if name.startswith(_WAITING) or any(i is not None and i.dtype == torch.bool for i in chosen):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "waits", [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: torch.tensor([1.0, 2.0]), lambda x: bool(x[0])]
)
def test_the_watch_sees_what_waits(waits: Callable[[torch.Tensor], object]) -> None:
    with Watch() as watch:
        waits(torch.ones(3))
    assert watch.found


def whole_step(tuned: Any, clips: ClipBatch, losses: Callable[[], dict[str, torch.Tensor]]) -> list[str]:
    """What waits in a step as the trainer runs it, callbacks included, off the steps that are logged."""
    settings = OptimizerConfig(warmup_epochs=0.0)
    optimizer, schedule = build_optimizer(
        tuned.model, settings, global_batch=4, steps_per_epoch=9, epochs=1, depth=2, fusion_depth=1
    )
    trainer: Any = SimpleNamespace(
        global_step=5, current_epoch=0, global_rank=0, world_size=1, log_every_n_steps=50, datamodule=None, scaler=None
    )
    monitor, status = TrainingMonitor(), StepStatus()
    for _ in range(2):  # the optimiser's first step makes its moments
        with Watch() as watch:
            outputs = losses()
            outputs["loss"].backward()
            monitor.on_before_optimizer_step(trainer, tuned, optimizer)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            monitor.on_train_batch_end(trainer, tuned, outputs, clips, 0)
            status.on_train_batch_end(trainer, tuned, outputs, clips, 0)
    return watch.found


def augmented(count: int) -> ClipBatch:
    """Clips with each operation of RandAugment, erasures, and stripes."""
    # Its numbers go to a GPU as arguments of a kernel, which looks like a copy here.
    names = [name for name in OPERATIONS if name != "auto_contrast"]
    ops = [FrameOp(name, 0.5 if "late" in name or "shear" in name else 1.0) for name in names]
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
    assert whole_step(tuned, clips, lambda: step(tuned, clips)) == []


@pytest.mark.parametrize("negatives", ["local", "global"])
def test_a_step_of_pretraining(negatives: Any) -> None:
    job = PretrainModule("micro", SMALL, objective=Objective(negatives=negatives))
    rng = np.random.default_rng(0)

    def drawn(draw: Callable[[], Sequence[int]]) -> torch.Tensor:
        return torch.from_numpy(np.stack([draw() for _ in range(4)]))

    clips = replace(
        batch(4),
        video_visible=drawn(lambda: tube_mask(rng, job.config.video_grid, 0.5)),  # type: ignore[arg-type, return-value]
        audio_visible=drawn(lambda: random_mask(rng, job.config.audio_tokens, 0.5)),  # type: ignore[arg-type, return-value]
    )
    assert whole_step(job, clips, lambda: job.training_step(clips, 0)) == []
