"""Predictions into files: JSON, or a table of files and one of windows. One file is in memory at a time."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
from pyarrow import parquet

from hicmae import __version__
from hicmae.heads import Targets
from hicmae.inference.journal import FileFailure, failures_path
from hicmae.inference.prediction_dicts import SCHEMA, file_row, prediction_to_dict, window_rows
from hicmae.inference.results import FilePrediction

SUFFIXES = (".csv", ".parquet", ".json")
_ROWS = 1000  # rows of a Parquet table that are written together

_AHEAD: dict[str, type] = {"name": str, "duration_s": float, "windows": int, "left_out": int, "blanked": str}
_BEGIN = {".csv": ",".join(_AHEAD).encode(), ".json": b'{"schema": '}
"""With what our own files begin."""

About = dict[str, Any]
"""JSON values: the model, and how its windows were taken."""


def windows_path(out: Path) -> Path:
    """The table of windows beside a table of files."""
    return out.with_name(f"{out.stem}.windows{out.suffix}")


def check_replaceable(out: Path) -> None:
    """``FileExistsError`` where there is a file that is none of ours: a manifest is a .csv, too."""
    if not out.exists():
        return
    if out.suffix == ".parquet":
        with suppress(pa.ArrowInvalid):
            names: list[str] = parquet.read_schema(out).names
            if names[: len(_AHEAD)] == list(_AHEAD):
                return
    else:
        with out.open("rb") as file:
            if file.read(len(_BEGIN[out.suffix])) == _BEGIN[out.suffix]:
                return
    raise FileExistsError(f"{out} is there and holds no predictions; give another name, or remove it")


def write_predictions(
    out: Path,
    predictions: Iterable[FilePrediction],
    failures: Sequence[FileFailure],
    *,
    targets: Targets,
    about: About,
) -> list[Path]:
    """Write all that was predicted; an older file of that name is replaced when the new one is complete.

    Args:
        out: ``.json``; or ``.csv`` or ``.parquet``, beside which the windows go into ``OUT.windows.csv`` (or
            ``.parquet``), and failures, if there are any, into ``OUT.failures.csv``.
        predictions: read once.
        failures: of the other files.
        targets: what was predicted, also where all files failed.
        about: goes into JSON, and into the metadata of Parquet as ``hicmae``.

    Returns:
        What was written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".json":
        with _replacing(out) as draft, draft.open("w", encoding="utf-8") as file:
            write_json_predictions(file, predictions, failures, about=about)
        return [out]
    open_table = _open_csv if out.suffix == ".csv" else functools.partial(_open_parquet, about=about)
    with ExitStack() as stack:
        tables = [
            stack.enter_context(open_table(stack.enter_context(_replacing(path)), _columns(kind, targets)))
            for kind, path in (("file", out), ("window", windows_path(out)))
        ]
        for prediction in predictions:
            tables[0]([file_row(prediction)])
            tables[1](window_rows(prediction))
    return [out, windows_path(out), *_write_failures(failures_path(out), failures)]


def write_json_predictions(
    file: TextIO, predictions: Iterable[FilePrediction], failures: Sequence[FileFailure], *, about: About
) -> None:
    """One JSON object: ``schema``, ``hicmae`` (version), what is in ``about``, ``files`` (one a line) and
    ``failures``."""
    head = json.dumps({"schema": SCHEMA, "hicmae": __version__, **about})
    file.write(head[:-1] + ', "files": [')
    for number, prediction in enumerate(predictions):
        file.write(("," if number else "") + "\n" + json.dumps(prediction_to_dict(prediction)))
    file.write('\n], "failures": ' + json.dumps([vars(failure) for failure in failures]) + "}\n")


def _columns(kind: str, targets: Targets) -> dict[str, type]:
    """Names and types, as ``file_row`` and ``window_rows`` have them."""
    said: dict[str, type] = {"label": str} if targets.classes else {}
    said |= {f"probability_{name}": float for name in targets.classes}
    said |= {f"value_{name}": float for name in targets.dimensions}
    if kind == "file":
        return _AHEAD | said | {"warnings": str}
    ahead = {"name": str, "start_s": float, "end_s": float, "modalities": str, "blanked": str, "left_out": str}
    return ahead | said


AddRows = Callable[[list[dict[str, Any]]], None]


@contextmanager
def _open_csv(path: Path, columns: dict[str, type]) -> Iterator[AddRows]:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        yield writer.writerows


@contextmanager
def _open_parquet(path: Path, columns: dict[str, type], *, about: About) -> Iterator[AddRows]:
    kinds = {str: pa.string(), float: pa.float64(), int: pa.int64()}
    said = json.dumps({"schema": SCHEMA, "hicmae": __version__, **about})
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()], metadata={"hicmae": said})
    waiting: list[dict[str, Any]] = []
    with parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

        def add(rows: list[dict[str, Any]]) -> None:
            waiting.extend(rows)
            if len(waiting) >= _ROWS:
                flush()

        yield add
        flush()


def _write_failures(path: Path, failures: Sequence[FileFailure]) -> list[Path]:
    if not failures:
        path.unlink(missing_ok=True)  # of an earlier run
        return []
    with _replacing(path) as draft, _open_csv(draft, dict.fromkeys(("name", "reason", "message"), str)) as add:
        add([vars(failure) for failure in failures])
    return [path]


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.draft")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
