"""An exported file against the model that it was made of, on the same clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hicmae.portable.clips import Clips
from hicmae.portable.formats import Arrays, Runner
from hicmae.portable.graphs import Graph

MODEL_TOLERANCE = 1e-4
"""Largest difference of any output of a model's file, the model's inputs being the same."""
TRANSFORM_TOLERANCE = 1e-3
"""Largest difference of the transform's outputs: log-mel takes the logarithm of energies near the floor."""
BATCHES = (1, 3)


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """One output of one file on some clips, so many at once."""

    file: str
    """``model``, ``transform``, or ``transform + model``, one fed by the other."""
    clips: str
    batch: int
    output: str
    largest: float
    """Largest absolute difference to eager PyTorch."""
    tolerance: float

    @property
    def within(self) -> bool:
        """False for NaN too."""
        return self.largest <= self.tolerance


def deviations(
    model: Graph, transform: Graph, model_file: Runner, transform_file: Runner, clips: Sequence[Clips]
) -> Iterator[Deviation]:
    """Run files and graphs side by side on all clips, in batches of every size; every output is compared.

    Raises:
        ValueError: a file has other outputs than its graph.
    """
    tolerances = {
        "transform": TRANSFORM_TOLERANCE,
        "model": MODEL_TOLERANCE,
        "transform + model": TRANSFORM_TOLERANCE,
    }
    for some in clips:
        for size in BATCHES:
            seen: dict[tuple[str, str], list[float]] = {}
            for decoded in some.batches(size):
                raw = {spec.name: decoded[spec.name] for spec in transform.inputs}
                inputs = run_eager(transform, raw)
                outputs = run_eager(model, inputs)
                prepared = transform_file(raw)
                for file, expected, found in (
                    ("transform", inputs, prepared),
                    ("model", outputs, model_file(inputs)),
                    ("transform + model", outputs, model_file(prepared)),
                ):
                    for output, largest in largest_differences(expected, found).items():
                        seen.setdefault((file, output), []).append(largest)
            for (file, output), differences in seen.items():
                yield Deviation(
                    file=file,
                    clips=some.name,
                    batch=size,
                    output=output,
                    largest=float(np.max(differences)),  # NaN wins
                    tolerance=tolerances[file],
                )


def run_eager(graph: Graph, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
    """A graph in eager PyTorch, as the library runs it."""
    with torch.no_grad():
        outputs = graph(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def largest_differences(expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """By output; names or shapes that differ raise ``ValueError``."""
    shapes = {name: value.shape for name, value in expected.items()}
    others = {name: value.shape for name, value in found.items()}
    if shapes != others:
        raise ValueError(f"the exported file has outputs {others}, the model {shapes}: nothing was kept")
    return {name: float(np.abs(found[name] - value).max()) for name, value in expected.items()}


def refuse_beyond_tolerance(found: Sequence[Deviation]) -> None:
    """Raise ``ValueError`` that names the worst output, if any is beyond its tolerance."""
    beyond = [one for one in found if not one.within]
    if beyond:
        worst = max(beyond, key=lambda one: np.nan_to_num(one.largest / one.tolerance, nan=np.inf))
        raise ValueError(
            f"the exported file does not compute what the model computes: output {worst.output} of the "
            f"{worst.file} differs by {worst.largest:.3g} on {worst.batch} {worst.clips} clips, allowed is "
            f"{worst.tolerance:g} ({len(beyond)} of {len(found)} outputs are beyond it); nothing was kept"
        )
