"""The most confident mistakes: what to look at first, in the model or in the labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
from markupsafe import Markup

from hicmae.report.markup import joined, paragraph, picture
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
    cards = (
        Markup('<figure class="panel">{}<div><figcaption>{} <small>{}</small></figcaption>true <b>{}</b>, called '
               "<b>{}</b><br><small>{}</small></div></figure>").format(
            pictures.get(row["clip_id"], ""), row["clip_id"], row["subject"], row["is"], row["called"], row["how"]
        )
        for row in worst.to_dict("records")
    )  # fmt: skip
    wrong = (shown.table["label"] != shown.table["predicted"]).sum() if shown.classes else len(shown.table)
    what = f"of {wrong} wrong among {len(shown.table)} clips" if shown.classes else f"of {wrong} clips"
    note = f"The {len(worst)} most confident {what}: {shown.title}. A label can be wrong too."
    return joined([paragraph(note), Markup('<div class="panels cards">{}</div>').format(joined(cards))])


def _by_class(predictions: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    wrong = predictions[predictions["label"] != predictions["predicted"]].copy()
    if not len(wrong):
        return wrong
    probabilities = wrong[[f"probability_{name}" for name in classes]].to_numpy()
    place = {name: i for i, name in enumerate(classes)}
    rows = np.arange(len(wrong))
    wrong["called_p"] = probabilities[rows, wrong["predicted"].map(place)]
    true_p = probabilities[rows, wrong["label"].map(place)]
    wrong["is"], wrong["called"] = wrong["label"], wrong["predicted"]
    pairs = zip(wrong["called_p"], true_p, strict=True)
    wrong["how"] = [f"probability {called:.2f}, of the true class {true:.2f}" for called, true in pairs]
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
    worst["how"] = [f"error {value:.2f}" for value in worst["error"]]
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
