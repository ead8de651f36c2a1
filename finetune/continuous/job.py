"""The continuous job: features, folds, merged predictions; one command that goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, set_parsing_settings

from finetune.continuous.files import as_json, replace
from finetune.continuous.fold import run_fold
from finetune.continuous.inputs import choose_device, divide, prepare, weights_digest
from finetune.continuous.results import write_results
from finetune.continuous.settings import ContinuousSettings
from hicmae.continuous.prediction import LabelledVideo
from hicmae.data.file_lock import hold_lock
from hicmae.training.cli import run_job

logger = logging.getLogger(__name__)

_WAIT_S = 600.0


def build_parser() -> ArgumentParser:
    """The command line: the fields of ``ContinuousSettings``."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog="python -m finetune continuous",
        description="Predict valence and arousal at every frame of long videos: compute features with an exported "
        "backbone, train a leader-follower head on folds of the subjects, merge and score their predictions. Run the "
        "same command again to go on after an interruption, or with more test videos to predict them too.",
    )
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with these settings.")
    parser.add_class_arguments(ContinuousSettings)
    return parser


def run(settings: ContinuousSettings) -> dict[str, Any] | None:
    """Do all that is left to do. Returns what ``metrics.json`` holds, or ``None`` while folds are missing.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: input or settings that cannot be used.
    """
    device = choose_device(settings.device)
    videos = prepare(settings, device=device)
    folds, others = divide(videos, settings)
    _claim(settings, [video for fold in folds for video in fold.score])
    for fold in folds:
        if settings.run_folds is None or fold.number in settings.run_folds:
            run_fold(settings.out / "folds" / str(fold.number), fold, others, settings, device=device)
    missing = [f.number for f in folds if not (settings.out / "folds" / str(f.number) / "result.json").is_file()]
    if missing:
        logger.info("folds %s are still to be trained; results are written when all are there", missing)
        return None
    with hold_lock(settings.out / ".lock", wait_s=_WAIT_S, what=f"{settings.out}"):  # the last folds may end together
        return write_results(settings, folds, others)


def _claim(settings: ContinuousSettings, trained_on: Sequence[LabelledVideo]) -> None:
    """Mark the folder as this run's, or find that it already is: folds of different settings must not be merged.

    Raises:
        FileExistsError: it is another run's; what differs is named.
    """
    path = settings.out / "run.json"
    seen = hashlib.sha256()
    for video in sorted(trained_on, key=lambda one: one.name):
        assert video.labels is not None
        seen.update(
            f"{video.name}\x1f{video.subject}\x1f{video.split}\x1f{video.features.digest}".encode()
            + video.labels.tobytes()
        )
    wanted = {
        "backbone": weights_digest(settings.backbone)[:16],
        "videos": seen.hexdigest()[:16],
        **settings.trained_by(),
    }
    if not path.is_file():
        replace(path, as_json(wanted))
        return
    found: dict[str, Any] = json.loads(path.read_text())
    if differing := [
        f"{name} is {found.get(name)!r} there and {wanted[name]!r} now"
        for name in wanted
        if found.get(name) != wanted[name]
    ]:
        raise FileExistsError(
            f"{settings.out} holds a run with other settings or data: {'; '.join(differing)}. Choose another out "
            "(features can be shared by features_dir), or remove it"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""

    def job() -> None:
        parser = build_parser()
        given = parser.parse_args(list(argv) if argv is not None else None)
        fields = vars(parser.instantiate(given))
        run(ContinuousSettings(**{name: value for name, value in fields.items() if name != "config"}))

    return run_job("continuous", job)
