"""Where a run goes on: the newest whole checkpoint of its directory, found by rank 0 for all ranks."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from hicmae.checkpoint import read_export
from hicmae.training.checkpoint_io import find_damage
from hicmae.training.run_directory import checkpoint_directory, export_directory, run_directory

logger = logging.getLogger(__name__)

AUTO, LAST = "auto", "last"
_HANDED_DOWN = "HICMAE_START"


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a run begins with."""

    path: str | None = None
    """Checkpoint to go on from; ``None``: a new run."""
    finished: bool = False
    """The run has come to its end and has left its export: nothing is to be done."""
    error: str | None = None
    """Why the run cannot start, with the remedy."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A checkpoint file, as far as it can be told without reading its weights."""

    path: Path
    step: int
    epochs: int
    """Epochs completed; 0 where the file does not say."""
    modified_s: float


class RunIsFinishedError(SystemExit):
    """Nothing is left to do; the exit status is 0."""

    def __init__(self) -> None:
        super().__init__(0)


def choose_start(trainer: Trainer, given: str | None, *, job: str, new_run_allowed: bool) -> str | None:
    """The checkpoint that all ranks are to load; ``None``: begin a new run.

    Args:
        trainer: knows the run directory, the ranks, and the limits of the run.
        given: ``--ckpt_path``: a path; ``auto`` or ``last`` for the newest; empty for none.
        job: pretrain or finetune; another job's checkpoints are not taken.
        new_run_allowed: whether this is a training, which can begin anew.

    Raises:
        FileNotFoundError: none is there, and ``last`` was asked for, or there is nothing to begin anew.
        FileExistsError: none is usable, or a new run would overwrite those of an earlier one.
        RunIsFinishedError: the training came to its end before.
    """
    if given not in (AUTO, LAST) and not (given is None and new_run_allowed):
        return given

    def decide() -> Start:
        try:
            return _decide(trainer, given, job=job, new_run_allowed=new_run_allowed)
        except (FileNotFoundError, FileExistsError) as error:
            return Start(error=f"{type(error).__name__}:{error}")

    start = _on_rank_zero(trainer, decide)
    if start.error is not None:
        kind, _, text = start.error.partition(":")
        raise (FileExistsError if kind == "FileExistsError" else FileNotFoundError)(text)
    if start.finished:
        raise RunIsFinishedError
    return start.path


def _decide(trainer: Trainer, given: str | None, *, job: str, new_run_allowed: bool) -> Start:
    folder = checkpoint_directory(run_directory(trainer))
    paths = sorted({path.resolve() for path in folder.glob("*.ckpt")})
    if given is None:
        if paths:
            raise FileExistsError(
                f"{folder} holds checkpoints of an earlier run: give --ckpt_path auto to go on with it, another "
                "--trainer.default_root_dir for a new one, or remove the folder"
            )
        return Start()
    if not paths:
        if given == LAST or not new_run_allowed:
            raise FileNotFoundError(f"no checkpoint in {folder}; is {run_directory(trainer)} the run's directory?")
        logger.info("no checkpoint in %s: a new run starts", folder)
        return Start()
    newest = newest_whole(paths, job=job)
    if newest is None:
        raise FileExistsError(
            f"none of the {len(paths)} checkpoints in {folder} can be used, as the warnings say; choose another "
            "--trainer.default_root_dir for a new run, or remove the folder"
        )
    if new_run_allowed and _is_finished(trainer, newest):
        logger.info("the run in %s is finished: %d epochs, %d steps, exported; nothing to do",
                    run_directory(trainer), newest.epochs, newest.step)  # fmt: skip
        return Start(path=str(newest.path), finished=True)
    logger.info("going on from %s: step %d", newest.path, newest.step)
    return Start(path=str(newest.path))


def newest_whole(paths: list[Path], *, job: str) -> Found | None:
    """The newest usable checkpoint, by step, then by time; each one passed over is named in a warning."""
    found = []
    for path in paths:
        try:
            found.append(_look_into(path, job=job))
        except Exception as error:  # unpickling a damaged file can raise anything
            reason = find_damage(path) if path.is_file() else "it points to nothing"
            logger.warning("passed over %s: %s", path, reason or str(error).splitlines()[0])
    for one in sorted(found, key=lambda one: (one.step, one.modified_s), reverse=True):
        if damage := find_damage(one.path):
            logger.warning("passed over %s (step %d), it is damaged: %s", one.path, one.step, damage)
            continue
        return one
    return None


def _look_into(path: Path, *, job: str) -> Found:
    """Read what a checkpoint says of itself; its weights stay on the disk."""
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    about = checkpoint.get("hicmae") if isinstance(checkpoint, dict) else None
    if about is None:
        raise ValueError("it was not written by HiCMAE")
    if about["job"] != job:
        raise ValueError(f"it was written by the job {about['job']}, not by {job}")
    return Found(
        path=path,
        step=int(checkpoint["global_step"]),
        epochs=int(checkpoint.get("epochs_done", 0)),
        modified_s=path.stat().st_mtime,
    )


def _is_finished(trainer: Trainer, newest: Found) -> bool:
    """Whether the limits are reached and the export, which a job writes last, is of that very step."""
    steps, epochs = trainer.max_steps, trainer.max_epochs
    if not (0 <= steps <= newest.step or (epochs is not None and 0 <= epochs <= newest.epochs)):
        return False
    try:
        return read_export(export_directory(run_directory(trainer))).provenance.get("steps") == newest.step
    except (OSError, ValueError):
        return False


def _on_rank_zero(trainer: Trainer, decide: Callable[[], Start]) -> Start:
    """Let rank 0 look at the files and tell the others: on a shared file system each might see something else.

    This comes before training, so the ranks may not have met yet. Started by torchrun or SLURM, they meet now. Where
    this process is about to start the others itself, they find the answer in their environment.
    """
    if trainer.world_size == 1:
        return decide()
    handed = json.loads(os.environ.get(_HANDED_DOWN, "{}"))
    if handed.get("from") == os.getppid():
        return Start(**handed["start"])
    strategy = trainer.strategy
    environment = getattr(strategy, "cluster_environment", None)
    if environment is not None and environment.creates_processes_externally:
        strategy.setup_environment()
        return strategy.broadcast(decide() if trainer.is_global_zero else Start())
    start = decide()
    os.environ[_HANDED_DOWN] = json.dumps({"from": os.getpid(), "start": asdict(start)})
    return start
