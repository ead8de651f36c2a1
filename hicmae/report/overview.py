"""The head of the page: what run this is, how far it came, and its scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from hicmae.metrics import CATEGORICAL, DIMENSIONAL
from hicmae.report.history import course, last_value
from hicmae.report.markup import Cell, facts, joined, paragraph, table
from hicmae.report.material import Material
from hicmae.report.predictions import CHECKPOINTS, PARTS, about_of, checkpoint_title
from hicmae.report.run import NotAvailableError, Run
from hicmae.report.status import status_of
from hicmae.score_text import score_title, show, show_interval

_JOBS = {"pretrain": "pre-training", "finetune": "fine-tuning", "folds": "cross-validation"}
_FEW_GROUPS = 20


def make_overview(material: Material) -> Markup:
    """Status, facts, and a table of scores or losses."""
    run = material.run
    parts: list[Markup] = [facts(_facts(run))]
    if run.kind == "pretrain":
        parts.append(_losses(run))
    else:
        try:
            parts.append(_fold_scores(run) if run.kind == "folds" else _scores(run))
        except NotAvailableError as reason:
            parts.append(Markup('<p class="absent">No scores: {}.</p>').format(str(reason).rstrip(".")))
    return joined(parts)


def _facts(run: Run) -> list[tuple[str, Cell]]:
    try:
        status = status_of(run)
        said: Cell = Markup('<b class="status {0}">{0}</b> {1}').format(status.word, status.sentence)
    except NotAvailableError as reason:
        said = f"not known: {reason}"
    rows: list[tuple[str, Cell]] = [("job", _JOBS[run.kind]), ("status", said)]
    known = _known(run)
    rows += [(name, value) for name, value in known.items() if value not in (None, "")]
    return rows


def _known(run: Run) -> dict[str, Any]:
    try:
        record = run.record
    except NotAvailableError:
        record = {}
    try:
        provenance = run.provenance
    except NotAvailableError:
        provenance = {}
    both = record | provenance
    try:
        about = about_of(run)
    except NotAvailableError:
        about = {}
    data = both.get("data")
    named = about.get("data") or (data.get("name") if isinstance(data, Mapping) else None)
    steps = _one_of(last_value(run.history, "step"), both.get("steps"))
    planned = record.get("steps_planned")
    epoch = last_value(run.history, "epoch")
    return {
        "date": _minute(record.get("started")) or provenance.get("date"),
        "data": named,
        "test fold": about.get("test_fold"),
        "model": _model(run),
        "start": about.get("init") or (run.model.get("init") if run.kind == "finetune" else None),
        "modalities": " + ".join(about.get("modalities", [])),
        "steps": None if steps is None else f"{steps:.0f}" + (f" of {planned}" if planned else ""),
        "epochs": None if epoch is None else f"{epoch:.2f}",
        "device": _device(both),
        "hicmae": _one_of(both.get("hicmae"), None),
        "revision": both.get("revision"),
        "protocol": about.get("protocol"),
    }


def _model(run: Run) -> str:
    preset, architecture = run.model.get("preset"), run.model.get("architecture") or {}
    changed = ", ".join(f"{name} {value}" for name, value in architecture.items())
    return " with ".join(filter(None, [str(preset or ""), changed]))


def _device(both: Mapping[str, Any]) -> str | None:
    device, processes = both.get("device"), both.get("processes")
    if device is None:
        return None
    return f"{device}, {processes} process{'es' if processes != 1 else ''}, {both.get('precision', '')}".rstrip(", ")


def _minute(instant: str | None) -> str | None:
    """``2026-01-31T10:20:30+00:00`` without what nobody asks for."""
    return f"{instant[:10]} {instant[11:16]} UTC" if instant else None


def _one_of(first: Any, second: Any) -> Any:
    return second if first is None else first


def _losses(run: Run) -> Markup:
    rows = []
    names = [name for name in run.history.columns if name.startswith(("train/", "val/"))]
    for name in sorted(names, key=lambda name: (name.startswith("val/"), not name.endswith("/loss"), name)):
        steps, values = course(run.history, name)
        if values:
            least = min(range(len(values)), key=values.__getitem__)
            rows.append([name, f"{values[0]:.4f}", f"{values[-1]:.4f}", f"{values[least]:.4f}", f"{steps[least]:.0f}"])
    if not rows:
        return Markup('<p class="absent">No line was logged yet.</p>')
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
