"""The head of the page: what run this is, and how far it came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from hicmae.report.history import last_value
from hicmae.report.markup import Cell, facts
from hicmae.report.material import Material
from hicmae.report.predictions import about_of
from hicmae.report.run import NotAvailableError, Run
from hicmae.report.status import status_of

_JOBS = {"pretrain": "pre-training", "finetune": "fine-tuning", "folds": "cross-validation"}


def make_overview(material: Material) -> Markup:
    """Facts about the run."""
    return facts(_facts(material.run))


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
