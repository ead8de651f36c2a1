"""After training: score the last and the best checkpoint, write results, figures and the export."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from finetune.callbacks import FollowTest
from finetune.data import FinetuneData
from finetune.evaluation import Evaluation
from finetune.module import FinetuneModule
from finetune.protocol import Protocol, labelled
from finetune.run_report import run_report
from finetune.selection import FollowedCurve, curve_lines, write_selection
from hicmae.checkpoint import save_export
from hicmae.data.splits import TEST, VAL, subjects_of
from hicmae.figures.confusion import draw_confusion
from hicmae.figures.scatter import draw_scatter
from hicmae.figures.selection import draw_selection
from hicmae.training.provenance import run_provenance
from hicmae.training.run_directory import export_directory, last_checkpoint, run_directory

logger = logging.getLogger(__name__)

BEST, LAST = "best", "last"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A checkpoint and how it did."""

    name: str
    """best, last, or what a test was given."""
    path: Path
    step: int | None
    """Optimiser steps behind it; ``None`` where that is not known."""
    evaluations: dict[str, Evaluation]
    """By split: val, test."""


def finish_training(
    trainer: Trainer, module: FinetuneModule, data: FinetuneData, *, test: bool, benchmark: str | None = None
) -> None:
    """Write ``metrics.json``, ``report.md``, ``predictions.parquet``, figures and ``export/`` into the run directory.

    The best checkpoint is the one with the highest validation score; it is exported. Without one (training ended
    before its first validation) the last one is. ``test=False`` leaves the test split alone.
    """
    assert data.splits is not None
    parts = [VAL] + ([TEST] if test and data.splits.test is not None else [])
    scored: list[Scored] = []
    for name, path in _checkpoints(trainer).items():
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(checkpoint["state_dict"])
        step = int(checkpoint["global_step"])
        if scored and scored[0].step == step:  # the best one is the last one
            evaluations = scored[0].evaluations
        else:
            evaluations = _evaluate(trainer, module, data, parts)
        scored.append(Scored(name=name, path=path, step=step, evaluations=evaluations))
    data.close()
    if not trainer.is_global_zero:
        return
    root = run_directory(trainer)
    chosen = scored[0]
    module.load_state_dict(torch.load(chosen.path, map_location="cpu", weights_only=True)["state_dict"])
    about = {
        "selected_on": _selected_on(trainer) if chosen.name == BEST else "nothing: there is only the last",
        "validation": _validation(data),
        "splits": data.splits.summary(),
        "label_fraction": data.label_fraction,
        "labelled_clips": data.splits.labelled_clips,
        **_about(module, data, benchmark),
        "seed": data.seed,
    }
    curve = next((callback.curve for callback in trainer.callbacks if isinstance(callback, FollowTest)), None)  # type: ignore[attr-defined]
    write_results(root, scored, data.protocol, about, curve if curve is not None and curve.points else None)
    provenance = run_provenance(
        trainer,
        job="finetune",
        metrics={
            labelled(f"{part}/{name}", data.protocol.label): value
            for part, evaluation in chosen.evaluations.items()
            for name, value in evaluation.scalars.items()
            if not math.isnan(value)
        },
    )
    provenance["data"] |= {"splits": about["splits"]}
    provenance |= {
        "intervals": _intervals(chosen, data.protocol),
        "checkpoint": labelled(f"{chosen.name}, after {chosen.step} steps", data.protocol.label),
        "protocol": data.protocol.to_dict(),
    }
    export = save_export(export_directory(root), module.model, spec=module.spec, provenance=provenance)
    logger.info("exported the recogniser (%s checkpoint) to %s", chosen.name, export)


def finish_test(
    trainer: Trainer, module: FinetuneModule, data: FinetuneData, *, checkpoint: Path, benchmark: str | None = None
) -> None:
    """Write the same files for a test alone, into ``test/`` of the run directory."""
    data.close()
    if not trainer.is_global_zero:
        return
    scored = Scored(name="tested", path=checkpoint, step=None, evaluations={TEST: module.evaluations[TEST]})
    write_results(run_directory(trainer) / TEST, [scored], data.protocol, _about(module, data, benchmark))


def write_results(
    root: Path,
    scored: list[Scored],
    protocol: Protocol,
    about: dict[str, Any],
    curve: FollowedCurve | None = None,
) -> None:
    """Write ``metrics.json``, ``report.md``, ``predictions.parquet`` and figures (of the test; of the validation, where
    there is no test) of some checkpoints below ``root``; with a ``curve``, ``selection.json`` and its figure too."""
    root.mkdir(parents=True, exist_ok=True)
    checkpoints = {
        one.name: {"path": str(one.path), "step": one.step}
        | {part: _scores(part, evaluation, protocol) for part, evaluation in one.evaluations.items()}
        for one in scored
    }
    content = {"about": about, **checkpoints}
    shown_part = TEST if TEST in scored[0].evaluations else VAL
    _replace(root / "metrics.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
    selection = None
    if curve is not None:
        selection = write_selection(root, curve)
        draw_selection({root.name: curve_lines(curve)}, root / "figures" / "selection.png", score=curve.score)
    _replace(root / "report.md", run_report(content, shown_part, selection))
    tables = []
    for one in scored:
        for part, evaluation in one.evaluations.items():
            table = evaluation.table.copy()
            table.insert(0, "checkpoint", one.name)
            table.insert(1, "split", part)
            table.insert(2, "protocol", protocol.label)
            tables.append(table)
            shown = " ".join(f"{name} {value:.4f}" for name, value in evaluation.scalars.items())
            logger.info("%s checkpoint, %s | %s", one.name, labelled(part, protocol.label), shown)
        _draw(root / "figures", one.name, shown_part, one.evaluations[shown_part], protocol.label)
    draft = root / ".predictions.parquet.draft"
    pd.concat(tables, ignore_index=True).to_parquet(draft, index=False)
    draft.replace(root / "predictions.parquet")
    logger.info("wrote %s, report.md and predictions.parquet", root / "metrics.json")


def _scores(part: str, evaluation: Evaluation, protocol: Protocol) -> dict[str, Any]:
    values = {"protocol": protocol.label} if protocol.label else {}
    values |= evaluation.to_dict()
    return values | ({"intervals": evaluation.intervals().to_dict()} if part == TEST else {})


def _intervals(scored: Scored, protocol: Protocol) -> dict[str, Any]:
    """Of the test's scores, under the names that the export gives these; empty where nothing was tested."""
    if TEST not in scored.evaluations:
        return {}
    intervals = scored.evaluations[TEST].intervals()
    about = {name: value for name, value in intervals.to_dict().items() if name not in intervals.bounds}
    known = {name: both for name, both in intervals.bounds.items() if both is not None}
    return about | {"bounds": {labelled(f"{TEST}/{name}", protocol.label): list(both) for name, both in known.items()}}


def _validation(data: FinetuneData) -> str:
    assert data.splits is not None
    if data.splits.val_is_test:
        return data.protocol.label
    if not data.splits.val_is_carved:
        return "the data's own split"
    return "carved from the training speakers" if subjects_of(data.splits.val) else "carved from the training clips"


def _selected_on(trainer: Trainer) -> str:
    best = _best(trainer)
    assert best is not None
    return f"{best.monitor} ({'highest' if best.mode == 'max' else 'lowest'})"


def _about(module: FinetuneModule, data: FinetuneData, benchmark: str | None) -> dict[str, Any]:
    distilled = module.distilled_from()
    return {
        "protocol": data.protocol.label,
        "benchmark": benchmark,
        "data": data.source.name,
        "test_fold": data.protocol.test_fold,
        "other_classes_left_out": data.dropped,
        "init": str(module.init) if module.init else "random weights",
        "teacher": None if distilled is None else str(module.teacher_path or distilled["teacher"]["name"]),
        "distillation": distilled,
        "modalities": list(module.modalities),
        "columns": list(module.labels.classes),
        "classes": list(module.targets.classes),
        "dimensions": list(module.targets.dimensions),
        "segments": dict(data.segments),
        "test_without": data.test_without,
    }


def _checkpoints(trainer: Trainer) -> dict[str, Path]:
    best = _best(trainer)
    found = {BEST: Path(best.best_model_path)} if best is not None and best.best_model_path else {}
    return found | {LAST: last_checkpoint(trainer)}


def _best(trainer: Trainer) -> ModelCheckpoint | None:
    return next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)), None)


def _evaluate(trainer: Trainer, module: FinetuneModule, data: FinetuneData, parts: list[str]) -> dict[str, Evaluation]:
    for part in parts:
        run = trainer.validate if part == VAL else trainer.test
        run(module, datamodule=data, verbose=False)
    return {part: module.evaluations[part] for part in parts}


def _draw(folder: Path, checkpoint: str, part: str, evaluation: Evaluation, label: str) -> None:
    title = f"{label}\n" if label else ""
    title += f"{checkpoint} checkpoint, {part}: "
    scores = evaluation.scalars
    if evaluation.categorical is not None:
        draw_confusion(
            evaluation.categorical.confusion,
            evaluation.classes,
            folder / f"confusion_{part}_{checkpoint}.png",
            title=f"{title}UAR {scores['uar']:.1%}, WAR {scores['war']:.1%}, {evaluation.rows}",
        )
    if evaluation.dimensional:
        table = evaluation.table
        draw_scatter(
            {
                name: (table[f"{name}_target"].to_numpy(), table[f"{name}_prediction"].to_numpy())
                for name in evaluation.dimensional
            },
            folder / f"scatter_{part}_{checkpoint}.png",
            title=f"{title}CCC {scores['ccc']:.3f}, {evaluation.rows}",
        )


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)
