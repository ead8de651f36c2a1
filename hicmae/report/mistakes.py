"""The most confident mistakes: what to look at first, in the model or in the labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
from markupsafe import Markup

from hicmae.report.markup import Cell, joined, paragraph, picture, table
from hicmae.report.material import Material
from hicmae.report.pictures import webp
from hicmae.report.run import NotAvailableError

_SHOWN = 12


def make_mistakes(material: Material) -> Markup:
    """Wrong clips by the probability of the class they were called; without classes, the largest errors."""
    shown = material.predictions
    worst = _by_class(shown.table, shown.classes) if shown.classes else _by_value(shown.table, shown.dimensions)
    if not len(worst):
        return paragraph(f"None of {len(shown.table)} clips is wrong ({shown.title}).")
    pictures = _pictures(material, worst["clip_id"].tolist())
    rows: list[list[Cell]] = []
    for row in worst.to_dict("records"):
        cells: list[Cell] = [pictures[row["clip_id"]]] if pictures else []
        rows.append([*cells, row["clip_id"], row["subject"] or "-", row["is"], row["called"], row["how"]])
    titles = ["true", "called", "probability (of the true class)" if shown.classes else "error"]
    header: list[Cell] = [*([""] if pictures else []), "clip", "speaker", *titles]
    wrong = (shown.table["label"] != shown.table["predicted"]).sum() if shown.classes else len(shown.table)
    what = f"of {wrong} wrong among {len(shown.table)} clips" if shown.classes else f"of {wrong} clips"
    note = f"The {len(worst)} most confident {what}: {shown.title}. A label can be wrong too."
    return joined([paragraph(note), table(header, rows, text_columns=len(header) - 1)])


def _by_class(predictions: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    wrong = predictions[predictions["label"] != predictions["predicted"]].copy()
    probabilities = wrong[[f"probability_{name}" for name in classes]].to_numpy()
    place = {name: i for i, name in enumerate(classes)}
    rows = np.arange(len(wrong))
    wrong["called_p"] = probabilities[rows, wrong["predicted"].map(place)] if len(wrong) else []
    true_p = probabilities[rows, wrong["label"].map(place)] if len(wrong) else []
    wrong["is"], wrong["called"] = wrong["label"], wrong["predicted"]
    wrong["how"] = [f"{a:.2f} ({b:.2f})" for a, b in zip(wrong["called_p"], true_p, strict=True)]
    return wrong.sort_values(["called_p", "clip_id"], ascending=[False, True]).head(_SHOWN)


def _by_value(predictions: pd.DataFrame, dimensions: tuple[str, ...]) -> pd.DataFrame:
    errors = np.stack(
        [(predictions[f"{name}_prediction"] - predictions[f"{name}_target"]).abs() for name in dimensions], axis=1
    )
    worst = predictions.copy()
    which = errors.argmax(axis=1)
    names = [dimensions[i] for i in which]
    worst["error"] = errors.max(axis=1)
    for kind, column in (("is", "target"), ("called", "prediction")):
        values = [row[f"{name}_{column}"] for (_, row), name in zip(predictions.iterrows(), names, strict=True)]
        worst[kind] = [f"{name} {value:.2f}" for name, value in zip(names, values, strict=True)]
    worst["how"] = [f"{value:.2f}" for value in worst["error"]]
    return worst.sort_values(["error", "clip_id"], ascending=[False, True]).head(_SHOWN)


def _pictures(material: Material, clip_ids: list[str]) -> dict[str, Markup]:
    """A frame of each clip; nothing where the data are gone, of which other sections tell."""
    try:
        found = material.frames_of(clip_ids)
    except NotAvailableError:
        return {}
    return {
        clip_id: picture(webp(found[clip_id]), "image/webp", alt=f"a frame of {clip_id}", style="thumb")
        if clip_id in found
        else Markup("")
        for clip_id in clip_ids
    }
