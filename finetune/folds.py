"""Cross-validation: one training a fold, and one report of all.

``python -m finetune folds --config configs/finetune/crema_d.yaml [any arguments of fit]`` trains with each fold as the
test in turn, each in its own process and directory ``OUT/foldK``, and writes ``OUT/folds.json``, ``OUT/report.md`` and
``OUT/figures/``. Give the same line again after an interruption: finished folds are kept, begun ones go on.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.device_slots import device_slots
from finetune.fold_report import draw_fold_figures, fold_report
from finetune.fold_results import collect_folds
from finetune.jobs import LOG, Job, JobRunner, last_line
from finetune.origin import origins_of
from finetune.protocol import Protocol
from finetune.settings import Settings, check_unchanged, content_of, resolve
from hicmae.benchmarks import card
from hicmae.data.source import digest_of
from hicmae.data.splits import content_digest, folds_of, refuse_shared_folds
from hicmae.user_errors import explains_itself

logger = logging.getLogger(__name__)

_SETTINGS, _FINISHED = "settings.json", "finished.json"
_RESULTS = ("metrics.json", "predictions.parquet")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_OURS = ("--data.test_fold", "--ckpt_path")


@dataclass(frozen=True, kw_only=True)
class Folds:
    """A cross-validation on disk."""

    out: Path
    every: tuple[int, ...]
    """All folds of the corpus."""
    material: Mapping[str, Any]
    """The settings that decide results, and the content of the corpus."""

    @property
    def digest(self) -> str:
        """A short name for them."""
        return digest_of([json.dumps(self.material, sort_keys=True)])

    def folder(self, fold: int) -> Path:
        """The run directory of a fold."""
        return self.out / f"fold{fold}"

    def is_finished(self, fold: int) -> bool:
        """Whether a fold came to its end.

        Raises:
            ValueError: it did so with other settings.
        """
        marker = self.folder(fold) / _FINISHED
        if not marker.is_file() or not all((self.folder(fold) / name).is_file() for name in _RESULTS):
            return False
        if json.loads(marker.read_text())["settings"] != self.digest:
            raise ValueError(
                f"{marker} is of other settings than {self.out / _SETTINGS}; remove {self.folder(fold)} to train the "
                "fold again, or choose another --out"
            )
        return True

    def refuse_unknown_beginnings(self) -> None:
        """Raise ``ValueError`` where a fold was begun, and what with is not known."""
        begun = [fold for fold in self.every if (self.folder(fold) / "checkpoints").is_dir()]
        if begun and not (self.out / _SETTINGS).is_file():
            raise ValueError(
                f"{self.folder(begun[0])} holds checkpoints, and there is no {self.out / _SETTINGS} to say with which "
                f"settings they were made; choose another --out, or remove {', '.join(_name(fold) for fold in begun)}"
            )

    def finish(self, fold: int) -> None:
        """Mark a fold as finished."""
        _write(self.folder(fold) / _FINISHED, json.dumps({"fold": fold, "settings": self.digest}) + "\n")


def main(argv: Sequence[str]) -> int:
    """Run the job; returns the exit status: 0, or 1 if a fold failed, 2 for wrong arguments, 128 + a signal."""
    parser = _parser()
    own, rest = parser.parse_known_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    try:
        return run_folds(rest, out=own.out, chosen=own.folds, parallel=own.parallel)
    except Exception as error:
        if not explains_itself(error) and not (isinstance(error, OSError) and error.errno in _NO_SPACE):
            raise
        sys.stderr.write(f"folds: error: {error}\n")
        return 2


def run_folds(
    arguments: Sequence[str],
    *,
    out: Path | None = None,
    chosen: Sequence[int] | None = None,
    parallel: int | None = None,
) -> int:
    """Train the folds that are not finished and report on those that are.

    Args:
        arguments: of ``python -m finetune fit``.
        out: directory for everything; ``None``: the run directory that the arguments name.
        chosen: folds to train; ``None``: all.
        parallel: folds at once; ``None``: as many as there are devices for.

    Raises:
        ValueError: arguments that cannot be used, or other settings than those the directory was begun with.
    """
    for name in _OURS:
        if given := [argument for argument in arguments if argument.split("=")[0] == name]:
            raise ValueError(f"{given[0]}: folds sets this itself for every fold; leave it out")
    if out is not None:
        arguments = [*arguments, f"--trainer.default_root_dir={out}"]
    settings = resolve(arguments)
    folds = _prepare(settings, Path(settings.config.trainer.default_root_dir))
    todo = list(folds.every) if chosen is None else list(dict.fromkeys(chosen))
    if unknown := sorted(set(todo) - set(folds.every)):
        raise ValueError(f"--folds: there is no fold {unknown[0]}; the folds are {', '.join(map(str, folds.every))}")
    trainer = settings.config.trainer
    slots = device_slots(parallel, accelerator=str(trainer.accelerator), devices=trainer.devices)
    remedy = f"Choose another --out for the new settings, or remove {folds.out}"
    folds.refuse_unknown_beginnings()
    check_unchanged(folds.out / _SETTINGS, folds.material, remedy)
    finished = [fold for fold in folds.every if folds.is_finished(fold)]
    if done := [fold for fold in todo if fold in finished]:
        logger.info("finished before: fold %s", ", ".join(map(str, done)))
    missing = {fold: "not run yet" for fold in folds.every if fold not in finished}
    jobs = {_name(fold): fold for fold in todo if fold not in finished}
    failed: dict[int, int] = {}

    def on_end(job: Job, status: int) -> None:
        fold = jobs[job.name]
        if status == 0 and all((job.folder / name).is_file() for name in _RESULTS):
            folds.finish(fold)
            missing.pop(fold)
            logger.info("%s: %s", job.name, _headline(job.folder))
        elif runner.stopped_by is not None:
            logger.info("%s: stopped", job.name)
        else:
            failed[fold] = status
            missing[fold] = f"failed, see {job.folder.name}/{LOG}"
            logger.error(
                "%s failed with status %d; the end of %s says why: %s",
                job.name, status, job.folder / LOG, last_line(job.folder / LOG),
            )  # fmt: skip

    runner = JobRunner(slots)
    teacher = settings.config.model.teacher
    taught = {fold: [f"--model.teacher={_of_fold(teacher, fold)}"] if teacher else [] for fold in todo}
    runner.run([_job(folds, fold, name, [*arguments, *taught[fold]]) for name, fold in jobs.items()], on_end)
    if runner.stopped_by is not None:
        logger.warning("stopped by %s; give the same line again to go on", signal.Signals(runner.stopped_by).name)
        return 128 + runner.stopped_by
    if len(missing) == len(folds.every):
        logger.error("no fold is finished: no report")
    else:
        write_report(folds, missing)
    return 1 if failed else 0


def write_report(folds: Folds, missing: dict[int, str]) -> None:
    """Write ``folds.json``, ``report.md`` and ``figures/`` on the folds that are not missing."""
    folders = {fold: folds.folder(fold) for fold in folds.every if fold not in missing}
    results = collect_folds(folders, missing)
    draw_fold_figures(results, folds.out / "figures")
    _write(folds.out / "folds.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
    _write(folds.out / "report.md", fold_report(results))
    for checkpoint, mean in results["mean"].items():
        shown = _shown(mean)
        label = f" [{results['about']['protocol']}]" if results["about"]["protocol"] else ""
        logger.info("mean of %d folds, %s checkpoint%s | %s", len(folders), checkpoint, label, shown)
    logger.info("wrote %s", folds.out / "report.md")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m finetune folds",
        description="Cross-validation: one training a fold, one report. Takes all arguments of python -m finetune fit.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--folds", type=_numbers, metavar="1,3", help="train these folds now; the report marks the others as missing"
    )
    parser.add_argument(
        "--parallel",
        type=lambda text: None if text == "auto" else int(text),
        metavar="N",
        help="folds at once, or auto (the default): as many as there are GPUs for, with trainer.devices of them each; "
        "one after another on a processor, and where trainer.devices is auto",
    )
    parser.add_argument("--out", type=Path, help="directory for everything (default: trainer.default_root_dir)")
    return parser


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _prepare(settings: Settings, out: Path) -> Folds:
    """Check what can be checked before anything runs."""
    config = settings.config
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or int(config.trainer.num_nodes) != 1:
        raise ValueError(
            "folds starts its own processes on one machine: start it once, without torchrun, with trainer.num_nodes=1"
        )
    if not config.test_after_fit:
        raise ValueError("test_after_fit=false leaves a fold without test scores; leave it out")
    source = settings.source()
    every = folds_of(source)
    if not every:
        raise ValueError(
            f"{source.name} has one fixed division (train, val, test) and no folds (splits fold1, fold2, ...); train "
            "it once with python -m finetune fit"
        )
    if config.benchmark is not None and (expected := card(config.benchmark).folds) != len(every):
        raise ValueError(
            f"{source.name} has {len(every)} folds, and benchmark {config.benchmark} has {expected}: "
            "the results would be of another division. Prepare the corpus anew, or leave benchmark out"
        )
    if not config.data.allow_shared_subjects:
        refuse_shared_folds(source)
    content = content_digest(source)
    for fold in every:  # at once, and not after hours of other folds
        own = Protocol(test_fold=fold, paper=config.data.paper_protocol, content=content)
        for weights in (config.model.init, _of_fold(config.model.teacher, fold)):
            for what, origin in origins_of(Path(weights) if weights else None):
                own.check_start(origin, what)
    material = settings.material | {
        "data.content": content,
        "data.media": source.media_digest,
        "model.init.content": content_of("init", config.model.init),
        "model.teacher.content": [content_of("teacher", _of_fold(config.model.teacher, fold)) for fold in every]
        if config.model.teacher
        else None,
    }
    return Folds(out=out, every=every, material=material)


def _name(fold: int) -> str:
    return f"fold {fold}"


def _of_fold(path: Any, fold: int) -> str | None:
    """The path with ``{fold}`` in it replaced: a teacher is another one for each fold, or it knows the test."""
    return None if path is None else str(path).replace("{fold}", str(fold))


def _job(folds: Folds, fold: int, name: str, arguments: Sequence[str]) -> Job:
    folder = folds.folder(fold)
    own = [f"--data.test_fold={fold}", f"--trainer.default_root_dir={folder}", "--ckpt_path=auto"]
    return Job(name=name, command=[sys.executable, "-m", "finetune", "fit", *arguments, *own], folder=folder)


def _headline(folder: Path) -> str:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    scores = content.get("best", content["last"])["test"]
    label = f" [{scores['protocol']}]" if "protocol" in scores else ""
    return f"test{label} | {_shown(scores)}"


def _shown(scores: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {scores[name]:.4f}" for name in ("uar", "war", "ccc") if scores.get(name) is not None)


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)
