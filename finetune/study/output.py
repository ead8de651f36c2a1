"""What a study writes: tables, report, figure."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from finetune.study.figure import draw_study
from finetune.study.grid import Row, Run, every_run
from finetune.study.plan import Plan
from finetune.study.report import study_report
from finetune.study.results import DONE, NOT_RUN, Scores, read_scores, tidy_table
from finetune.study.store import Store, write
from finetune.study.summary import differences_table, means_table, summarise
from hicmae.score_text import score_title, show

logger = logging.getLogger(__name__)


def write_outputs(plan: Plan, store: Store, out: Path, failed: Mapping[str, str]) -> dict[int, str]:
    """Write ``table.csv``, ``summary.csv``, ``differences.csv``, ``times.csv``, ``report.md`` and ``figure.png``.

    Args:
        plan: of the study.
        store: of its runs.
        out: folder.
        failed: the reason of each run that failed now, by digest; of those that did before, the store knows.

    Returns:
        The status of each row, by its number.
    """
    study = plan.study
    runs = every_run(plan.rows)
    before = {digest: reason for digest, run in runs.items() if (reason := store.failure(run)) is not None}
    failed = before | dict(failed)
    status = {number: _status(row, store, failed) for number, row in enumerate(plan.rows)}
    scores: dict[int, list[Scores]] = {}
    for number, row in enumerate(plan.rows):
        if status[number] == DONE:
            try:
                scores[number] = read_scores(study, row, store)
            except (ValueError, KeyError, OSError) as error:  # results that are damaged are a hole as well
                status[number] = f"failed: {error}"
                logger.error("%s: %s", row.run.name, error)
    summary = summarise(study, plan.rows, scores)
    seconds = {digest: store.seconds(run) for digest, run in runs.items() if store.is_finished(run)}
    _csv(tidy_table(study, plan.rows, scores, status, store), out / "table.csv")
    _csv(means_table(summary), out / "summary.csv")
    _csv(differences_table(summary), out / "differences.csv")
    times = [
        {"run": run.name, "kind": run.kind, "folder": store.folder(run).name, "seconds": seconds[digest]}
        for digest, run in runs.items()
        if digest in seconds
    ]
    _csv(pd.DataFrame(times, columns=["run", "kind", "folder", "seconds"]), out / "times.csv")
    write(out / "report.md", study_report(study, plan.rows, scores, status, summary, seconds))
    draw_study(plan, summary, out / "figure.png")
    holes = sum(text != DONE for text in status.values())
    logger.info("wrote %s, summary.csv, differences.csv, report.md and figure.png%s", out / "table.csv",
                f"; {holes} of {len(status)} rows are holes" if holes else "")  # fmt: skip
    return status


def headline(plan: Plan, run: Run, store: Store) -> str:
    """The score of a run that a row is about, as words for the log; empty for others."""
    row = next((row for row in plan.rows if row.run.digest == run.digest), None)
    if row is None:
        return ""
    try:
        one = read_scores(plan.study, row, store)[0]
    except (ValueError, KeyError, OSError):
        return ""  # the table will say why
    shown = " ".join(f"{score_title(name)} {show(name, one.values[name])}" for name in plan.study.metrics)
    return f" | {one.checkpoint} {shown}" + (f" [{one.protocol}]" if one.protocol else "")


def _status(row: Row, store: Store, failed: Mapping[str, str]) -> str:
    if store.is_finished(row.run):
        return DONE
    if row.run.digest in failed:
        return f"failed: {failed[row.run.digest]}"
    for run in row.run.with_all_it_needs():
        if run.digest in failed:
            return f"{NOT_RUN}: {run.name} failed: {failed[run.digest]}"
    return NOT_RUN


def _csv(table: pd.DataFrame, path: Path) -> None:
    write(path, table.to_csv(index=False, lineterminator="\n"))
