"""What makes a job faster or smaller and leaves its mathematics alone: compiled graphs and recomputed activations."""

from __future__ import annotations

import importlib.util
import logging
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from hicmae.decoder import Decoder
from hicmae.encoder import Encoder
from hicmae.fusion import FusionEncoder
from hicmae.layers import Block, Recompute, set_recompute

logger = logging.getLogger(__name__)

Compile = Literal["auto", "off", "blocks", "whole"]

_PARTS: dict[str, tuple[type[nn.Module], ...]] = {"blocks": (Block,), "whole": (Encoder, FusionEncoder, Decoder)}
_GRAPHS = 64
"""Graphs that one compiled function may have; torch's own limit of 8 is less than the shapes of a training step."""


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """Settings that change what a job costs and, up to rounding, nothing else (docs/speed.md)."""

    compile: Compile = "auto"
    """torch.compile of the training step: ``blocks``: each transformer block a graph, which blocks of one shape share;
    ``whole``: each encoder, the fusion and each decoder one graph, which takes longer to compile; ``auto``: blocks on
    a GPU, off elsewhere."""
    recompute: Recompute = "none"
    """What is not kept for the backward pass but computed again there. ``pointwise``: norms and GELUs: a third less
    memory for activations, little more time; ``blocks``: all but the input of each block: far less memory, a third
    more arithmetic."""

    def __post_init__(self) -> None:
        if self.compile not in get_args(Compile):
            raise ValueError(f"speed.compile={self.compile!r} must be one of {', '.join(get_args(Compile))}")
        if self.recompute not in get_args(Recompute):
            raise ValueError(f"speed.recompute={self.recompute!r} must be one of {', '.join(get_args(Recompute))}")


THRIFTY = SpeedConfig(recompute="pointwise")
"""The defaults of fine-tuning, which is done on small GPUs too and keeps all tokens of every layer."""


def accelerate(model: nn.Module, settings: SpeedConfig, device_type: str, **compiler: Any) -> None:
    """Apply the settings to a model, in place; names of parameters stay as they are.

    A part is compiled when it is first called with a shape, a type and gradients on or off, and once for each of these,
    so that what is computed depends on the input alone and not on what came before: a run that goes on repeats an
    undisturbed one. Keep batches to one size, therefore, and call what comes once within ``eagerly()``.

    Args:
        model: a pre-training model, a backbone, a recogniser, or anything built of them, on its device already.
        settings: what to do.
        device_type: of its device: ``cuda``, ``cpu``.
        compiler: further arguments of ``torch.compile``.

    Raises:
        ValueError: a compilation that was asked for by name cannot work on this machine. (``auto`` warns of that, and
            leaves the model uncompiled.)
    """
    set_recompute(model, settings.recompute)
    wanted = settings.compile
    if wanted == "auto":
        wanted = "blocks" if device_type == "cuda" else "off"
    if wanted == "off":
        return
    if missing := _missing_tools(device_type):
        if settings.compile != "auto":
            raise ValueError(f"speed.compile={wanted} needs {missing}; install it, or set speed.compile=off")
        logger.warning(
            "training without torch.compile, which costs speed and memory: it needs %s. Install it, or set "
            "speed.compile=off to do without this warning", missing,
        )  # fmt: skip
        return
    _allow_graphs()
    for part in model.modules():
        if isinstance(part, _PARTS[wanted]):
            # A graph that breaks into pieces is an error, not a silent loss.
            part.compile(fullgraph=True, dynamic=False, **compiler)


@contextmanager
def eagerly() -> Iterator[None]:
    """Within it compiled models run uncompiled: for what is computed once, or in shapes that never come again."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and importing the compiler would take seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _allow_graphs() -> None:
    import torch._dynamo  # takes seconds, so only where it is needed

    torch._dynamo.config.recompile_limit = max(_GRAPHS, torch._dynamo.config.recompile_limit)


def _missing_tools(device_type: str) -> str | None:
    """What ``torch.compile`` would stumble over in the midst of the first step; ``None``: nothing known."""
    if device_type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "the package triton, which comes with PyTorch's builds for CUDA"
        if torch.version.hip is None and torch.cuda.get_device_capability() < (7, 0):
            major, minor = torch.cuda.get_device_capability()
            return f"a GPU of compute capability 7.0 or above; {torch.cuda.get_device_name()} has {major}.{minor}"
        given, usual, language = os.environ.get("CC"), ["gcc", "clang"], "C"
    else:
        given, usual, language = os.environ.get("CXX"), ["clang++" if sys.platform == "darwin" else "g++"], "C++"
    names = shlex.split(given)[:1] if given else usual
    if not any(shutil.which(name) for name in names):
        return f"a {language} compiler ({' or '.join(names)} was not found)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return f"Python's headers (the package python3-dev; {sysconfig.get_path('include')} lacks Python.h)"
    return None
