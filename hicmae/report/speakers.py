"""Scores by speaker: how much a mean over clips hides."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from hicmae.report.classes import percent
from hicmae.report.markup import Cell, folded, joined, paragraph, table
from hicmae.report.material import Material
from hicmae.report.run import NotAvailableError
from hicmae.report.svg import strip_panel
from hicmae.speaker_scores import speaker_scores

_FOLDED_FROM = 40


def make_speakers(material: Material) -> Markup:
    """A dot a speaker for each score, and a table, the lowest first."""
    shown = material.predictions
    scores = speaker_scores(shown.table, shown.classes, shown.dimensions)
    if len(scores) < 2:
        raise NotAvailableError("the predictions name fewer than two speakers")
    of_dimensions = {f"ccc_{name}": f"CCC {name}" for name in shown.dimensions}
    marked = ({"war": "share of clips that are right"} if shown.classes else {}) | of_dimensions
    rows: list[tuple[float, list[Cell]]] = []
    marks: dict[str, list[tuple[float, str]]] = {}
    for row in scores.to_dict("records"):
        cells: list[Cell] = [row["subject"], str(row["clips"])]
        cells += [percent(row["war"]), percent(row["uar"])] if shown.classes else []
        cells += ["-" if np.isnan(row[name]) else f"{row[name]:.3f}" for name in of_dimensions]
        defined = [(row[name], title) for name, title in marked.items() if not np.isnan(row[name])]
        for value, title in defined:
            marks.setdefault(title, []).append((value, row["subject"]))
        rows.append((defined[0][0] if defined else np.inf, cells))
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
