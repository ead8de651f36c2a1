"""What became of every name of a conversion, as a table."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

Fate = Literal["converted", "dropped", "missing", "unknown", "misshapen"]
FAULTS: tuple[Fate, ...] = ("missing", "unknown", "misshapen")
"""Fates that end a conversion."""
FORMATS = (".csv", ".json", ".md")


@dataclass(frozen=True, kw_only=True)
class NameRow:
    """One name of the file that was read or of the model that it was read into."""

    theirs: str
    """As in the reference's file; empty where the reference has no such name."""
    ours: str
    """Empty where this project has no such name."""
    shape: tuple[int, ...] | None
    """Of the tensor as it was read; ``None`` for what is no tensor."""
    fate: Fate
    note: str = ""
    """Why, and what was done to the values."""


def raise_faults(rows: Sequence[NameRow], what: str) -> None:
    """Raise ``ValueError`` that lists every missing, unknown and misshapen name."""
    problems = []
    for fate in FAULTS:
        found = [row for row in rows if row.fate == fate]
        if found and fate == "misshapen":
            problems.append(f"shapes (as ours): {'; '.join(f'{row.theirs} {row.note}' for row in found)}")
        elif found:
            problems.append(f"{fate}: {', '.join(sorted(row.theirs for row in found))}")
    if problems:
        raise ValueError(f"{what}. {'. '.join(problems)}")


def summary(rows: Sequence[NameRow]) -> str:
    """How many names had which fate."""
    return ", ".join(f"{count} {fate}" for fate, count in Counter(row.fate for row in rows).items()) or "no names"


def as_text(rows: Sequence[NameRow]) -> str:
    """A table for the terminal, columns aligned."""
    table = [_columns(), *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "".join("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() + "\n" for row in table)


def write_rows(rows: Sequence[NameRow], path: str | Path) -> Path:
    """Write the table as ``.csv``, ``.json`` or ``.md``, by the ending of ``path``."""
    path = Path(path)
    check_format(path)
    if path.suffix == ".json":
        text = json.dumps([asdict(row) for row in rows], indent=1) + "\n"
    elif path.suffix == ".csv":
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([_columns(), *map(_cells, rows)])
        text = buffer.getvalue()
    else:
        lines = [_columns(), ["---"] * len(_columns()), *map(_cells, rows)]
        text = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def check_format(path: str | Path) -> None:
    """Raise ``ValueError`` where a report cannot be written under that name."""
    if Path(path).suffix not in FORMATS:
        raise ValueError(f"report {path} must end in {', '.join(FORMATS)}")


def _columns() -> list[str]:
    return [field.name for field in fields(NameRow)]


def _cells(row: NameRow) -> list[str]:
    shape = "" if row.shape is None else "x".join(map(str, row.shape)) or "scalar"
    return [row.theirs, row.ours, shape, row.fate, row.note]
