"""Calibration on the test, before and after a temperature fitted on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finetune.hidden.runs import HiddenRun, NothingToShowError
from finetune.hidden.section import Section
from finetune.tables import markdown_table
from hicmae.calibration import (
    BINS,
    SCORES,
    Temperature,
    calibration_errors,
    calibration_intervals,
    ece_by_chance,
    fit_temperature,
    reliability,
    scaled,
)
from hicmae.data.splits import TEST, VAL
from hicmae.figures.calibration import draw_calibration

_TITLES = {
    "ece": "ECE (%)",
    "ece_equal_mass": "ECE, equal mass (%)",
    "mce": "largest error of a bin (%)",
    "brier": "Brier score",
    "nll": "negative log-likelihood",
}
_PERCENT = ("ece", "ece_equal_mass", "mce")
ALL = "all runs"


def calibration_section(runs: Sequence[HiddenRun], figures: Path) -> Section:
    """Each run's temperature and errors, and those of all test clips together.

    Raises:
        NothingToShowError: no classes, or no run with a validation of its own.
    """
    if not runs[0].classes:
        raise NothingToShowError("the runs predict no classes, and so no probabilities")
    usable = [run for run in runs if not run.label and len(run.part(VAL))]
    if not usable:
        raise NothingToShowError(
            "the validation clips of these runs are the test clips, and a temperature fitted on the test is no result"
        )
    temperatures = {run.name: fit_temperature(*_predictions(run, VAL)) for run in usable}
    tests = {run.name: _predictions(run, TEST) for run in usable}
    subjects = {run.name: run.part(TEST)["subject"].tolist() for run in usable}
    versions = {
        name: {"before": given, "after": scaled(given, temperatures[name].value)} for name, (given, _) in tests.items()
    }
    labels = {name: label for name, (_, label) in tests.items()}
    if len(usable) > 1:
        labels[ALL] = np.concatenate(list(labels.values()))
        subjects[ALL] = [subject for each in subjects.values() for subject in each]
        versions[ALL] = {
            when: np.concatenate([versions[run.name][when] for run in usable]) for when in ("before", "after")
        }
    rows = [row for name in versions for row in _rows(name, versions[name], labels[name], subjects[name])]
    shown = list(versions)[-1]
    draw_calibration(
        {when: reliability(given, labels[shown]) for when, given in versions[shown].items()},
        figures / "calibration.png",
        notes={
            when: f"ECE {100 * calibration_errors(given, labels[shown])['ece']:.1f}%"
            for when, given in versions[shown].items()
        },
    )
    table = pd.DataFrame(rows)
    chance: dict[str, float | None] = {name: ece_by_chance(given["after"])[0] for name, given in versions.items()}
    if _share_clips(usable):
        chance[ALL] = None
    lines = [
        *_summary(table, temperatures, chance),
        "",
        f"In brackets: 95% intervals over test speakers, for the temperature as it was fitted. {BINS} bins. "
        "*By chance* is the ECE that a perfectly calibrated model of the confidences after scaling has on so few "
        "clips, in the mean: an ECE near it is no evidence of an error. Temperatures are fitted to the validation "
        f"predictions {'of each run ' if len(usable) > 1 else ''}and change no class that is called.",
        *_remarks(usable, runs, temperatures),
        "",
        f"![Reliability before and after scaling, {shown}](figures/calibration.png)",
    ]
    values: dict[str, Any] = {
        name: {
            "temperature": temperatures[name].value if name in temperatures else None,
            "ece_by_chance": chance[name],
            **{when: calibration_errors(given, labels[name]) for when, given in versions[name].items()},
        }
        for name in versions
    }
    return Section(lines=lines, table=table, values=values)


def _predictions(run: HiddenRun, part: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities (N, C) and true class numbers (N,)."""
    table = run.part(part)
    number = {name: i for i, name in enumerate(run.classes)}
    probabilities: NDArray[np.float64] = table[[f"probability_{name}" for name in run.classes]].to_numpy(np.float64)
    return probabilities, np.array([number[name] for name in table["label"]], dtype=np.int64)


def _share_clips(runs: Sequence[HiddenRun]) -> bool:
    tested = [clip for run in runs for clip in run.part(TEST)["clip_id"]]
    return len(set(tested)) < len(tested)


def _rows(
    name: str, versions: dict[str, NDArray[np.float64]], label: NDArray[np.int64], subjects: list[str]
) -> list[dict[str, Any]]:
    bounds = calibration_intervals(subjects, label, versions).bounds
    found = {when: calibration_errors(given, label) for when, given in versions.items()}
    found["difference"] = {error: found["after"][error] - found["before"][error] for error in SCORES}
    rows = []
    for when, errors in found.items():
        for error, value in errors.items():
            low, high = bounds[f"{when}/{error}"] or (None, None)
            rows.append({"run": name, "when": when, "error": error, "value": value, "low": low, "high": high})
    return rows


def _summary(table: pd.DataFrame, temperatures: dict[str, Temperature], chance: dict[str, float | None]) -> list[str]:
    """ECE and temperature of each run; then all errors of the last row's clips."""
    at = {(row["run"], row["when"], row["error"]): row for row in table.to_dict("records")}
    rows = [
        [
            name,
            f"{temperatures[name].value:.2f}" if name in temperatures else "",
            *(_shown("ece", at[name, when, "ece"]) for when in ("before", "after", "difference")),
            "-" if by_chance is None else f"{100 * by_chance:.1f}",
        ]
        for name, by_chance in chance.items()
    ]
    last = list(chance)[-1]
    errors = [
        [_TITLES[error], *(_shown(error, at[last, when, error]) for when in ("before", "after", "difference"))]
        for error in SCORES
    ]
    header = ["run", "temperature", "ECE before (%)", "after (%)", "difference", "by chance (%)"]
    return [
        *markdown_table(header, rows),
        "",
        *markdown_table([f"test clips of {last}", "before", "after", "difference"], errors),
    ]


def _shown(error: str, row: Mapping[Any, Any]) -> str:
    digits, factor = (1, 100) if error in _PERCENT else (3, 1)
    value, low, high = (row[name] for name in ("value", "low", "high"))
    bounds = "" if low is None or np.isnan(low) else f" ({factor * low:.{digits}f} to {factor * high:.{digits}f})"
    return f"{factor * value:.{digits}f}{bounds}"


def _remarks(usable: Sequence[HiddenRun], runs: Sequence[HiddenRun], temperatures: dict[str, Temperature]) -> list[str]:
    said = []
    if any(run.part(part)["n_segments"].max() > 1 for run in usable for part in (VAL, TEST)):
        said.append(
            "Probabilities are means over windows of a clip, and the mean is what is scaled: another thing than "
            "scaling each window's logits."
        )
    if any(run.part(VAL)["n_segments"].max() != run.part(TEST)["n_segments"].max() for run in usable):
        said.append(
            "The test averages another number of windows than the validation, which changes how sure the model is: "
            "with data.val_segments equal to data.test_segments the temperature is fitted to what it is used on."
        )
    if _share_clips(usable):
        said.append(
            "Runs that tested the same clips err alike on them, so that their clips together are fewer than they look: "
            "all runs have no ECE by chance."
        )
    if limits := [name for name, one in temperatures.items() if one.at_limit]:
        said.append(f"No best temperature exists for {', '.join(limits)}: the one shown is where the search ends.")
    if left := [run.name for run in runs if run not in usable]:
        said.append(f"Left out, as their validation is the test: {', '.join(left)}.")
    return ["", " ".join(said)] if said else []
