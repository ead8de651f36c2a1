"""Frozen features judged by simple models: ``python -m finetune probe --config configs/finetune/crema_d.yaml``.

The backbone sees every clip once. On each part of what it gives (video, audio, fused, all, each layer's mean) nearest
neighbours and a linear model are fitted to the training clips; the number of neighbours and the penalty are chosen on
validation, and the test clips are scored once, with what was chosen. Nothing of the backbone is trained.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import LightningArgumentParser
from numpy.typing import NDArray

from finetune.__main__ import FinetuneCLI
from finetune.data import FinetuneData
from finetune.evaluation import evaluate
from finetune.module import FinetuneModule
from finetune.origin import origins_of
from finetune.probe_report import ProbeRow, write_probe
from finetune.protocol import labelled
from hicmae.benchmarks import card
from hicmae.benchmarks.card import Card
from hicmae.data.evaluation import EvaluationLoader
from hicmae.data.labels import LabelSpec
from hicmae.data.source import ClipSource
from hicmae.data.splits import TEST, TRAIN, VAL, Splits, subjects_of
from hicmae.feature_parts import named_features
from hicmae.metrics import categorical_scores
from hicmae.predictions import ClipOutputs, SegmentOutputs
from hicmae.probing import Method, ProbeFit, probe_classes, probe_dimensions
from hicmae.training.cli import run_job

logger = logging.getLogger(__name__)

METHODS: tuple[Method, ...] = ("knn", "linear")


@dataclass(frozen=True, kw_only=True)
class PartFeatures:
    """The clips of a part, as the backbone sees them."""

    source: ClipSource
    clips: ClipOutputs
    """``outputs`` float64 (N, D + modalities): all features side by side, then the share of segments with each
    modality."""
    targets: dict[str, NDArray[Any]]
    """By label column (N,): class numbers, or values."""


class ProbeCLI(FinetuneCLI):
    """The settings of ``fit``, of which the probe takes ``model``, ``data``, and where it runs and writes."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--layers", type=bool, default=True, help="Probe each encoder layer's mean too, not the pooled parts alone."
        )

    def _run_subcommand(self, subcommand: str) -> None:
        config = self.config[subcommand]
        benchmark = card(config.benchmark) if config.benchmark else None
        probe(
            self.model,
            self.datamodule,
            device=self.trainer.strategy.root_device,
            layers=config.layers,
            out=Path(config.trainer.default_root_dir) / "probe",
            benchmark=benchmark,
        )


def main(argv: Sequence[str]) -> int:
    """Run the job; returns the exit status."""
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # we mean it
    return run_job(
        "probe",
        lambda: ProbeCLI(
            FinetuneModule,
            FinetuneData,
            seed_everything_default=0,
            save_config_callback=None,
            # one device: a pass over the clips is short beside a training
            args=["fit", *argv, "--trainer.devices=1", "--trainer.strategy=auto", "--trainer.logger=false"],
        ),
    )


def probe(
    module: FinetuneModule,
    data: FinetuneData,
    *,
    device: torch.device,
    layers: bool,
    out: Path,
    benchmark: Card | None = None,
) -> list[ProbeRow]:
    """Write ``probe.json`` and ``probe.md`` into ``out``; returns their rows.

    Args:
        module: gives backbone, input and labels.
        data: gives the clips and how they are divided.
        device: where the backbone runs, in float32.
        layers: take each encoder layer's mean too.
        out: folder.
        benchmark: whose scores the table shows first.

    Raises:
        ValueError: labels or clips that cannot be used; a backbone that was taught the test clips.
    """
    data.setup("fit")
    assert data.splits is not None
    for what, origin in origins_of(module.init):
        if origin["content"] == data.protocol.content:
            data.take_origin(origin, what)
    sources = {TRAIN: data.splits.train, VAL: data.splits.val, TEST: data.splits.test}
    names: dict[str, list[int]] = {}
    parts: dict[str, PartFeatures] = {}
    for part, source in sources.items():
        if source is not None:
            parts[part], names = extract(module, data, part, source, device=device, layers=layers)
    rows = []
    with _classes_are_named_as_absent_once():
        for feature, columns in names.items():
            for task in _tasks(module.labels):
                for method in METHODS:
                    row = _probe_one(module, data, parts, feature, columns, task, method)
                    shown = " ".join(
                        f"{labelled(part, data.protocol.label)} {name} {value:.4f}"
                        for part, evaluation in row.evaluations.items()
                        for name, value in list(evaluation.scalars.items())[:1]
                    )
                    logger.info("%s, %s (%s) | %s", feature, method, row.setting, shown)
                    rows.append(row)
    write_probe(out, rows, _about(module, data), benchmark)
    return rows


@contextmanager
def _classes_are_named_as_absent_once() -> Iterator[None]:
    """The data said which classes a part has no clips of; every score of every model would say it again."""
    scores = logging.getLogger(categorical_scores.__module__)
    level = scores.level
    scores.setLevel(logging.ERROR)
    try:
        yield
    finally:
        scores.setLevel(level)


# ---------------------------------------------------------------- features


@torch.inference_mode()
def extract(
    module: FinetuneModule, data: FinetuneData, part: str, source: ClipSource, *, device: torch.device, layers: bool
) -> tuple[PartFeatures, dict[str, list[int]]]:
    """Features of every clip of a source, means over as many windows as a test takes; and which columns are which."""
    module.to(device).eval()
    loader = EvaluationLoader(
        source,
        spec=data.spec,
        segments=data.segments[TEST],
        loader=data.loader,
        withheld=data.test_without if part == TEST else None,
    )
    collected, names = SegmentOutputs(), dict[str, list[int]]()
    for batch in loader:
        batch = batch.to(device)
        features = named_features(module.model.backbone(*module.inputs(batch)), layers=layers)
        given = {"video": batch.has_video, "audio": batch.has_audio}
        columns = [*features.values(), *(given[name].float()[:, None] for name in module.modalities)]
        collected.add(batch.index, batch.segment, batch.valid, torch.cat(columns, dim=1))
        names = _columns(features)
    loader.close()
    clips = collected.gather()
    if not len(clips.index):
        raise ValueError(f"{source.name}: none of the {len(source)} clips could be decoded; the log says why")
    infos = [source.info(int(number)) for number in clips.index]
    encoded = [module.labels.encode(info.labels, clip_id=info.clip_id) for info in infos]
    targets = {name: np.array([row[name] for row in encoded]) for name in encoded[0]}
    logger.info("features of %d of %d clips for %s", len(clips.index), len(source), part)
    return PartFeatures(source=source, clips=clips, targets=targets), names


def _columns(features: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    """Columns of each feature, and of the fused ones and all pooled ones together."""
    ends = np.cumsum([value.shape[1] for value in features.values()])
    columns = {
        name: list(range(end - value.shape[1], end)) for (name, value), end in zip(features.items(), ends, strict=True)
    }
    if "fused_video" not in columns:
        return columns
    fused = columns["fused_video"] + columns["fused_audio"]
    return columns | {"fused": fused, "all": columns["video"] + columns["audio"] + fused}


# ---------------------------------------------------------------- models


def _tasks(labels: LabelSpec) -> list[LabelSpec]:
    tasks = [LabelSpec(classes=labels.classes)] if labels.classes else []
    return tasks + ([LabelSpec(dimensions=labels.dimensions)] if labels.dimensions else [])


def _probe_one(
    module: FinetuneModule,
    data: FinetuneData,
    parts: dict[str, PartFeatures],
    feature: str,
    columns: list[int],
    task: LabelSpec,
    method: Method,
) -> ProbeRow:
    x = {part: found.clips.outputs[:, columns] for part, found in parts.items()}
    fitted: ProbeFit
    if task.classes:
        name, classes = next(iter(task.classes.items()))
        y = {part: parts[part].targets[name] for part in (TRAIN, VAL)}
        fitted = probe_classes((x[TRAIN], y[TRAIN]), (x[VAL], y[VAL]), classes=len(classes), method=method)
    else:
        name = ", ".join(task.dimensions)
        y = {part: np.stack([parts[part].targets[n] for n in task.dimensions], axis=1) for part in (TRAIN, VAL)}
        fitted = probe_dimensions((x[TRAIN], y[TRAIN]), (x[VAL], y[VAL]), method=method)
    evaluations = {}
    for part in parts:
        if part == TRAIN:
            continue
        clips, source = parts[part].clips, parts[part].source
        given = clips.outputs[:, -len(module.modalities) :]
        result = ClipOutputs(
            index=clips.index, segments=clips.segments, outputs=np.hstack([fitted.predict(x[part]), given])
        )
        evaluations[part] = evaluate(result, source, task, module.modalities, average_over=data.average_over)
    return ProbeRow(
        feature=feature, width=len(columns), task=name, method=method, setting=fitted.setting, evaluations=evaluations
    )


def _about(module: FinetuneModule, data: FinetuneData) -> dict[str, Any]:
    assert data.splits is not None
    return {
        "data": data.source.name,
        "init": str(module.init) if module.init else "random weights",
        "modalities": list(module.modalities),
        "labels": module.labels.to_dict(),
        "segments": data.segments[TEST],
        "test_without": data.test_without,
        "splits": data.splits.summary(),
        "label_fraction": data.label_fraction,
        "labelled_clips": data.splits.labelled_clips,
        "validation": _validation(data.splits),
        "label": data.protocol.label,
        "seed": data.seed,
    }


def _validation(splits: Splits) -> str:
    if splits.val_is_test:
        return "which is the test itself"
    if not splits.val_is_carved:
        return "the data's own split"
    return "carved from the training speakers" if subjects_of(splits.val) else "carved from the training clips"
