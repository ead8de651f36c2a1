"""How far a run came: finished, running, or stopped and why."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hicmae.report.history import last_value
from hicmae.report.run import Run
from hicmae.training.process_mark import is_running


@dataclass(frozen=True, kw_only=True)
class Status:
    """A word, and a sentence with what is behind it."""

    word: str
    """finished, running, stopped, killed, incomplete, or unfinished where nothing tells which."""
    sentence: str


def status_of(run: Run) -> Status:
    """From the run's own record; for runs without one, from the files that are there."""
    if run.kind == "folds":
        return _of_folds(run)
    record = run.record
    state = record.get("state")
    if state == "stopped":
        return Status(word="stopped", sentence=_why(str(record.get("reason", ""))) + _broken_batch(run))
    if state == "running":
        heard = f"when last heard of, at {_minute(record.get('changed'))} and {_steps(run)}, it was training"
        alive = is_running(record.get("process"))
        if alive is False:
            return Status(
                word="killed",
                sentence=f"Its process is gone without a word; {heard}. --ckpt_path auto goes on from its newest "
                "checkpoint." + _broken_batch(run),
            )
        doubt = "" if alive else "; a process that is killed on another machine leaves no other word"
        return Status(word="running", sentence=f"{heard[0].upper()}{heard[1:]}{doubt}.")
    exported = (run.root / "export" / "config.json").is_file()
    if state == "finished":
        return Status(
            word="finished",
            sentence=f"Training came to its end after {record.get('steps')} steps."
            + ("" if exported else " What follows it (scores, export) is not there: it still runs, or it failed."),
        )
    if exported:
        after = run.provenance.get("steps")
        went_on = (last_value(run.history, "step") or 0) > (after or float("inf"))
        return Status(
            word="unfinished" if went_on else "finished",
            sentence=f"The export is of {after} steps" + (", but training went on after it." if went_on else "."),
        )
    if (run.root / "metrics.json").is_file():
        return Status(word="finished", sentence="The scores are there; there is no export beside them.")
    if broken := _broken_batch(run):
        return Status(word="stopped", sentence="A loss was not finite." + broken)
    return Status(
        word="unfinished",
        sentence=f"There is no export: it still runs, or was stopped. It was last heard of at {_steps(run)}.",
    )


def _of_folds(run: Run) -> Status:
    missing = run.metrics.get("missing", {})
    about = run.metrics.get("about", {})
    if run.metrics.get("complete"):
        return Status(word="finished", sentence=f"All {about.get('folds', len(run.metrics.get('folds', {})))} folds.")
    named = "; ".join(f"fold {fold}: {why}" for fold, why in missing.items())
    return Status(word="incomplete", sentence=f"{len(missing)} of {about.get('folds')} folds are missing: {named}.")


def _minute(instant: object) -> str:
    """``2026-01-31T10:20:30+00:00`` without what nobody asks for."""
    return f"{str(instant)[:10]} {str(instant)[11:16]} UTC" if instant else "a time unknown"


def _steps(run: Run) -> str:
    step = last_value(run.history, "step")
    planned = run.record.get("steps_planned")
    if step is None:
        return "a step unknown"
    return f"step {step:.0f}" + (f" of {planned}" if planned else "")


def _why(reason: str) -> str:
    name, _, message = reason.partition(": ")
    if name == "StopRequestedError":
        return (
            "A signal (SIGTERM, SIGUSR1) asked it to stop; it saved a checkpoint, and --ckpt_path auto goes on from it."
        )
    if name == "KeyboardInterrupt":
        return "It was interrupted by hand."
    return f"It ended with {name}" + (f": {message}." if message else ".")


def _broken_batch(run: Run) -> str:
    """The newest of the batches that gave a loss that was not finite."""
    found = sorted(run.root.glob("nonfinite/step_*.json"), key=lambda path: int(path.stem.split("_")[1]))
    if not found:
        return ""
    try:
        replay = json.loads(found[-1].read_text("utf-8"))
        clips = ", ".join(map(str, replay.get("clip_ids", [])[:4]))
    except (ValueError, OSError, AttributeError):
        clips = ""
    return f" nonfinite/{found[-1].name} holds the batch" + (f" (clips {clips}, ...)." if clips else ".")
