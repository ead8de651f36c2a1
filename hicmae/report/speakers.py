"""Scores by speaker: how much a mean over clips hides."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from hicmae.metrics import dimensional_scores
from hicmae.report.classes import percent
from hicmae.report.markup import Cell, folded, joined, paragraph, table
from hicmae.report.material import Material
from hicmae.report.run import NotAvailableError
from hicmae.report.svg import strip_panel

_FOLDED_FROM = 40
_FEW_CLIPS = 3  # a correlation of fewer means nothing


def make_speakers(material: Material) -> Markup:
    """A dot a speaker for each score, and a table, the lowest first."""
    shown = material.predictions
    named = shown.table[shown.table["subject"] != ""]
    if named["subject"].nunique() < 2:
        raise NotAvailableError("the predictions name fewer than two speakers")
    rows: list[tuple[float, list[Cell]]] = []
    marks: dict[str, list[tuple[float, str]]] = {}
    for subject, clips in named.groupby("subject", sort=True):
        cells: list[Cell] = [str(subject), str(len(clips))]
        order = np.nan
        if shown.classes:
            right = float((clips["label"] == clips["predicted"]).mean())
            recalls = [(part["label"] == part["predicted"]).mean() for _, part in clips.groupby("label")]
            cells += [percent(right), percent(float(np.mean(recalls)))]
            marks.setdefault("share of clips that are right", []).append((right, str(subject)))
            order = right
        for name in shown.dimensions:
            value = np.nan
            if len(clips) >= _FEW_CLIPS:
                value = dimensional_scores(clips[f"{name}_target"], clips[f"{name}_prediction"]).ccc
            cells.append("-" if np.isnan(value) else f"{value:.3f}")
            if not np.isnan(value):
                marks.setdefault(f"CCC {name}", []).append((value, str(subject)))
            order = value if np.isnan(order) else order
        rows.append((np.inf if np.isnan(order) else order, cells))
    header = ["speaker", "clips", *(["WAR (%)", "UAR (%)"] if shown.classes else [])]
    header += [f"CCC {name}" for name in shown.dimensions]
    panels = [
        strip_panel(
            f"{title}, {len(values)} speakers", *map(list, zip(*values, strict=True)),
            low=min(0.0, min(value for value, _ in values)), high=1.0,
        )
        for title, values in marks.items()
    ]  # fmt: skip
    listed = table(header, [cells for _, cells in sorted(rows, key=lambda row: (row[0], str(row[1][0])))])
    note = "UAR of a speaker is over the classes that the speaker has. The bar is the mean of the speakers."
    return joined(
        [
            Markup('<div class="beside">{}<div class="stack">{}</div></div>').format(
                folded(f"All {len(rows)} speakers", listed) if len(rows) > _FOLDED_FROM else listed, joined(panels)
            ),
            paragraph(f"{shown.title[0].upper()}{shown.title[1:]}. {note}", "note"),
        ]
    )
