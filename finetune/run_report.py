"""The page that a run writes about its own scores: ``report.md``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.protocol import labelled
from finetune.tables import headline_scores, markdown_table, published_lines, score_title, show, show_interval
from hicmae.benchmarks import card as card_of

_FEW_GROUPS = 20

CHECKPOINTS = {"best": "best on validation", "last": "last epoch", "tested": "tested checkpoint"}


def run_report(content: Mapping[str, Any], part: str) -> str:
    """Markdown for the content of ``metrics.json``; scores are those of one part, test or val."""
    about = content["about"]
    card = card_of(about["benchmark"]) if about["benchmark"] else None
    checkpoints = {name: content[name] for name in CHECKPOINTS if name in content}
    first = next(iter(checkpoints.values()))[part]
    names = headline_scores(first, card)
    fold = f", fold {about['test_fold']}" if about["test_fold"] is not None else ""
    header = ["score"]
    for name in checkpoints:
        header += [labelled(f"{part}, {CHECKPOINTS[name]}", about["protocol"]), "95% interval"]
    rows = []
    for name in names:
        row = [score_title(name)]
        for checkpoint in checkpoints.values():
            scores = checkpoint[part]
            row += [show(name, scores[name]), show_interval(name, scores.get("intervals", {}).get(name))]
        rows.append(row)
    intervals = first.get("intervals")
    lines = [
        f"# {card.title if card else about['data']}{fold}",
        "",
        f"Data: {about['data']}{fold}. {model_sentence(about)} "
        f"{first['clips']} clips in this part, {first['clips_not_decoded']} of them not decoded and not scored.",
        "",
        *markdown_table(header, rows),
    ]
    if intervals:
        lines += ["", interval_sentence(intervals)]
    lines += published_lines(card, labels_of(about), names, paper=bool(about["protocol"]))
    return "\n".join(lines) + "\n"


def model_sentence(about: Mapping[str, Any]) -> str:
    """What the model was given, and what it started from."""
    withheld = about.get("test_without")
    without = f", of which the test withheld {withheld}" if withheld else ""
    return f"Modalities: {' + '.join(about['modalities'])}{without}. Start: {about['init']}."


def interval_sentence(intervals: Mapping[str, Any]) -> str:
    """What the intervals are, with a warning where they are of few speakers."""
    text = (
        f"Intervals: {intervals['method']} over the {intervals['groups']} {intervals['over']} of the test, "
        f"{intervals['resamples']} resamples. They speak of the choice of test clips alone, and not of another seed."
    )
    if intervals["groups"] < _FEW_GROUPS:
        text += f" With {intervals['groups']} {intervals['over']} they are too narrow."
    return text


def labels_of(about: Mapping[str, Any]) -> dict[str, object]:
    """Label columns that a run learns."""
    return dict.fromkeys([*about["columns"], *about["dimensions"]])
