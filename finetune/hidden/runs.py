"""The finished runs that are looked at: their predictions, and what these are of."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from finetune.fold_results import CHECKPOINTS
from hicmae.data.splits import TEST

_FOLD = re.compile(r"fold[1-9][0-9]*")


class NothingToShowError(ValueError):
    """Why a section cannot be had of these runs."""


@dataclass(frozen=True, kw_only=True)
class HiddenRun:
    """A finished fine-tuning."""

    name: str
    folder: Path
    about: dict[str, Any]
    """As in ``metrics.json``."""
    table: pd.DataFrame
    """Predictions of the chosen checkpoint on all parts, a row a clip."""
    checkpoint: str
    """best, or last where there is no best."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the model's outputs; empty for none."""
        return tuple(self.about["classes"])

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names; empty for none."""
        return tuple(self.about["dimensions"])

    @property
    def label(self) -> str:
        """The protocol's label."""
        return str(self.about["protocol"])

    def part(self, name: str) -> pd.DataFrame:
        """The predictions on val or test; empty where there are none."""
        return self.table[self.table["split"] == name].reset_index(drop=True)


def read_runs(folders: Sequence[Path]) -> list[HiddenRun]:
    """Read run directories; one of a cross-validation stands for its folds.

    Raises:
        FileNotFoundError: a folder without results.
        ValueError: a run without a test, or runs of different tasks.
    """
    every = [one for folder in folders for one in _folds_of(folder)]
    names = _names(every)
    runs = [_read(folder, name) for folder, name in zip(every, names, strict=True)]
    for run in runs[1:]:
        if (run.classes, run.dimensions) != (runs[0].classes, runs[0].dimensions):
            raise ValueError(
                f"{runs[0].folder} learnt {[*runs[0].classes, *runs[0].dimensions]}, but {run.folder} "
                f"{[*run.classes, *run.dimensions]}: give runs of one task"
            )
    return runs


def _folds_of(folder: Path) -> list[Path]:
    if (folder / "folds.json").is_file():
        found = [one for one in folder.iterdir() if _FOLD.fullmatch(one.name) and (one / "metrics.json").is_file()]
        return sorted(found, key=lambda one: int(one.name.removeprefix("fold")))
    return [folder]


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        twice = next(str(one) for one in resolved if resolved.count(one) > 1)
        raise ValueError(f"{twice} was given twice; name each run once")
    for length in range(1, max(len(one.parts) for one in resolved) + 1):
        names = ["/".join(one.parts[-length:]) for one in resolved]
        if len(set(names)) == len(names):
            break
    return names


def _read(folder: Path, name: str) -> HiddenRun:
    for file in ("metrics.json", "predictions.parquet"):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"no {folder / file}; is {folder} a finished fine-tuning run?")
    about = json.loads((folder / "metrics.json").read_text())["about"]
    table = pd.read_parquet(folder / "predictions.parquet")
    there = set(table["checkpoint"][table["split"] == TEST])
    checkpoint = next((one for one in CHECKPOINTS if one in there), None)
    if checkpoint is None:
        raise ValueError(
            f"{folder / 'predictions.parquet'} has no test predictions of the best or the last checkpoint: give the "
            "directory of a fit with --test_after_fit true"
        )
    chosen = table[table["checkpoint"] == checkpoint]
    return HiddenRun(name=name, folder=folder, about=about, table=chosen, checkpoint=checkpoint)
