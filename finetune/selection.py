"""What choosing the best epoch on the test clips would have gained: scores of every epoch, and three choices of one.

``--follow_test true`` scores the test clips after every validation, as the final test does, and touches neither the
training nor the choice of the best epoch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from finetune.protocol import labelled
from finetune.tables import score_title, show
from hicmae.figures.selection import SelectionLines

CHOSEN_ON_TEST = "optimistic: epoch chosen on the test clips, never to be reported as a result"
"""The label of scores of the epoch that is best on the test."""
CURVE = "test_curve.json"
SELECTION = "selection.json"
CHOICES = ("validation", "last", "test")
"""On what an epoch is chosen: the validation, nothing, the test."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The scores after an epoch. Undefined ones are NaN."""

    epoch: int
    """From 1 on."""
    step: int
    val: Mapping[str, float]
    test: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``None`` for NaN."""
        scores = {part: {n: _plain(v) for n, v in getattr(self, part).items()} for part in ("val", "test")}
        return {"epoch": self.epoch, "step": self.step} | scores

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CurvePoint:
        """The inverse of ``to_dict``."""
        scores = {
            part: {name: math.nan if value is None else value for name, value in values[part].items()}
            for part in ("val", "test")
        }
        return cls(epoch=values["epoch"], step=values["step"], **scores)


@dataclass(frozen=True, kw_only=True)
class FollowedCurve:
    """The course of a run's scores on validation and test."""

    score: str
    """By which the best epoch is chosen, as ``Evaluation.scalars`` names it: uar, ccc, ..."""
    mode: str
    """max or min: which end of it is best."""
    points: tuple[CurvePoint, ...]

    def write(self, folder: Path) -> None:
        """Write ``test_curve.json`` and the same as ``test_curve.csv``."""
        points = [point.to_dict() for point in self.points]
        _write(folder / CURVE, {"score": self.score, "mode": self.mode, "epochs": points})
        rows = [
            {"epoch": one["epoch"], "step": one["step"]}
            | {f"{part}/{name}": value for part in ("val", "test") for name, value in one[part].items()}
            for one in points
        ]
        draft = folder / ".test_curve.csv.draft"
        pd.DataFrame(rows).to_csv(draft, index=False)
        draft.replace(folder / "test_curve.csv")

    @classmethod
    def read(cls, folder: Path) -> FollowedCurve:
        """The curve of a run directory.

        Raises:
            FileNotFoundError: it has none.
        """
        path = folder / CURVE
        if not path.is_file():
            raise FileNotFoundError(f"no {path}: train with --follow_test true to have the test scored at every epoch")
        content = json.loads(path.read_text())
        points = tuple(CurvePoint.from_dict(one) for one in content["epochs"])
        return cls(score=content["score"], mode=content["mode"], points=points)


def choose(curve: FollowedCurve) -> dict[str, CurvePoint]:
    """The epoch of each of ``CHOICES``; of equal ones the first, as for the best checkpoint.

    Raises:
        ValueError: a curve without an epoch.
    """
    if not curve.points:
        raise ValueError("the curve has no epoch: the training ended before its first validation")
    return {
        "validation": curve.points[_best([point.val.get(curve.score, math.nan) for point in curve.points], curve.mode)],
        "last": curve.points[-1],
        "test": curve.points[_best([point.test.get(curve.score, math.nan) for point in curve.points], curve.mode)],
    }


def selection_of(curve: FollowedCurve) -> dict[str, Any]:
    """What ``selection.json`` holds: the three choices with their test scores, and what choosing on the test gains over
    the choice on validation and over the last epoch, in units of the score and positive where it is better."""
    chosen = choose(curve)
    sign = 1 if curve.mode == "max" else -1
    tests = {name: point.test.get(curve.score, math.nan) for name, point in chosen.items()}
    choices: dict[str, Any] = {}
    for name, point in chosen.items():
        label = {"protocol": CHOSEN_ON_TEST} if name == "test" else {}
        choices[name] = label | {"epoch": point.epoch, "step": point.step, "test": point.to_dict()["test"]}
    gains = {f"over_{name}": _plain(sign * (tests["test"] - tests[name])) for name in ("validation", "last")}
    return {
        "score": curve.score,
        "mode": curve.mode,
        "epochs": len(curve.points),
        "choices": choices,
        "gain_of_choosing_on_test": {"protocol": CHOSEN_ON_TEST} | gains,
    }


def write_selection(folder: Path, curve: FollowedCurve) -> dict[str, Any]:
    """Write ``selection.json``; returns its content."""
    content = selection_of(curve)
    _write(folder / SELECTION, content)
    return content


def selection_sentence(selection: Mapping[str, Any]) -> str:
    """The gain in words, for a report."""
    name, choices = selection["score"], selection["choices"]
    said = {choice: f"{show(name, one['test'].get(name))} (epoch {one['epoch']})" for choice, one in choices.items()}
    gain = selection["gain_of_choosing_on_test"]["over_validation"]
    title = score_title(name)
    return (
        f"Test {title} by how one of {selection['epochs']} epochs is chosen: on validation {said['validation']}; the "
        f"last {said['last']}; {labelled('on the test', CHOSEN_ON_TEST)} {said['test']}. Choosing on the test would "
        f"have gained {show(name, gain)} over choosing on validation."
    )


def curve_lines(curve: FollowedCurve) -> SelectionLines:
    """The score that epochs are chosen by, for the figure."""
    return SelectionLines(
        epochs=[point.epoch for point in curve.points],
        val=[point.val.get(curve.score, math.nan) for point in curve.points],
        test=[point.test.get(curve.score, math.nan) for point in curve.points],
        chosen={name: point.epoch for name, point in choose(curve).items()},
    )


def _best(values: Sequence[float], mode: str) -> int:
    # In float32, as the callback that keeps the best checkpoint compares them; undefined is worse than any.
    single = np.asarray(values, dtype=np.float32) * (1 if mode == "max" else -1)
    return int(np.argmax(np.where(np.isnan(single), -np.inf, single)))


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    draft.replace(path)
