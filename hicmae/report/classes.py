"""How classes are told apart: the confusion matrix, and precision, recall and F1 of each."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from hicmae.metrics import confusion_matrix, confusion_scores
from hicmae.report.markup import joined, paragraph, table
from hicmae.report.material import Material
from hicmae.report.predictions import ShownPredictions
from hicmae.report.run import NotAvailableError


def make_classes(material: Material) -> Markup:
    """Of the predictions shown; shares of the true class as shades, with counts."""
    shown = material.predictions
    if not shown.classes:
        raise NotAvailableError("this run learns no classes")
    counts = confusion_of(shown)
    both = Markup('<div class="beside">{}{}</div>').format(
        _matrix(counts, shown.classes), _table(counts, shown.classes)
    )
    note = "Shades and percent: share of the true class; below, clips."
    return joined([_said(shown), both, paragraph(note, "note")])


def confusion_of(shown: ShownPredictions) -> NDArray[np.int64]:
    """Counts, int (C, C): rows are the true classes."""
    number = {name: place for place, name in enumerate(shown.classes)}
    true, guess = (shown.table[column].map(number) for column in ("label", "predicted"))
    if true.isna().any() or guess.isna().any():
        raise NotAvailableError("the predictions hold classes that the run's scores do not name")
    return confusion_matrix(true, guess, len(shown.classes))


def _said(shown: ShownPredictions) -> Markup:
    label = Markup(' <b class="warned">[{}]</b>').format(shown.label) if shown.label else ""
    return Markup("<p>{} predictions: {}.{}</p>").format(len(shown.table), shown.title, label)


def _matrix(counts: NDArray[np.int64], classes: tuple[str, ...]) -> Markup:
    support = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = counts / support
    head = joined(Markup('<th class="turned"><span>{}</span></th>').format(name) for name in classes)
    rows = []
    for place, name in enumerate(classes):
        cells = joined(
            Markup('<td class="{}" style="--share:{:.3f}" title="{} of {} {} called {}">{:.0%}<small>{}</small></td>')
            .format(
                "deep" if share > 0.55 else "" if count else "none",
                share, count, counts[place].sum(), name, other, share, count,
            )
            for share, count, other in zip(shares[place], counts[place], classes, strict=True)
        )  # fmt: skip
        rows.append(Markup("<tr><th>{} <small>{}</small></th>{}</tr>").format(name, counts[place].sum(), cells))
    return Markup(
        '<div class="wide"><table class="confusion"><thead><tr><th>true \\ predicted</th>{}</tr></thead>'
        "<tbody>{}</tbody></table></div>"
    ).format(head, joined(rows))


def _table(counts: NDArray[np.int64], classes: tuple[str, ...]) -> Markup:
    scores = confusion_scores(counts)
    called, right = counts.sum(axis=0), counts.diagonal()
    rows = [
        [
            name,
            percent(right[i] / called[i]) if called[i] else "-",
            percent(scores["recall"][i]),
            percent(scores["f1"][i]),
            str(counts[i].sum()),
            str(called[i]),
        ]
        for i, name in enumerate(classes)
    ]
    return table(["class", "precision (%)", "recall (%)", "F1 (%)", "clips", "called so"], rows)


def percent(share: float) -> str:
    """A share as percent; what is not defined as a dash."""
    return "-" if np.isnan(share) else f"{100 * share:.1f}"
