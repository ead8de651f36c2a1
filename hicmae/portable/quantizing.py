"""Eight-bit weights for ONNX files, and what they cost.

Dynamic quantisation: weights of linear layers are stored as integers with a scale for each output; activations are
rounded while the model runs, with a scale for each tensor, whose clips share it: outputs of a clip depend a little on
those beside it in the batch. Attention between tokens, softmax, GELU, LayerNorm and the
head stay in float32. What it costs in accuracy and gains in speed, and what other choices of layers and integers give,
is in ``docs/benchmarks/formats.md``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hicmae.portable.checking import run_eager
from hicmae.portable.clips import Clips
from hicmae.portable.formats import Runner
from hicmae.portable.graphs import Graph

LEAST_COSINE = 0.98
"""An int8 file whose pooled features point elsewhere is not kept."""


@dataclass(frozen=True, kw_only=True)
class Int8Cost:
    """How far an output of the int8 file lies from eager float32."""

    output: str
    largest: float
    """Largest absolute difference."""
    least_cosine: float
    """Least cosine similarity over the clips, each clip's output taken as one vector."""


def quantize_onnx(source: Path, target: Path, **other_choices: Any) -> None:
    """Write ``source`` with int8 weights to ``target``; ``other_choices`` are arguments of ``quantize_dynamic``."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)  # it advises a preprocessing that torch's exporter has done already
    try:
        choices = {"op_types_to_quantize": ["MatMul"], "per_channel": True, "weight_type": QuantType.QInt8}
        quantize_dynamic(source, target, **(choices | other_choices))
    finally:
        root.setLevel(before)


def int8_costs(model: Graph, transform: Graph, model_file: Runner, clips: Sequence[Clips]) -> list[Int8Cost]:
    """Compare on every clip."""
    expected: dict[str, list[NDArray[Any]]] = {}
    found: dict[str, list[NDArray[Any]]] = {}
    for some in clips:
        for decoded in some.batches(1):
            inputs = run_eager(transform, {spec.name: decoded[spec.name] for spec in transform.inputs})
            for outputs, computed in ((expected, run_eager(model, inputs)), (found, model_file(inputs))):
                for name, value in computed.items():
                    outputs.setdefault(name, []).append(value)
    return [
        Int8Cost(
            output=name,
            largest=float(np.abs(np.concatenate(found[name]) - np.concatenate(values)).max()),
            least_cosine=float(cosines(np.concatenate(values), np.concatenate(found[name])).min()),
        )
        for name, values in expected.items()
    ]


def cosines(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine similarity of every row of (B, ...) with the same row of the other: float64 (B,)."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(lengths, 1e-30))


def refuse_spoilt(costs: Sequence[Int8Cost], features: str) -> None:
    """Raise ``ValueError`` if int8 turned the output called ``features`` by more than allowed."""
    by_output: Mapping[str, Int8Cost] = {cost.output: cost for cost in costs}
    cosine = by_output[features].least_cosine
    if not cosine >= LEAST_COSINE:
        raise ValueError(
            f"int8 spoils this model: the cosine of its {features} with the float32 ones falls to {cosine:.6f}, least "
            f"allowed is {LEAST_COSINE}; nothing was kept, export without --int8"
        )
