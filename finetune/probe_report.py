"""What a probe leaves: ``probe.json``, ``probe.md`` and ``predictions.parquet``."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from finetune.evaluation import Evaluation
from finetune.protocol import labelled
from finetune.run_report import labels_sentence
from finetune.tables import headline_scores, markdown_table, score_title, show
from hicmae.benchmarks.card import Card
from hicmae.data.splits import TEST, VAL
from hicmae.probing import Method

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """A method on a feature."""

    feature: str
    width: int
    task: str
    """The label column of classes, or the names of the dimensions."""
    method: Method
    setting: str
    """What validation chose."""
    evaluations: dict[str, Evaluation]
    """By split: val, test."""


def write_probe(out: Path, rows: Sequence[ProbeRow], about: dict[str, Any], benchmark: Card | None = None) -> None:
    """Write ``probe.json`` (scores), ``probe.md`` (a table for each task) and ``predictions.parquet`` (clips)."""
    out.mkdir(parents=True, exist_ok=True)
    protocol = {"protocol": about["label"]} if about["label"] else {}
    content = [
        {"feature": r.feature, "width": r.width, "task": r.task, "method": r.method, "setting": r.setting}
        | {part: protocol | evaluation.to_dict() for part, evaluation in r.evaluations.items()}
        for r in rows
    ]
    text = json.dumps({"about": about, "rows": content}, indent=2, allow_nan=False) + "\n"
    lines = [
        labelled("# Frozen features", about["label"]),
        "",
        f"Backbone: {about['init']}, not trained. Clips: {about['data']}. {labels_sentence(about)}"
        "Neighbours (knn: by cosine) and penalty (linear: logistic or ridge regression on "
        "standardised features) were chosen on validation, "
        f"{about['validation']}.",
    ]
    if about["test_without"]:
        lines += ["", f"{about['test_without']} was withheld from all clips of the test."]
    for task in dict.fromkeys(row.task for row in rows):
        own = [row for row in rows if row.task == task]
        part = TEST if TEST in own[0].evaluations else VAL
        scores = headline_scores(own[0].evaluations[part].scalars, benchmark)
        main = scores[0]
        lines += ["", f"## {task}, {part}: {own[0].evaluations[part].rows}", ""]
        header = ["feature", "width", "method", "chosen", f"val {score_title(main)}", *map(score_title, scores)]
        table = []
        for row in own:
            values, before = row.evaluations[part].to_dict(), row.evaluations[VAL].to_dict()
            cells = [row.feature, str(row.width), row.method, row.setting, show(main, before[main])]
            table.append(cells + [show(name, values[name]) for name in scores])
        lines += markdown_table(header, table)
    for name, what in (("probe.json", text), ("probe.md", "\n".join(lines) + "\n")):
        draft = out / f".{name}.draft"
        draft.write_text(what)
        draft.replace(out / name)
    tables = []
    for row in rows:
        for part, evaluation in row.evaluations.items():
            which = {"feature": row.feature, "task": row.task, "method": row.method, "split": part}
            predictions = evaluation.table.copy()
            for place, (name, value) in enumerate((which | {"protocol": about["label"]}).items()):
                predictions.insert(place, name, value)
            tables.append(predictions)
    draft = out / ".predictions.parquet.draft"
    pd.concat(tables, ignore_index=True).to_parquet(draft, index=False)
    draft.replace(out / "predictions.parquet")
    logger.info("wrote %s, probe.md and predictions.parquet", out / "probe.json")
