"""``hicmae embed`` without its command line: many files through a backbone, and the table they make."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from hicmae import __version__
from hicmae.checkpoint import Export, read_export
from hicmae.data.remembered import differences_of
from hicmae.inference.devices import kinds_of
from hicmae.inference.embedder import Embedder, EmbedSettings
from hicmae.inference.embedding_files import (
    SUFFIXES,
    embedding_to_bytes,
    read_about,
    table_from_bytes,
    table_to_bytes,
    write_embeddings,
)
from hicmae.inference.items import MediaItem
from hicmae.inference.job import Listener, OnWindows, Work, run_job
from hicmae.inference.journal import FileFailure, Journal, Parts, failures_path, open_journal, remove_journal

SCHEMA = 1
"""Of the tables; raised when columns change their meaning."""
LONG = 64
"""Files of more windows than this are kept batch by batch."""


@dataclass(frozen=True, kw_only=True)
class EmbedReport:
    """What ``embed_files`` did."""

    files: int
    computed: int
    """Files that this run worked on."""
    windows: dict[str, int]
    """Rows by the modalities of their windows."""
    failures: tuple[FileFailure, ...]
    failures_file: Path | None
    """The table of failures; None where there are none."""


def embed_files(
    items: Sequence[MediaItem],
    model: Path,
    out: Path,
    settings: EmbedSettings,
    *,
    devices: Sequence[str],
    listener: Listener,
    threads: int = 1,
) -> EmbedReport:
    """Write the features of all files as one table, in the order of the files. A job that was killed goes on.

    Args:
        items: the files.
        model: exported folder.
        out: ``.parquet`` or ``.npz``. One that this very job has written is left as it is.
        settings: what is computed.
        devices: one process for each.
        listener: hears of progress.
        threads: of each process, on processors; the last digits depend on it.

    Raises:
        ValueError: an output that is no table, features that the model does not have, a table or an unfinished job of
            other settings or files, or another process is at it.
        FileExistsError: ``out`` is no table of features.
        FileNotFoundError, OSError: the model's folder cannot be read, or the output not be written.
    """
    if out.suffix not in SUFFIXES:
        raise ValueError(f"{out} must end in {' or '.join(SUFFIXES)}")
    if threads < 1:
        raise ValueError(f"threads={threads} must be at least 1")
    export = read_export(model)
    widths = settings.widths(export.config, export.modalities)
    decides = _settings(model, export, settings, threads)
    about: dict[str, Any] = {
        "schema": SCHEMA,
        "hicmae": __version__,
        "model": {"kind": export.kind, "modalities": export.modalities, "architecture": export.config.to_dict(),
                  "input": export.spec.to_dict(), "provenance": export.provenance},
        "settings": decides,
        "columns": widths,
        "file_count": len(items),
        "files": _digest(items),
    }  # fmt: skip
    about = json.loads(json.dumps(about))
    failures_file = failures_path(out)
    if out.exists():
        finished = _finished(out, about, failures_file)
        remove_journal(out)  # killed after the last step but one
        return finished
    with open_journal(out, {"command": "embed", **decides, "device": kinds_of(devices)}) as journal:
        begin = functools.partial(begin_embedding, model, settings, threads, journal.folder)
        report = run_job(journal, items, begin, devices=devices, listener=listener)
        _write_failures(failures_file, report.failures)
        tables = functools.partial(_tables, journal, items)
        windows = dict(sum((Counter(table["modalities"].to_pylist()) for table in tables()), Counter[str]()))
        about |= {"windows": windows, "failures": [vars(failure) for failure in report.failures]}
        write_embeddings(out, tables, widths, about)
        remove_journal(out)
    return EmbedReport(
        files=len(items),
        computed=report.computed,
        windows=windows,
        failures=report.failures,
        failures_file=failures_file if report.failures else None,
    )


def begin_embedding(model: Path, settings: EmbedSettings, threads: int, folder: Path, device: str) -> Work:
    """Load the model in a process; what is then made of a file is its rows. Batches of a long file are kept in
    ``folder``, so that it goes on there."""
    torch.set_num_threads(threads)
    embedder = Embedder.load(model, settings, device=device)

    def work(item: MediaItem, on_windows: OnWindows) -> bytes:
        with Parts(folder, item) as saved:
            tables = [table_from_bytes(part) for part in saved.all()]
            first = sum(map(len, tables))
            for part in embedder.parts(item, first):
                data = embedding_to_bytes(part, embedder.widths)
                if part.total > LONG:
                    saved.add(data)
                tables.append(table_from_bytes(data))
                on_windows(part.first + len(part.start_s), part.total)
        return table_to_bytes(pa.concat_tables(tables).combine_chunks())

    return work


def _settings(model: Path, export: Export, settings: EmbedSettings, threads: int) -> dict[str, Any]:
    """What decides the features of a file: of the model what is in it, wherever it lies."""
    weights = json.loads((model / "config.json").read_bytes())["sha256"]["model.safetensors"]
    # Weights say nothing of what they are to be given.
    taken = json.dumps([export.modalities, export.config.to_dict(), export.spec.to_dict()], sort_keys=True)
    plain = asdict(settings)
    return {
        "weights_sha256": weights,
        "input_sha256": hashlib.sha256(taken.encode()).hexdigest(),
        **plain.pop("windows"),
        **plain,
        "threads": threads,
    }


def _digest(items: Sequence[MediaItem]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for item in items:
        digest.update(item.fingerprint().encode())
    return digest.hexdigest()


def _tables(journal: Journal, items: Sequence[MediaItem]) -> Iterator[pa.Table]:
    return (table_from_bytes(journal.result(item)) for item in items if journal.failure(item) is None)


def _finished(out: Path, about: dict[str, Any], failures_file: Path) -> EmbedReport:
    """The report of the run that wrote ``out``; errors where it is not what is wanted now."""
    there = read_about(out)
    if there is None or "settings" not in there:
        raise FileExistsError(f"{out} is there and is no table of features; give another output")
    if what := differences_of(there["settings"], about["settings"]):
        raise ValueError(f"{out} was made with other settings ({what}); give another output, or remove it")
    if there["files"] != about["files"]:
        raise ValueError(
            f"{out} was made of other files, or of files that have changed since; give another output, or remove it"
        )
    failures = tuple(FileFailure(**failure) for failure in there["failures"])
    _write_failures(failures_file, failures)
    return EmbedReport(
        files=there["file_count"], computed=0, windows=there["windows"], failures=failures,
        failures_file=failures_file if failures else None,
    )  # fmt: skip


def _write_failures(path: Path, failures: Sequence[FileFailure]) -> None:
    """The table of failures; none where nothing failed."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "reason", "message"])
        writer.writerows([failure.name, failure.reason, failure.message] for failure in failures)
    draft.replace(path)


def by_reason(failures: Sequence[FileFailure]) -> str:
    """How many files failed for which reason, most frequent first."""
    counts = Counter(failure.reason for failure in failures)
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda c: (-c[1], c[0])))
