"""Our training steps beside those of the authors' code, in turns in one process, on the same batch and weights."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from hicmae.bench.batch import SyntheticBatch
from hicmae.bench.measure import give_back, timed
from hicmae.bench.memory import peak_memory
from hicmae.bench.reference import Reference
from hicmae.bench.reference_pair import finetuning_pair, our_pretraining, our_recognizer, pretraining_pair
from hicmae.bench.result import Versus
from hicmae.bench.settings import BenchSettings
from hicmae.bench.steps import accelerate_as

TRAINING = ("pretrain", "finetune")
"""Stages that the reference has too."""


def check_reference(path: str, settings: BenchSettings) -> None:
    """Import the checkout, so that a wrong path is an error before anything is measured.

    Raises:
        ValueError: says what was looked for and not found; or a precision that is not compared.
    """
    usual = "bf16" if settings.on_gpu else "fp32"
    if settings.precision != usual:
        raise ValueError(
            f"--precision {settings.precision} with --against: on this device ours is compared in {usual}"
        )  # fmt: skip
    load_reference(path, settings)


def versus(path: str, stage: str, settings: BenchSettings) -> list[Versus]:
    """The whole step, and forward and backward alone.

    Args:
        path: folder of the reference.
        stage: pretrain or finetune.
        settings: of our step.

    Raises:
        ValueError: no such stage; the two do not compute the same loss.
    """
    make = {"pretrain": pretraining_pair, "finetune": finetuning_pair}

    def prepare(model: nn.Module) -> None:
        accelerate_as(settings, model)

    pair = make[stage](load_reference(path, settings), settings.batch, prepare=prepare)
    steps: dict[str, Callable[[], object]] = {
        "ours, whole": pair.ours.whole,
        "theirs, whole": pair.theirs.whole,
        "ours, part": pair.ours.forward_backward,
        "theirs, part": pair.theirs.forward_backward,
    }
    taken = timed(
        steps, rounds=settings.rounds, device=settings.torch_device, seconds=settings.seconds, warmup=settings.warmup,
        clock=time.process_time if settings.one_thread else time.perf_counter,
    )  # fmt: skip
    del pair, steps
    give_back()
    return [
        Versus(
            name=f"{stage}, whole step",
            ours_seconds=tuple(taken["ours, whole"]),
            theirs_seconds=tuple(taken["theirs, whole"]),
            ours_peak_bytes=peak_memory(stage, settings),
            theirs_peak_bytes=peak_memory(stage, settings, against=path),
        ),
        Versus(
            name=f"{stage}, forward and backward",
            ours_seconds=tuple(taken["ours, part"]),
            theirs_seconds=tuple(taken["theirs, part"]),
        ),
    ]


def reference_step(
    reference: Reference, stage: str, settings: BenchSettings, batch: SyntheticBatch
) -> Callable[[], object]:
    """The reference's whole step alone, for its memory."""
    if stage == "pretrain":
        return reference.pretraining_step(our_pretraining(settings.config, settings.torch_device), batch).whole
    return reference.finetuning_step(our_recognizer(settings.config, settings.torch_device), batch).whole


def load_reference(path: str, settings: BenchSettings) -> Reference:
    """The ``Reference`` of a checkout, whose modules are imported here; errors as ``Reference.at``."""
    torch.set_num_threads(settings.threads)
    return Reference.at(path, settings.preset, settings.torch_device)
