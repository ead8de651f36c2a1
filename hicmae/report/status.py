"""How far a run came: finished, running, or stopped and why."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hicmae.report.history import last_value
from hicmae.report.run import Run


@dataclass(frozen=True, kw_only=True)
class Status:
    """A word, and a sentence with what is behind it."""

    word: str
    """finished, running, stopped, incomplete, or unfinished where nothing tells which."""
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
        return Status(
            word="running",
            sentence=f"When last heard of, at {record.get('changed', 'a time unknown')} and {_steps(run)}, it was "
            "training; a process that is killed leaves no other word.",
        )
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


def _steps(run: Run) -> str:
    step = last_value(run.history, "step")
    planned = run.record.get("steps_planned")
    if step is None:
        return "a step unknown"
    return f"step {step:.0f}" + (f" of {planned}" if planned else "")


def _why(reason: str) -> str:
    name, _, message = reason.partition(": ")
    if name == "StopRequestedError":
        return "A signal asked it to stop (SIGTERM); a checkpoint was written, and --ckpt_path auto goes on from it."
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
