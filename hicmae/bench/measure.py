"""Timing on a machine that others use too: variants take turns, and a large matrix product takes its turn with them.

A shared processor or a throttled GPU is slower in one minute than in the next. What is compared is therefore run in the
same round, and the ratio is taken within the round.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

MOST_ROUNDS = 200
"""Further rounds end here, whatever time a measurement was given."""
GPU_SIZE, PROCESSOR_SIZE = 8192, 2048
"""Rows and columns of the matrices: large enough that nothing but arithmetic counts."""


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def give_back() -> None:
    """Return memory of the GPU that nothing uses, for the next model or another process."""
    if torch.cuda.is_available():
        gc.collect()  # optimiser and schedule hold each other
        torch.cuda.empty_cache()


def timed(
    steps: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    device: torch.device,
    seconds: float = 0.0,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each step in each round, by name.

    Every round runs all steps once, beginning with another one each time. The device is waited for before and after.

    Args:
        steps: what is run, by name.
        rounds: counted rounds, at least.
        device: where the steps compute.
        seconds: go on with further rounds until so much time has passed.
        warmup: rounds before that are not counted.
        clock: gives seconds: of the wall, or ``time.process_time``, which stands still while others have the processor.

    Raises:
        ValueError: no round.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds} must be at least 1")
    names = list(steps)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(warmup):
        for name in names:
            steps[name]()
    synchronize(device)
    began = time.perf_counter()
    for number in range(max(rounds, MOST_ROUNDS)):
        if number >= rounds and time.perf_counter() - began >= seconds:
            break
        first = number % len(names)
        for name in names[first:] + names[:first]:
            started = clock()
            steps[name]()
            synchronize(device)
            taken[name].append(clock() - started)
    return taken


class MatrixProduct:
    """A product of two large square matrices: what the machine's arithmetic can give.

    Args:
        device: where it is computed.
        dtype: of both factors and the result.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        on_gpu = device.type == "cuda"
        size = GPU_SIZE if on_gpu else PROCESSOR_SIZE
        self._repeats = 10 if on_gpu else 2
        self._factors = [torch.randn(size, size, device=device).to(dtype) for _ in range(2)]
        self._product = torch.empty(size, size, device=device, dtype=dtype)
        self.flops = 2 * size**3 * self._repeats
        """Floating-point operations of a call."""

    def __call__(self) -> None:
        for _ in range(self._repeats):
            torch.mm(*self._factors, out=self._product)


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product: the best of five."""
    product = MatrixProduct(device, dtype)
    return product.flops / min(timed({"": product}, rounds=5, device=device)[""])


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The middle and the range of a figure over rounds."""

    median: float
    low: float
    high: float
    error: float
    """Standard error of the median, estimated from the median distance to it: one bad round does not widen it."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of the values of the rounds."""
        middle = statistics.median(values)
        distance = statistics.median(abs(value - middle) for value in values)
        # 1.4826: from median distance to deviation; sqrt(pi / 2): from a mean's error to a median's (normal values)
        error = 1.4826 * distance * math.sqrt(math.pi / 2 / len(values))
        return cls(median=middle, low=min(values), high=max(values), error=error)
