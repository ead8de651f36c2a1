"""Notices, on a processor, what would make the host and a GPU wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_OPERATORS = {
    "_local_scalar_dense", "bincount", "equal", "is_nonzero", "masked_select", "nonzero", "repeat_interleave",
    "unique_consecutive", "unique_dim", "_unique", "_unique2",
}  # fmt: skip
"""The host needs a value of their result, or its shape, at once."""
_FUNCTIONS = {"as_tensor", "cpu", "from_numpy", "numpy", "tensor", "tolist"}
"""They copy from one to the other, which no operator shows where both are the same device."""


class WaitsError(AssertionError):
    """An operator for which a GPU's queue of work would have to run empty."""


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in _OPERATORS or _by_mask(name, args):
            raise WaitsError(f"{func} makes a GPU wait")
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in _FUNCTIONS:
            raise WaitsError(f"{func.__name__} copies between host and device")
        return func(*args, **(kwargs or {}))


def _by_mask(name: str, args: tuple[Any, ...]) -> bool:
    if not name.lstrip("_").startswith("index") or len(args) < 2 or not isinstance(args[1], list | tuple):
        return False
    if len(args) > 2 and args[2].numel() == 1:
        return False  # one value wherever the mask is true is a masked fill, whose shape is known
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])


@contextmanager
def no_waiting() -> Iterator[None]:
    """Within it, whatever waits raises ``WaitsError``: forward, backward and in the optimiser."""
    with _Operators(), _Functions():
        yield
