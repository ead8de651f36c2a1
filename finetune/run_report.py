"""The page that a run writes about its own scores: ``report.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.protocol import labelled
from finetune.selection import selection_sentence
from finetune.tables import headline_scores, markdown_table, published_lines, score_title, show, show_interval
from hicmae.benchmarks import card as card_of

_FEW_GROUPS = 20

_CHECKPOINTS = {"best": "best on validation", "last": "last epoch", "tested": "tested checkpoint"}
_BEST_BY_PAPER = "best epoch"  # on what it was chosen, the label beside it says


def run_report(content: Mapping[str, Any], part: str, selection: Mapping[str, Any] | None = None) -> str:
    """Markdown for the content of ``metrics.json``, and of ``selection.json`` where there is one; scores are those of
    one part, test or val."""
    about = content["about"]
    card = card_of(about["benchmark"]) if about["benchmark"] else None
    label = about["protocol"]
    checkpoints = {name: content[name] for name in _CHECKPOINTS if name in content}
    first = next(iter(checkpoints.values()))[part]
    names = headline_scores(first, card)
    fold = f", fold {about['test_fold']}" if about["test_fold"] is not None else ""
    header = ["score"]
    for name in checkpoints:
        header += [labelled(f"{part}, {checkpoint_title(name, label)}", label), "95% interval"]
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
        *([labels_sentence(about) + _protocol_sentence(about), ""] if "validation" in about else []),
        *markdown_table(header, rows),
        *absent_lines([("", first)], about),
    ]
    if intervals:
        lines += ["", interval_sentence(intervals)]
    if selection is not None:
        lines += ["", selection_sentence(selection)]
    published = published_lines(card, labels_of(about), names, paper=bool(label), modalities=about["modalities"])
    if published and fold:
        published += ["", f"They are of all folds, and this page of{fold.removeprefix(',')} alone."]
    lines += published
    return "\n".join(lines) + "\n"


def checkpoint_title(name: str, label: str) -> str:
    """What a checkpoint of ``metrics.json`` is, in words."""
    return _BEST_BY_PAPER if name == "best" and label else _CHECKPOINTS[name]


def absent_lines(parts: Sequence[tuple[str, Mapping[str, Any]]], about: Mapping[str, Any]) -> list[str]:
    """A paragraph on what is not behind the scores: classes without clips, clips that were left out.

    Args:
        parts: scores of the parts of the page as in ``metrics.json``, each with a word to name it by.
    """
    said = [
        f"{where + ' has no' if where else 'No'} clip of {', '.join(absent)}: means over classes are over the others."
        for where, scores in parts
        if (absent := scores.get("classes_without_clips"))
    ]
    for column, counts in (about["other_classes_left_out"] or {}).items():
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        said.append(f"Clips of other classes of {column} were left out: {listed}.")
    return ["", " ".join(said)] if said else []


def labels_sentence(about: Mapping[str, Any]) -> str:
    """How many labels were kept, where ``label_fraction`` left some out."""
    if about.get("label_fraction", 1) == 1:
        return ""
    kept, all_of_them = about["splits"]["train"]["clips"], about["labelled_clips"]
    return f"Trained with {kept} of {all_of_them} labels (label_fraction {about['label_fraction']:g}). "


def _protocol_sentence(about: Mapping[str, Any]) -> str:
    if about["protocol"]:
        return f"**{about['protocol'][0].upper()}{about['protocol'][1:]}.**"
    return f"Validation: {about['validation']}. The best epoch is chosen on it, by {about['selected_on']}."


def model_sentence(about: Mapping[str, Any]) -> str:
    """What the model was given, and what it started from."""
    withheld = about.get("test_without")
    without = f", of which the test withheld {withheld}" if withheld else ""
    teacher = about.get("teacher")
    taught = f" Taught by {teacher}, weight {about['distillation']['weight']:g}." if teacher else ""
    return f"Modalities: {' + '.join(about['modalities'])}{without}. Start: {about['init']}.{taught}"


def interval_sentence(intervals: Mapping[str, Any]) -> str:
    """What the intervals are, with a warning where they are of few speakers."""
    text = (
        f"Intervals: {intervals['method']} over the {intervals['groups']} {intervals['over']} of the test, "
        f"{intervals['resamples']} resamples. They speak of the choice of test {intervals['over']} alone, and not of "
        "another seed."
    )
    if intervals["groups"] < _FEW_GROUPS:
        text += f" With {intervals['groups']} {intervals['over']} they are too narrow."
    return text


def labels_of(about: Mapping[str, Any]) -> dict[str, object]:
    """Label columns that a run learns."""
    return dict.fromkeys([*about["columns"], *about["dimensions"]])
