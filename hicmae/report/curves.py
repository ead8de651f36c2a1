"""Curves over steps: losses, scores of validation, learning rate, throughput."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from markupsafe import Markup

from hicmae.report.history import course
from hicmae.report.markup import joined, paragraph
from hicmae.report.material import Material
from hicmae.report.run import NotAvailableError
from hicmae.report.svg import Line, line_panel
from hicmae.score_text import score_title

_VALIDATION = ("val/", "paper_protocol_val/")
_DRIVING = {
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "clips_per_s": "clips/s",
    "data_wait_percent": "waiting for data (%)",
    "queue_depth": "batches ready",
    "skipped_clips": "skipped clips",
}
_SCORES = ("uar", "war", "macro_f1", "ccc", "mae")


def make_curves(material: Material) -> Markup:
    """A panel each; training and validation of the same loss share one."""
    history = material.run.history
    panels = []
    losses = [name for name in history.columns if name.startswith("train/")]
    for name in sorted(losses, key=lambda name: (name != "train/loss", name)):
        short = name.removeprefix("train/")
        lines = [_line(history, name, "training")]
        if (held_out := _validation_of(history.columns, short)) is not None:
            lines.append(_line(history, held_out, "validation", marked=True))
        panels += _panel(short.replace("_", " "), lines)
    for prefix in _VALIDATION:
        names = [f"{prefix}{score}" for score in _SCORES if f"{prefix}{score}" in history.columns]
        names += [n for n in history.columns if n.startswith(f"{prefix}ccc_")]
        for name in names:
            title = f"{'paper protocol ' if prefix != 'val/' else ''}validation {_plain(name.removeprefix(prefix))}"
            panels += _panel(title, [_line(history, name, marked=True)])
    for name, title in _DRIVING.items():
        panels += _panel(title, [_line(history, name)], from_zero=True)
    if not panels:
        raise NotAvailableError("no line was logged yet (logs/version_N/metrics.csv)")
    note = "Means over the steps and processes since the line before. A pointer over a curve shows its values."
    return joined([Markup('<div class="panels">{}</div>').format(joined(panels)), paragraph(note, "note")])


def _panel(title: str, lines: list[Line], *, from_zero: bool = False) -> list[Markup]:
    there = [line for line in lines if len(line.xs)]
    return [line_panel(title, there, from_zero=from_zero)] if there else []


def _line(history: pd.DataFrame, column: str, name: str = "", *, marked: bool = False) -> Line:
    steps, values = course(history, column)
    return Line(name=name or column, xs=steps, ys=values, marked=marked)


def _validation_of(columns: Iterable[str], short: str) -> str | None:
    names = [f"{prefix}{short}" for prefix in _VALIDATION]
    return next((name for name in names if name in set(columns)), None)


def _plain(score: str) -> str:
    return score_title(score).removesuffix(" (%)")
