"""The whole measurement: stages in their order, the best batch where it is asked for, errors that name what fits."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from hicmae.bench.batch import SyntheticBatch
from hicmae.bench.batch_size import best_batch, does_not_fit, fits
from hicmae.bench.footage import Footage
from hicmae.bench.measure import timed
from hicmae.bench.result import Row
from hicmae.bench.settings import MODEL_STAGES, BenchSettings
from hicmae.bench.stages import run_stage
from hicmae.bench.steps import stage_step
from hicmae.largest_batch import largest_that_fits

_TRIED_ROUNDS = 3


def measure(
    settings: BenchSettings,
    stages: Sequence[str],
    *,
    best: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[BenchSettings, list[Row]]:
    """Measure stages one after another.

    Args:
        settings: of all of them.
        stages: their names.
        best: find the batch of most clips a second, for each stage with a model; the others take that of pre-training,
            or of the first with a model.
        say: told what is measured now.

    Returns:
        The settings with the batch that was used, and a row for each stage or variant.

    Raises:
        ValueError: a batch that does not fit into the GPU (names the largest that does), or ``best`` without one.
    """
    if best and not settings.on_gpu:
        raise ValueError("--batch best looks for the memory of a GPU to be full; on a processor give a number")
    torch.set_num_threads(settings.threads)
    found: dict[str, int] = {}
    if best:
        for stage in [stage for stage in ("pretrain", "finetune", "embed") if stage in stages] or ["pretrain"]:
            say(f"{stage}: looking for the best batch")
            found[stage] = best_batch(functools.partial(_clips_per_s, stage, settings))
        settings = dataclasses.replace(settings, batch=next(iter(found.values())))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="hicmae-bench-") as folder:
        footage = Footage(Path(folder), settings.config, settings.batch)
        for stage in stages:
            say(stage)
            own = dataclasses.replace(settings, batch=found.get(stage, settings.batch))
            rows += _measure_stage(stage, own, footage)
    return settings, rows


def _measure_stage(stage: str, settings: BenchSettings, footage: Footage) -> list[Row]:
    rows: list[Row] = []

    def run(batch: int) -> None:
        rows.extend(run_stage(stage, dataclasses.replace(settings, batch=batch), footage))

    if not fits(run, settings.batch):
        attempt = functools.partial(fits, functools.partial(_try, stage, settings))
        largest = largest_that_fits(attempt, settings.batch)
        raise does_not_fit(settings.batch, largest, stage)
    return rows


def _try(stage: str, settings: BenchSettings, batch: int) -> None:
    """Two steps: the second has the optimiser's state beside the gradients."""
    step = _step_of(stage, settings, batch)
    for _ in range(2):
        step()


def _clips_per_s(stage: str, settings: BenchSettings, batch: int) -> float:
    step = _step_of(stage, settings, batch)
    taken = timed({"": step}, rounds=_TRIED_ROUNDS, device=settings.torch_device, warmup=settings.warmup)
    return batch / min(taken[""])


def _step_of(stage: str, settings: BenchSettings, batch: int) -> Callable[[], object]:
    own = dataclasses.replace(settings, batch=batch)
    made = SyntheticBatch.make(own.config, batch, own.torch_device)
    return stage_step(stage if stage in (*MODEL_STAGES, "transform") else "pretrain", own, made)
