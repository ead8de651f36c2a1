"""File formats of exported graphs: how each is written, and how it is opened to be run."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hicmae.portable.graphs import Graph

Arrays = dict[str, NDArray[Any]]
Runner = Callable[[Mapping[str, NDArray[Any]]], Arrays]
"""Named inputs to named outputs."""

OPSET = 20
"""The first version of ONNX with GELU as one operator; onnxruntime reads such files from 1.18 on."""
_PLACE = "namespace"
"""Where torch's exporter writes the path of modules that an operator comes from."""
MOST_CLIPS = 4096
"""Largest batch that a program of ``torch.export`` accepts; it wants a bound."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A file format."""

    name: str
    suffix: str
    requires: tuple[str, ...]
    """Modules that writing needs beyond the core install."""
    extra: str
    """The extra of this project that brings them."""
    write: Callable[[Graph, Path], None]
    open: Callable[[Path], Runner]

    def check_installed(self) -> None:
        """Raise ``ValueError`` with the remedy where a module is missing."""
        missing = [name for name in self.requires if importlib.util.find_spec(name) is None]
        if missing:
            raise ValueError(
                f"--format {self.name} needs {', '.join(missing)}, not installed here: "
                f"pip install 'hicmae[{self.extra}]'"
            )


def write_onnx(graph: Graph, path: Path) -> None:
    """One file with the weights in it (ONNX allows 2 GB); the axis of the clips is free and called ``batch``."""
    clips = torch.export.Dim("batch", min=1, max=MOST_CLIPS)
    with _quiet():
        program = torch.onnx.export(
            graph,
            kwargs=graph.example(2),  # of one clip the exporter would make a constant
            dynamic_shapes={spec.name: {0: clips} for spec in graph.inputs},
            input_names=[spec.name for spec in graph.inputs],
            output_names=graph.output_names(),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        for node in program.model.graph.all_nodes():
            place = node.metadata_props.get(_PLACE)
            node.metadata_props.clear()  # stack traces with paths of this machine, a third of a small file
            if place is not None:
                node.metadata_props[_PLACE] = place
        program.save(path, external_data=False)


def open_onnx(path: Path, *, threads: int = 0) -> Runner:
    """A session on the processor; ``threads`` 0 leaves their number to onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


def write_program(graph: Graph, path: Path) -> None:
    """A ``.pt2`` file; the axis of the clips is free."""
    clips = torch.export.Dim("batch", min=1, max=MOST_CLIPS)
    with _quiet():
        program = torch.export.export(
            graph,
            (),
            kwargs=graph.example(2),
            dynamic_shapes={spec.name: {0: clips} for spec in graph.inputs},
        )
        for module in program.graph_module.modules():
            for node in getattr(getattr(module, "graph", None), "nodes", ()):
                node.meta.pop("stack_trace", None)  # has paths of this machine
        program.example_inputs = None  # they would be stored: as many bytes as the weights of a small model
        torch.export.save(program, path)


def open_program(path: Path) -> Runner:
    """A program that this process wrote: ``torch.export.load`` unpickles, so it is for trusted files only."""
    with _quiet():
        module = torch.export.load(path).module()

    def run(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        with torch.no_grad():
            outputs = module(**{name: torch.from_numpy(np.asarray(value)) for name, value in inputs.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' notes on their own insides, which a user can do nothing about."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


FORMATS = {
    "onnx": Format(
        name="onnx",
        suffix=".onnx",
        requires=("onnx", "onnxscript", "onnxruntime"),
        extra="onnx",
        write=write_onnx,
        open=open_onnx,
    ),
    "torch-export": Format(
        name="torch-export", suffix=".pt2", requires=(), extra="", write=write_program, open=open_program
    ),
}
