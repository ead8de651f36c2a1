"""A look at the model in the midst of its training, after which the training goes on as if nobody had looked."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from hicmae.speed import eagerly


@contextmanager
def aside(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Within it ``module`` is in evaluation mode, uncompiled and without gradients.

    Afterwards every part of it is in the mode it was in, and the random numbers of Python, NumPy, and torch (on the CPU
    and on ``device``) go on where they were.
    """
    modes = [(part, part.training) for part in module.modules()]
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  the global one, which others may use
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad(), eagerly():
        module.eval()
        try:
            yield
        finally:
            for part, training in modes:
                part.training = training
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002
