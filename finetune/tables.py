"""Scores as tables, and the published results they are held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from finetune.evaluation import is_score
from finetune.protocol import PAPER_PROTOCOL
from hicmae.benchmarks.card import Card
from hicmae.data.labels import LabelSpec
from hicmae.score_text import score_title, show, show_interval

__all__ = [
    "check_benchmark", "headline_scores", "markdown_table", "published_lines", "score_title", "show", "show_interval",
]  # fmt: skip

_ERRORS = ("mae", "rmse")  # in units of the target; shown where a card asks for them
_COST_OF_CHOOSING = (
    "Choosing the epoch on the test fold alone is worth points: 2.7 on MAFW and 3.0 on MSP-IMPROV in the published "
    "logs of a successor of HiCMAE."
)

_OURS = {
    True: f"This run follows the {PAPER_PROTOCOL}, as in the authors' code: its best-epoch scores may be held "
    "against results that were chosen in the same way, and against no others.",
    False: "This run chose its best epoch on clips held out of the training part and touched the test clips once, at "
    "the end: it may be held against results that were chosen in the same way. A result that was chosen on the test "
    "fold is higher at the same quality; to compare with it, run again with data.paper_protocol=true.",
}


def headline_scores(found: Iterable[str], card: Card | None) -> list[str]:
    """Which of the scores found are shown, in order: the card's first, then the others; of several dimensions each, and
    not their mean."""
    there = list(found)
    first = [name for name in (card.metrics if card is not None else ()) if name in there]
    means = [name for name in there if any(other.startswith(f"{name}_") for other in there)]
    others = [name for name in there if is_score(name) and not name.startswith(_ERRORS) and name not in means]
    return list(dict.fromkeys([*first, *others]))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def published_lines(
    card: Card | None, labels: Mapping[str, object], scores: Sequence[str], *, paper: bool, modalities: Sequence[str]
) -> list[str]:
    """The section of a report that says what others have published, and how it may be compared; empty without a card.

    Args:
        card: of the benchmark.
        labels: columns that are learnt; results of other tasks are left out.
        scores: those that the report shows.
        paper: whether the best epoch of this run was chosen on the test clips.
        modalities: of this run; results of others come last, and are said to be no comparison.
    """
    if card is None:
        return []
    results = [one for one in card.published if not one.column or one.column in labels]
    shown = [name for name in scores if any(name in one.scores for one in results)]
    lines = ["", f"## Published results on {card.title}", ""]
    if not results:
        return [*lines, "The card of this benchmark names none."]
    results.sort(key=lambda one: set(one.modalities) != set(modalities))  # stable: the card's order otherwise
    lines += markdown_table(
        ["method", "modalities", *map(score_title, shown), "source", "how the checkpoint was chosen"],
        (
            [
                one.method,
                " + ".join(one.modalities),
                *(show(n, one.scores.get(n)) for n in shown),
                one.source,
                one.protocol,
            ]
            for one in results
        ),
    )
    others = any(set(one.modalities) != set(modalities) for one in results)
    own = f" Only results of {' + '.join(modalities)} are of the same input as this run's." if others else ""
    return [*lines, "", f"None of these was measured here.{own} {_OURS[paper]} {_COST_OF_CHOOSING}"]


def check_benchmark(card: Card, labels: LabelSpec) -> None:
    """Refuse to learn something else than the benchmark's task.

    Raises:
        ValueError: names both lists of classes, or both ranges, or the columns there are.
    """
    for kind, ours, theirs in (
        ("classes", labels.classes, card.labels.classes),
        ("dimensions", labels.dimensions, card.labels.dimensions),
    ):
        for column, values in ours.items():
            if column not in theirs:
                there = ", ".join(map(repr, theirs)) or "none"
                raise ValueError(
                    f"benchmark {card.name} has no {kind} {column!r}; its {kind} are {there}. Choose among them in "
                    "model.labels, or leave benchmark out"
                )
            if list(values) != list(theirs[column]):
                raise ValueError(
                    f"benchmark {card.name} has the {kind} {list(theirs[column])} of {column}, in this order, but "
                    f"model.labels names {list(values)}; give the same list in the same order, or leave benchmark out"
                )
