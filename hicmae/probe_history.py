"""What online probes found over a pre-training: one line a value, in ``probes.csv`` of the run."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

logger = logging.getLogger(__name__)

PROBE_TABLE = "probes.csv"
PROBE_ABOUT = "probes.json"
RUN = "run"
"""The part of what is of no part of the features."""


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """A value at a moment of the training."""

    epoch: float
    """Epochs behind it; 0: before the first step."""
    step: int
    """Optimiser steps behind it."""
    part: str
    """Of what: video_layer1, ..., audio_layer1, ..., video, audio, fused, all; layerN: of both modalities there."""
    metric: str
    """E.g. knn_uar_emotion, effective_rank."""
    value: float
    chance: float = math.nan
    """What it would be if features told nothing; NaN where that is not known."""


COLUMNS = tuple(field.name for field in fields(ProbeRow))


def read_probes(path: Path) -> list[ProbeRow]:
    """The rows of a file, in its order. A line that is cut off or damaged is left out, with a warning."""
    text = path.read_text("utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]  # half a line can hold half a number
    rows, damaged = [], int(len(text) > len(whole))
    for line in csv.DictReader(io.StringIO(whole, newline="")):
        try:
            rows.append(
                ProbeRow(
                    epoch=float(line["epoch"]), step=int(line["step"]), part=line["part"], metric=line["metric"],
                    value=float(line["value"]), chance=float(line["chance"] or "nan"),
                )
            )  # fmt: skip
        except (KeyError, TypeError, ValueError):
            damaged += 1
    if damaged:
        logger.warning("%s: left out %d lines that are cut off or damaged", path, damaged)
    return rows


class ProbeHistory:
    """The rows so far, on the disk at any time.

    Args:
        path: the file; its folder is made when there is something to write.
        step: where the training begins or goes on: rows of later steps are dropped, for they will come again, and with
            0 all are, for they are of another beginning.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        self.path = path
        found = read_probes(path) if step and path.is_file() else []
        self.rows = [row for row in found if row.step <= step]

    @property
    def steps(self) -> list[int]:
        """Steps at which the model was probed, ascending."""
        return sorted({row.step for row in self.rows})

    @property
    def last_epoch(self) -> float:
        """When it was last probed; minus infinity: never."""
        return max((row.epoch for row in self.rows), default=-math.inf)

    def at(self, step: int) -> list[ProbeRow]:
        """The rows of one moment."""
        return [row for row in self.rows if row.step == step]

    @property
    def baseline(self) -> list[ProbeRow]:
        """The rows of the random weights; empty where they were not probed."""
        return self.at(0)

    def add(self, rows: Sequence[ProbeRow]) -> None:
        """Keep rows and write them: by way of a temporary name, so that whoever is killed leaves no half line."""
        self.rows += rows
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.draft")
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in self.rows:
                chance = "" if math.isnan(row.chance) else f"{row.chance:.6g}"
                writer.writerow([f"{row.epoch:g}", row.step, row.part, row.metric, f"{row.value:.6g}", chance])
        draft.replace(self.path)


def best(rows: Iterable[ProbeRow], metric: str, modality: str = "") -> ProbeRow | None:
    """The row with the highest value of a metric, of the parts that begin with ``modality``; of equals the first."""
    found = [row for row in rows if row.metric == metric and row.part.startswith(modality) and row.value == row.value]
    return max(found, key=lambda row: row.value, default=None)


def one(rows: Iterable[ProbeRow], part: str, metric: str) -> ProbeRow | None:
    """The row of a part and a metric."""
    return next((row for row in rows if (row.part, row.metric) == (part, metric)), None)
