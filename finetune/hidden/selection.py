"""How much choosing the best epoch on the test would have gained, over several runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from finetune.hidden.runs import HiddenRun, NothingToShowError
from finetune.hidden.section import Section, mean_over_runs, plain
from finetune.protocol import labelled
from finetune.selection import CHOICES, CHOSEN_ON_TEST, CURVE, FollowedCurve, curve_lines, selection_of
from finetune.tables import markdown_table, score_title, show, show_interval
from hicmae.figures.selection import draw_selection

_TITLES = {"validation": "chosen on validation", "last": "last epoch", "test": "chosen on the test"}


def selection_section(runs: Sequence[HiddenRun], figures: Path) -> Section:
    """A row a run that was followed, and their mean.

    Raises:
        NothingToShowError: none was.
        ValueError: runs whose epoch is chosen by different scores.
    """
    curves = {run.name: FollowedCurve.read(run.folder) for run in runs if (run.folder / CURVE).is_file()}
    curves = {name: curve for name, curve in curves.items() if curve.points}
    if not curves:
        raise NothingToShowError(f"no run has a {CURVE}: train with --follow_test true")
    kinds = {(curve.score, curve.mode) for curve in curves.values()}
    if len(kinds) > 1:
        raise ValueError(f"the runs choose their epoch by different scores ({sorted(kinds)}): give those of one")
    score = next(iter(kinds))[0]
    found = {name: selection_of(curve) for name, curve in curves.items()}
    draw_selection(
        {name: curve_lines(curve) for name, curve in curves.items()},
        figures / "selection.png",
        score=score_title(score),
    )
    tests = {
        choice: [_number(one["choices"][choice]["test"].get(score)) for one in found.values()] for choice in CHOICES
    }
    gains = [_number(one["gain_of_choosing_on_test"]["over_validation"]) for one in found.values()]
    rows = [
        [name, str(one["epochs"]), *(_cell(score, one["choices"][choice]) for choice in CHOICES), _show(score, gain)]
        for (name, one), gain in zip(found.items(), gains, strict=True)
    ]
    mean, interval = mean_over_runs(gains)
    rows.append(
        ["mean", "", *(_show(score, mean_over_runs(tests[choice])[0]) for choice in CHOICES), _show(score, mean)]
    )
    titles = [labelled(_TITLES[choice], CHOSEN_ON_TEST) if choice == "test" else _TITLES[choice] for choice in CHOICES]
    of_all = f" (95% interval over runs: {show_interval(score, interval)})" if interval else ""
    lines = [
        *markdown_table(["run", "epochs", *titles, "gain of choosing on the test"], rows),
        "",
        f"Test {score_title(score)}, with the epoch in brackets. Choosing the epoch on the test clips gains "
        f"{_show(score, mean)} over choosing it on validation in the mean{of_all}. The gain is what such a result "
        "promises and new people do not get; it cannot be below 0, and grows with the number of epochs and with the "
        "fewness of test clips.",
        "",
        "![Scores of every epoch](figures/selection.png)",
    ]  # fmt: skip
    table = pd.DataFrame(
        [
            {"run": name, "choice": choice, "epoch": one["choices"][choice]["epoch"], "score": test, "value": value}
            | {"protocol": CHOSEN_ON_TEST if choice == "test" else ""}
            for name, one in found.items()
            for choice in CHOICES
            for test, value in one["choices"][choice]["test"].items()
        ]
    )
    values: dict[str, Any] = {
        "score": score, "runs": len(found), "gain_over_validation": plain(mean),
        "interval_over_runs": list(interval) if interval else None, "protocol": CHOSEN_ON_TEST,
    }  # fmt: skip
    return Section(lines=lines, table=table, values=values)


def _cell(score: str, choice: dict[str, Any]) -> str:
    return f"{show(score, choice['test'].get(score))} ({choice['epoch']})"


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _show(score: str, value: float) -> str:
    return show(score, plain(value))
