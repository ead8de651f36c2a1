"""The page and the figures of a cross-validation: ``report.md``, ``figures/``, from what ``folds.json`` holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from finetune.protocol import labelled
from finetune.run_report import absent_lines, checkpoint_title, interval_sentence, labels_of, model_sentence
from finetune.tables import headline_scores, markdown_table, published_lines, score_title, show, show_interval
from hicmae.benchmarks import card as card_of
from hicmae.benchmarks.card import Card
from hicmae.figures.confusion import draw_confusion
from hicmae.figures.folds import draw_folds


def fold_report(results: Mapping[str, Any]) -> str:
    """Markdown for the content of ``folds.json``."""
    about, folds = results["about"], results["folds"]
    card = _card(results)
    names = _names(results, card)
    label = about["protocol"]
    lines = [
        f"# {card.title if card else about['data']}: {about['folds']} folds",
        "",
        f"Data: {about['data']}. {model_sentence(about)} Seed {about['seed']}.",
        "",
        _protocol_sentence(results),
        *_missing_lines(results),
        "",
        "## Folds",
        "",
        labelled(_fold_sentence(results), label),
        "",
        *_fold_table(results, names),
        *absent_lines([(f"Fold {fold}", next(_checkpoints(results, one))) for fold, one in folds.items()], about),
        "",
        "## All folds",
        "",
    ]
    for checkpoint, pooled in results["pooled"].items():
        header = [
            labelled(checkpoint_title(checkpoint, label), label),
            f"mean of {len(folds)} folds",
            "standard deviation",
            "all test clips together",
            f"its {pooled['intervals']['level']:.0%} interval",
        ]
        rows = [
            [
                score_title(name),
                show(name, results["mean"][checkpoint][name]),
                show(name, results["sd"][checkpoint][name]),
                show(name, pooled[name]),
                show_interval(name, pooled["intervals"][name]),
            ]
            for name in names
        ]
        lines += [*markdown_table(header, rows), ""]
    pooled = next(iter(results["pooled"].values()))
    lines += [
        "The standard deviation is the sample's (n - 1) over folds: it mixes how folds differ with how models do, and "
        f"is no error of the mean. All test clips together are {pooled['predictions']} predictions"
        + (f" of {pooled['subjects']} speakers" if pooled["subjects"] else "")
        + ", each by the model that was not trained on its fold; scores of them taken together, correlations above "
        "all, are other numbers than the means over folds, which papers usually give.",
        "",
        interval_sentence(pooled["intervals"]),
        "",
        "![Scores of the folds](figures/folds.png)",
    ]
    if "confusion" in pooled:
        lines += ["", f"![Confusion matrix of all folds](figures/confusion_{next(iter(results['pooled']))}.png)"]
    lines += published_lines(card, labels_of(about), names, paper=bool(label), modalities=about["modalities"])
    return "\n".join(lines) + "\n"


def draw_fold_figures(results: Mapping[str, Any], folder: Path) -> None:
    """Write ``folds.png`` and, with classes, ``confusion_CHECKPOINT.png`` of all folds together into ``folder``."""
    about, folds = results["about"], results["folds"]
    label = about["protocol"]
    scores = {
        score_title(name): {
            checkpoint_title(checkpoint, label): [_drawn(name, one[checkpoint][name]) for one in folds.values()]
            for checkpoint in results["pooled"]
        }
        for name in _names(results, _card(results))
    }
    hole = "" if results["complete"] else f", {len(results['missing'])} of {about['folds']} folds missing"
    draw_folds(scores, list(folds), folder / "folds.png", title=labelled(f"test scores{hole}", label))
    for checkpoint, pooled in results["pooled"].items():
        if "confusion" in pooled:
            title = f"{label}\n" if label else ""
            title += f"{checkpoint_title(checkpoint, label)}, {len(folds)} folds{hole}: UAR {pooled['uar']:.1%}, "
            title += f"WAR {pooled['war']:.1%}, {pooled['predictions']} predictions"
            draw_confusion(
                np.array(pooled["confusion"]), about["classes"], folder / f"confusion_{checkpoint}.png", title=title
            )


def _checkpoints(results: Mapping[str, Any], fold: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (fold[checkpoint] for checkpoint in results["pooled"])


def _fold_sentence(results: Mapping[str, Any]) -> str:
    titles = [checkpoint_title(name, results["about"]["protocol"]) for name in results["pooled"]]
    return f"Test scores of each fold: {titles[0]}" + (f" ({titles[1]})." if len(titles) > 1 else ".")


def _card(results: Mapping[str, Any]) -> Card | None:
    name = results["about"]["benchmark"]
    return card_of(name) if name else None


def _names(results: Mapping[str, Any], card: Card | None) -> list[str]:
    return headline_scores(next(iter(results["mean"].values())), card)


def _drawn(name: str, value: float | None) -> float | None:
    return None if value is None else float(show(name, value))


def _protocol_sentence(results: Mapping[str, Any]) -> str:
    label = results["about"]["protocol"]
    if label:
        return (
            f"**{label[0].upper()}{label[1:]}.** Training saw all other folds. Scores of the best epoch are higher "
            "than those to be expected of new people; the last epoch's were not chosen."
        )
    validation = sorted({one["validation"] for one in results["folds"].values()})
    return (
        f"Each fold is the test once; validation is {' or '.join(validation)}, and the best epoch was chosen on it. "
        "The test fold was touched once, after training."
    )


def _missing_lines(results: Mapping[str, Any]) -> list[str]:
    if results["complete"]:
        return []
    about = results["about"]
    missing = [f"- fold {fold}: {why}" for fold, why in results["missing"].items()]
    return [
        "",
        f"**Incomplete: {len(missing)} of {about['folds']} folds are missing.** What follows is of the others alone "
        "and is no result of the whole corpus.",
        "",
        *missing,
    ]


def _fold_table(results: Mapping[str, Any], names: list[str]) -> list[str]:
    both = list(results["pooled"])
    rows = []
    for fold in sorted([*results["folds"], *results["missing"]], key=int):
        one = results["folds"].get(fold)
        if one is None:
            rows.append([fold, "missing", "", "", *("-" for _ in names)])
            continue
        test = one["splits"]["test"]
        shown = [
            show(name, one[both[0]][name]) + (f" ({show(name, one[both[1]][name])})" if len(both) > 1 else "")
            for name in names
        ]
        lost = str(one[both[0]]["clips_not_decoded"])
        rows.append([fold, str(test["clips"]), lost, str(test["subjects"] or "-"), *shown])
    return markdown_table(["fold", "test clips", "not decoded", "speakers", *map(score_title, names)], rows)
