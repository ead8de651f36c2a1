"""How many clips a GPU takes at once, and which batch gives most clips a second."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hicmae.bench.measure import give_back

_GROWTH = 1.02
"""By how much twice the batch must be faster to be worth its memory."""
_LARGEST = 1 << 16


def fits(run: Callable[[int], object], batch: int) -> bool:
    """Whether ``run(batch)`` ends without the GPU's memory being full; what it held is given back."""
    try:
        run(batch)
    except torch.OutOfMemoryError:
        full = True
    else:
        full = False
    give_back()  # after the handler, whose traceback holds the tensors
    return not full


def best_batch(clips_per_s: Callable[[int], float], *, start: int = 4) -> int:
    """The batch of most clips a second, doubling until memory is full or 2% more are not reached.

    Args:
        clips_per_s: measures a batch.
        start: the first.

    Raises:
        ValueError: not even the first fits.
    """
    speeds: dict[int, float] = {}

    def measure(batch: int) -> None:
        speeds[batch] = clips_per_s(batch)

    batch = start
    while batch <= _LARGEST and fits(measure, batch):
        if batch > start and speeds[batch] < _GROWTH * speeds[batch // 2]:
            break
        batch *= 2
    if not speeds:
        raise ValueError(f"not even a batch of {start} clips fits into the memory of {_gpu()}; choose a smaller preset")
    return max(speeds, key=lambda size: speeds[size])


def does_not_fit(batch: int, largest: int, stage: str) -> ValueError:
    """The error that names the largest batch that fits."""
    remedy = f"the largest that fits is {largest}" if largest else "not even one clip fits: choose a smaller preset"
    return ValueError(f"--batch {batch} does not fit into the memory of {_gpu()} ({stage}): {remedy}")


def _gpu() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "this device"
