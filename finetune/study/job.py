"""A grid of pre-trainings, fine-tunings, seeds and folds from one file.

``python -m finetune study configs/studies/quick.yaml`` runs what is not finished yet, each run in its own process and
folder below ``--runs``, which studies share, and writes ``OUT/table.csv``, ``summary.csv``, ``differences.csv``,
``report.md`` and ``figure.png``. Give the same line again after an interruption: finished runs are kept, begun ones go
on.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from finetune.device_slots import device_slots
from finetune.jobs import LOG, Job, JobRunner, last_line
from finetune.study.grid import Run, every_run
from finetune.study.output import headline, write_outputs
from finetune.study.plan import Plan, plan_study
from finetune.study.results import DONE, NOT_RUN
from finetune.study.spec import read_study
from finetune.study.store import Store
from hicmae.user_errors import explains_itself

logger = logging.getLogger(__name__)

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_TIME = re.compile(r"^\d\d:\d\d:\d\d [A-Z]+ ")


def main(argv: Sequence[str]) -> int:
    """Run the job; returns the exit status: 0, 1 if a run failed, 2 for a wrong study, 128 + a signal."""
    own = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    try:
        plan = plan_study(read_study(own.study))
        store = Store(own.runs, keep_checkpoints=own.keep_checkpoints)
        if own.check:
            for line in plan_lines(plan, store):
                sys.stdout.write(line + "\n")
            return 0
        out = own.out or Path("studies") / own.study.stem
        if own.report:
            write_outputs(plan, store, out, {})
            return 0
        return run_study(plan, store, out, parallel=own.parallel, only=own.only)
    except Exception as error:
        if not explains_itself(error) and not (isinstance(error, OSError) and error.errno in _NO_SPACE):
            raise
        sys.stderr.write(f"study: error: {error}\n")
        return 2


def run_study(plan: Plan, store: Store, out: Path, *, parallel: int | None = None, only: str | None = None) -> int:
    """Run what is not finished, then write the outputs.

    Args:
        plan: of the study.
        store: of its runs.
        out: folder for tables, report and figure.
        parallel: runs at once; ``None``: as many as there are devices for; on a processor, cores for ``threads`` each.
        only: a regular expression: run the rows alone whose names it is found in.

    Returns:
        The exit status.
    """
    slots = _slots(plan, parallel)
    try:
        chosen = [row.run for row in plan.rows if only is None or re.search(only, row.run.name)]
    except re.error as error:
        raise ValueError(f"--only {only}: {error}; put a backslash before what is meant as it stands") from error
    if not chosen:
        raise ValueError(f"--only {only}: there is no such row; --check lists them")
    todo = _unfinished(chosen, store)
    rows_todo = sum(1 for run in {run.digest: run for run in chosen}.values() if run.digest in todo)
    logger.info("%d rows, %d of them to run, in %d runs, %d at once", len(plan.rows), rows_todo, len(todo), len(slots))
    failed: dict[str, str] = {}
    begun: set[str] = set()
    by_name: dict[str, Run] = {}

    def ready() -> list[Job]:
        jobs = []
        for digest, run in todo.items():
            if digest not in begun and not any(need.digest in todo for need in run.needs):
                begun.add(digest)
                by_name[run.name] = run
                jobs.append(_job(run, store))
        return jobs

    def on_end(job: Job, status: int) -> list[Job]:
        run = by_name[job.name]
        if status == 0 and store.left_results(run):
            if not store.is_finished(run):  # by another study
                store.finish(run, runner.seconds[job.name])
            del todo[run.digest]
            logger.info("%s: finished%s; %d runs are left", run.name, headline(plan, run, store), len(todo))
        elif runner.stopped_by is not None:
            logger.info("%s: stopped", run.name)
        else:
            failed[run.digest] = reason_of(job, status)
            store.fail(run, failed[run.digest])
            lost = [digest for digest, one in todo.items() if digest != run.digest and _needs(one, run)]
            logger.error(
                "%s failed with status %d; the end of %s says why: %s%s", run.name, status, job.folder / LOG,
                failed[run.digest], f"; {len(lost)} runs that need it are left out" if lost else "",
            )  # fmt: skip
        return ready()

    runner = JobRunner(slots)
    runner.run(ready(), on_end)
    status = write_outputs(plan, store, out, failed)
    if runner.stopped_by is not None:
        logger.warning("stopped by %s; give the same line again to go on", signal.Signals(runner.stopped_by).name)
        return 128 + runner.stopped_by
    asked = {run.digest for run in chosen}
    texts = [status[number] for number, row in enumerate(plan.rows) if row.run.digest in asked]
    return 1 if any(text.startswith("failed") for text in texts) or failed else 0


def _job(run: Run, store: Store) -> Job:
    return Job(
        name=run.name, command=store.prepare(run), folder=store.folder(run), is_done=lambda: store.is_finished(run)
    )


def reason_of(job: Job, status: int) -> str:
    """Why a run failed: its last words, without the time at which they were said, and what they do not say."""
    said = _TIME.sub("", last_line(job.folder / LOG))
    if status > 0:
        return said or f"status {status}"
    end = "it ended well and left no results" if status == 0 else f"ended by {signal.Signals(-status).name}"
    if -status == signal.SIGKILL:
        end += ", as when memory runs out"
    return f"{end}; the last it said: {said}" if said else end


def plan_lines(plan: Plan, store: Store) -> list[str]:
    """What ``--check`` shows: every run, and whether it is finished."""
    runs = every_run(plan.rows)
    needed = _unfinished([row.run for row in plan.rows], store)
    lines = []
    for digest, run in runs.items():
        state = DONE if store.is_finished(run) else NOT_RUN if digest in needed else "not needed"
        lines.append(f"{state:<10} {run.name:<60} {store.folder(run)}")
    kinds = ", ".join(
        f"{sum(run.kind == kind for run in runs.values())} {kind}"
        for kind in dict.fromkeys(run.kind for run in runs.values())
    )
    return [*lines, f"{len(plan.rows)} rows from {len(runs)} runs ({kinds}); {len(needed)} are to be run"]


def _unfinished(finals: Sequence[Run], store: Store) -> dict[str, Run]:
    """The runs to make for these to be finished, each after those that it needs. What a finished run needed once is
    not needed again."""
    todo: dict[str, Run] = {}

    def add(run: Run) -> None:
        if run.digest in todo or store.is_finished(run):
            return
        for need in run.needs:
            add(need)
        todo[run.digest] = run

    for run in finals:
        add(run)
    return todo


def _needs(run: Run, other: Run) -> bool:
    return any(need.digest == other.digest or _needs(need, other) for need in run.needs)


def _slots(plan: Plan, parallel: int | None) -> list[dict[str, str]]:
    if not plan.on_gpu:
        threads = plan.study.threads
        count = max(1, len(os.sched_getaffinity(0)) // threads) if parallel is None else parallel
        slots = device_slots(count, accelerator="cpu", devices=1)
        return [slot | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} for slot in slots]
    return device_slots(parallel, accelerator=plan.accelerator, devices=plan.devices)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m finetune study",
        description="Runs a grid of pre-trainings, fine-tunings, seeds and folds from one file; one table, one figure.",
        allow_abbrev=False,
    )
    parser.add_argument("study", type=Path, help="the study's file, for instance configs/studies/quick.yaml")
    parser.add_argument("--out", type=Path, help="folder for tables, report and figure (default: studies/NAME)")
    parser.add_argument(
        "--runs", type=Path, default=Path("studies/runs"),
        help="folder of all runs, shared by studies: the same settings are run once (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="read everything, list the runs, and run nothing")
    parser.add_argument("--report", action="store_true", help="write tables, report and figure of what is finished now")
    parser.add_argument("--only", metavar="REGEX", help="run the rows alone whose names it is found in; see --check")
    parser.add_argument(
        "--parallel", type=lambda text: None if text == "auto" else int(text), metavar="N",
        help="runs at once, or auto (the default): as many as there are GPUs for, with trainer.devices of them each; "
        "on a processor as many as there are cores for, with the study's threads each",
    )  # fmt: skip
    parser.add_argument(
        "--keep-checkpoints", action="store_true",
        help="keep the checkpoints of finished runs; otherwise their export, results and figures alone",
    )  # fmt: skip
    return parser
