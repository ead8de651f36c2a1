"""Scores with their intervals, of a fine-tuning or of folds; losses of a pre-training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from hicmae.metrics import CATEGORICAL, DIMENSIONAL
from hicmae.report.history import course
from hicmae.report.markup import Cell, joined, paragraph, table
from hicmae.report.material import Material
from hicmae.report.predictions import CHECKPOINTS, PARTS, about_of, checkpoint_title
from hicmae.report.run import NotAvailableError, Run
from hicmae.score_text import score_title, show, show_interval

_FEW_GROUPS = 20


def make_scores(material: Material) -> Markup:
    """A column a checkpoint and part, with the protocol's label; of folds a row each."""
    return _fold_scores(material.run) if material.run.kind == "folds" else _scores(material.run)


def make_losses(material: Material) -> Markup:
    """The first, last and lowest that were logged."""
    return _losses(material.run)


def _losses(run: Run) -> Markup:
    rows = []
    names = [name for name in run.history.columns if name.startswith(("train/", "val/"))]
    for name in sorted(names, key=lambda name: (name.startswith("val/"), not name.endswith("/loss"), name)):
        steps, values = course(run.history, name)
        if values:
            least = min(range(len(values)), key=values.__getitem__)
            rows.append([name, f"{values[0]:.4f}", f"{values[-1]:.4f}", f"{values[least]:.4f}", f"{steps[least]:.0f}"])
    if not rows:
        raise NotAvailableError("no line was logged yet (logs/version_N/metrics.csv)")
    return table(["loss", "first logged", "last logged", "lowest", "at step"], rows)


def _scores(run: Run) -> Markup:
    about, metrics = about_of(run), run.metrics
    label = about.get("protocol") or ""
    columns = [
        (f"{part}, {checkpoint_title(name, label)}", metrics[name][part])
        for part in PARTS
        for name in CHECKPOINTS
        if isinstance(metrics.get(name), dict) and isinstance(metrics[name].get(part), dict)
    ]
    if not columns:
        raise NotAvailableError("metrics.json holds no scores of a checkpoint")
    header: list[Cell] = ["score"]
    for title, scores in columns:
        header += [title, "95% interval"] if "intervals" in scores else [title]
    rows: list[list[Cell]] = []
    for name in headline_scores(columns[0][1]):
        row: list[Cell] = [score_title(name)]
        for _, scores in columns:
            row.append(show(name, scores.get(name)))
            if "intervals" in scores:
                row.append(show_interval(name, scores["intervals"].get(name)))
        rows.append(row)
    said = [Markup('<p class="warn"><b>{}.</b></p>').format(label[0].upper() + label[1:])] if label else []
    return joined([*said, table(header, rows), *_about_intervals(columns[0][1].get("intervals"))])


def _fold_scores(run: Run) -> Markup:
    metrics = run.metrics
    about = about_of(run)
    label = about.get("protocol") or ""
    folds = metrics.get("folds", {})
    parts: list[Markup] = [paragraph(f"{label[0].upper()}{label[1:]}.", "warn")] if label else []
    for name, pooled in metrics.get("pooled", {}).items():
        names = headline_scores(pooled)
        header: list[Cell] = [f"test, {checkpoint_title(name, label)}", *map(score_title, names)]
        rows: list[list[Cell]] = [
            [f"fold {fold}", *(show(score, one[name].get(score)) for score in names)] for fold, one in folds.items()
        ]
        rows.append(["mean of folds", *(show(score, metrics["mean"][name].get(score)) for score in names)])
        rows.append(["standard deviation", *(show(score, metrics["sd"][name].get(score)) for score in names)])
        rows.append(["all clips together", *(show(score, pooled.get(score)) for score in names)])
        bounds = pooled.get("intervals", {})
        rows.append(["its 95% interval", *(show_interval(score, bounds.get(score)) for score in names)])
        parts += [table(header, rows), *_about_intervals(bounds)]
    return joined(parts)


def headline_scores(scores: Mapping[str, Any]) -> list[str]:
    """Scores that are shown: classes', then of several dimensions each, and not their mean."""
    means = [n for n in DIMENSIONAL if any(other.startswith(f"{n}_") for other in scores)]
    dimensional = [n for n in scores if n.split("_")[0] in DIMENSIONAL and n not in means]
    return [*(n for n in CATEGORICAL if n in scores), *dimensional]


def _about_intervals(intervals: Mapping[str, Any] | None) -> list[Markup]:
    if not intervals:
        return []
    text = (
        f"Intervals: {intervals.get('method')} over {intervals.get('groups')} {intervals.get('over')} of the test, "
        f"{intervals.get('resamples')} resamples; they speak of the choice of test {intervals.get('over')} alone."
    )
    if int(intervals.get("groups") or 0) < _FEW_GROUPS:
        text += f" With {intervals.get('groups')} they are too narrow."
    return [paragraph(text, "note")]
