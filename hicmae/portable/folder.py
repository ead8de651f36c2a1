"""The folder of an exported file: written whole or not at all, and only after its check."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hicmae.backbone import Backbone, Modality
from hicmae.config import InputSpec
from hicmae.export_config import Export, seal
from hicmae.export_folder import CARD, CONFIG, refuse_foreign, replacing
from hicmae.file_digest import sha256_of
from hicmae.portable.card import card
from hicmae.portable.checking import Deviation, deviations, refuse_beyond_tolerance
from hicmae.portable.clips import Clips, random_clips
from hicmae.portable.formats import FORMATS, OPSET, Format
from hicmae.portable.graphs import BackboneGraph, Graph, RecognizerGraph, TransformGraph
from hicmae.portable.quantizing import Int8Cost, int8_costs, quantize_onnx, refuse_spoilt
from hicmae.recognition import EmotionRecognizer


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written, and how well it does."""

    folder: Path
    deviations: tuple[Deviation, ...]
    """Of the float32 files from eager PyTorch; all within tolerance."""
    int8_costs: tuple[Int8Cost, ...]
    """Of the int8 model; empty for float32."""


def write_folder(
    folder: str | Path,
    model: Backbone | EmotionRecognizer,
    *,
    spec: InputSpec,
    modalities: Sequence[Modality],
    format: str,
    int8: bool = False,
    real_clips: Clips,
    provenance: Mapping[str, Any],
) -> Written:
    """Write the model and its transform in a format, check both, and keep the folder only if they agree.

    Args:
        folder: to write; an older one of the same format is replaced when the new one is complete.
        model: on the processor, in float32.
        spec: the input that the model was trained on.
        modalities: what the file takes; a recogniser takes what it was built for.
        format: a name in ``FORMATS``.
        int8: store the model's weights in eight bits (ONNX).
        real_clips: clips beside noise to check with.
        provenance: JSON values that say how the model came about.

    Raises:
        ValueError: unknown format, a package that it needs is missing, ``folder`` is something else, modalities that a
            recogniser was not built for, int8 in another format than ONNX, or a file that computes something else.
    """
    folder = Path(folder)
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; choose one of {', '.join(FORMATS)}")
    kind = FORMATS[format]
    if int8 and format != "onnx":
        raise ValueError(f"int8 is written as ONNX only, not as {format}; use --format onnx")
    if isinstance(model, EmotionRecognizer) and tuple(modalities) != model.modalities:
        raise ValueError(
            f"this recogniser was built for {' and '.join(model.modalities)}, it cannot be exported for "
            f"{' and '.join(modalities)}; export its backbone alone, or leave the modalities out"
        )
    kind.check_installed()
    refuse_foreign(folder, format)  # before the minutes that it takes
    graph: Graph = (
        RecognizerGraph(model, spec) if isinstance(model, EmotionRecognizer) else BackboneGraph(model, spec, modalities)
    )
    transform = TransformGraph(spec, modalities)
    clips = (random_clips(spec), real_clips)
    with replacing(folder, format) as draft:
        files = {part: draft / f"{part}{kind.suffix}" for part in ("model", "transform")}
        kind.write(graph, files["model"])
        kind.write(transform, files["transform"])
        found = tuple(deviations(graph, transform, kind.open(files["model"]), kind.open(files["transform"]), clips))
        refuse_beyond_tolerance(found)
        costs: tuple[Int8Cost, ...] = ()
        if int8:
            exact = files["model"].rename(draft.parent / "exact.onnx")
            quantize_onnx(exact, files["model"])
            costs = tuple(int8_costs(graph, transform, kind.open(files["model"]), [real_clips]))
            refuse_spoilt(costs, "features" if isinstance(model, EmotionRecognizer) else "pooled")
        settings = _settings(
            model,
            graph,
            transform,
            spec=spec,
            modalities=modalities,
            kind=kind,
            int8=int8,
            provenance=provenance,
        )
        settings["check"] = _check_record(found, costs)
        (draft / CARD).write_text(card(settings), encoding="utf-8")
        settings["sha256"] = {path.name: sha256_of(path) for path in sorted(draft.iterdir())}
        seal(settings)
        (draft / CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
    return Written(folder=folder, deviations=found, int8_costs=costs)


def _settings(
    model: Backbone | EmotionRecognizer,
    graph: Graph,
    transform: Graph,
    *,
    spec: InputSpec,
    modalities: Sequence[Modality],
    kind: Format,
    int8: bool,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """The fields of every exported folder, and what is in these files."""
    recognizer = model if isinstance(model, EmotionRecognizer) else None
    export = Export(
        kind="recognizer" if recognizer else "backbone",
        config=model.config,
        spec=spec,
        modalities=tuple(modalities),
        targets=recognizer.targets if recognizer else None,
        provenance=dict(provenance),
    )
    return export.to_settings(sum(p.numel() for p in graph.parameters())) | {
        "format": kind.name,
        "precision": "int8" if int8 else "float32",
        "opset": OPSET if kind.name == "onnx" else None,
        "files": {
            f"transform{kind.suffix}": _describe(transform),
            f"model{kind.suffix}": _describe(graph),
        },
    }


def _describe(graph: Graph) -> dict[str, Any]:
    """Names, types and shapes of a graph's inputs and outputs."""
    with torch.no_grad():
        outputs = graph(**graph.example(1))
    return {
        "inputs": {
            x.name: {"dtype": str(x.dtype).removeprefix("torch."), "shape": ["batch", *x.shape]} for x in graph.inputs
        },
        "outputs": {name: {"dtype": "float32", "shape": ["batch", *x.shape[1:]]} for name, x in outputs.items()},
    }


def _check_record(found: Sequence[Deviation], costs: Sequence[Int8Cost]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "against": f"eager PyTorch {torch.__version__} on the processor, largest absolute difference",
        "float32": [asdict(one) for one in found],
    }
    if costs:
        record["int8"] = [asdict(cost) for cost in costs]
    return record
