"""Predicted against true values of continuous targets."""

from __future__ import annotations

from markupsafe import Markup

from hicmae.metrics import dimensional_scores
from hicmae.report.markup import joined, table
from hicmae.report.material import Material
from hicmae.report.run import NotAvailableError
from hicmae.report.svg import scatter_panel


def make_dimensions(material: Material) -> Markup:
    """A panel and a row of scores for each dimension."""
    shown = material.predictions
    if not shown.dimensions:
        raise NotAvailableError("this run learns no continuous targets")
    panels, rows = [], []
    for name in shown.dimensions:
        true, guess = shown.table[f"{name}_target"], shown.table[f"{name}_prediction"]
        scores = dimensional_scores(true, guess)
        panels.append(scatter_panel(name, true.tolist(), guess.tolist(), shown.table["clip_id"].tolist()))
        rows.append([name, *(f"{getattr(scores, score):.4f}" for score in ("ccc", "pcc", "mae", "rmse"))])
    return joined(
        [
            Markup('<div class="panels">{}</div>').format(joined(panels)),
            table(["dimension", "CCC", "PCC", "MAE", "RMSE"], rows),
        ]
    )
