"""The stages: what each times, beside a matrix product on the same device and threads."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from hicmae.bench.batch import SyntheticBatch
from hicmae.bench.end_to_end import run_job
from hicmae.bench.footage import DIFFERENT, Footage, Kind
from hicmae.bench.measure import MatrixProduct, give_back, matrix_peak, timed
from hicmae.bench.memory import peak_memory
from hicmae.bench.result import Row
from hicmae.bench.settings import MODEL_STAGES, BenchSettings
from hicmae.bench.steps import flops_per_clip, stage_step
from hicmae.data.plan import PlannedBatch

_CPU = torch.device("cpu")
LOADED = 64
"""Clips that the loader gives in a round, at least."""


def run_stage(stage: str, settings: BenchSettings, footage: Footage) -> list[Row]:
    """Measure a stage.

    Raises:
        ValueError: an unknown one; a batch that does not fit into the GPU.
    """
    if stage == "decode":
        return list(_decode(settings, footage))
    if stage == "loader":
        return [_loader(settings, footage)]
    if stage == "end-to-end":
        return [_end_to_end(settings, footage)]
    return [_step(stage, settings)]


def _beside_matrices(
    run: Callable[[], object],
    settings: BenchSettings,
    *,
    on: torch.device,
    dtype: torch.dtype,
    alone: bool,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Seconds of ``run`` and FLOP/s of the matrix product in each round.

    ``alone``: this thread does all of the work, so that processor time says what it took whatever else the machine did.
    (Threads that wait for one another burn processor time too.)
    """
    product = MatrixProduct(on, dtype)
    taken = timed(
        {"run": run, "matrix": product},
        rounds=settings.rounds, device=on, seconds=settings.seconds, warmup=settings.warmup,
        clock=time.process_time if alone else time.perf_counter,
    )  # fmt: skip
    return tuple(taken["run"]), tuple(product.flops / seconds for seconds in taken["matrix"])


def _step(stage: str, settings: BenchSettings) -> Row:
    device, dtype = settings.torch_device, settings.dtype
    batch = SyntheticBatch.make(settings.config, settings.batch, device)
    has_model = stage in MODEL_STAGES
    seconds, matrix = _beside_matrices(
        stage_step(stage, settings, batch), settings, on=device, dtype=dtype if has_model else torch.float32,
        alone=settings.one_thread,
    )  # fmt: skip
    give_back()
    return Row(
        name=stage,
        clips=settings.batch,
        seconds=seconds,
        matrix_flops=matrix,
        flops_per_clip=flops_per_clip(stage, settings, batch) if has_model else None,
        peak_bytes=peak_memory(stage, settings),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _decode(settings: BenchSettings, footage: Footage) -> Iterator[Row]:
    """One core does what a decoding process of the loader does."""
    kinds: tuple[tuple[Kind, str], ...] = (("original", "decode, mp4 files"), ("h264", "decode, h264 shards"))
    clips = np.arange(DIFFERENT).reshape(1, 1, DIFFERENT)
    for kind, name in kinds:
        build = footage.builder(kind)
        epoch = iter(range(10**9))

        def run(build: Callable[..., Iterator[object]] = build, epoch: Iterator[int] = epoch) -> None:
            plan = PlannedBatch(epoch=next(epoch), batch=0, clips=clips[0, 0], joint=clips)
            for _ in build([plan]):
                pass

        with _one_thread():
            seconds, matrix = _beside_matrices(run, settings, on=_CPU, dtype=torch.float32, alone=True)
        yield Row(name=name, clips=DIFFERENT, seconds=seconds, matrix_flops=matrix)


def _loader(settings: BenchSettings, footage: Footage) -> Row:
    """Whole epochs of the stream and nothing else, so that no batch is left over that the next round would find."""
    batches = max(4 * max(1, settings.workers), -(-LOADED // settings.batch))
    stream = footage.stream(workers=settings.workers, batches=batches)

    def run() -> None:
        for _ in stream:
            pass

    try:
        alone = settings.workers == 0 and settings.one_thread
        seconds, matrix = _beside_matrices(run, settings, on=_CPU, dtype=torch.float32, alone=alone)
    finally:
        stream.close()
    return Row(
        name="loader",
        clips=settings.batch * batches,
        seconds=seconds,
        matrix_flops=matrix,
        batches_ready=stream.seen.queue_depth,
    )


def _end_to_end(settings: BenchSettings, footage: Footage) -> Row:
    """The matrix product cannot take turns with another process: it is measured before and after."""
    device = settings.torch_device
    before = matrix_peak(device, settings.dtype)
    give_back()
    folder = footage.folder / "job"
    lines = run_job(settings, footage.shards("h264"), folder, steps=64 if settings.on_gpu else 12)
    shutil.rmtree(folder)  # a checkpoint is three times the model
    matrix = (before + matrix_peak(device, settings.dtype)) / 2
    batch = SyntheticBatch.make(settings.config, 1, _CPU)
    return Row(
        name="end-to-end",
        clips=settings.batch,
        seconds=tuple(settings.batch / line.clips_per_s for line in lines),
        matrix_flops=tuple(matrix for _ in lines),
        flops_per_clip=flops_per_clip("pretrain", settings, batch),
        data_wait_percent=float(np.median([line.data_wait_percent for line in lines])),
        batches_ready=float(np.median([line.queue_depth for line in lines])),
    )
