"""``python -m finetune fit|test``, and other jobs by name (``JOBS``): see ``--help`` and configs/finetune/."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from finetune.callbacks import FollowTest, FollowValidation
from finetune.data import FinetuneData
from finetune.finish import finish_test, finish_training
from finetune.module import FinetuneModule, monitored_score
from finetune.origin import origin_of, origins_of
from finetune.start import describe_head, is_recognizer
from finetune.tables import check_benchmark
from hicmae.benchmarks import card
from hicmae.data.labels import LabelSpec
from hicmae.training.cli import JobCLI, run_job, standard_callbacks
from hicmae.training.movable_checkpoint import MovableCheckpoint
from hicmae.training.run_directory import checkpoint_directory

logger = logging.getLogger(__name__)

JOBS = {
    "continuous": "finetune.continuous",
    "folds": "finetune.folds",
    "hidden": "finetune.hidden",
    "probe": "finetune.probe",
    "robustness": "finetune.robustness",
    "study": "finetune.study",
}
"""Jobs beside fit and test by their name on the command line: module with ``main(argv) -> int``, imported when asked
for."""


class FinetuneCLI(JobCLI):
    """The fine-tuning command line; ``--best.*`` says by which score the best checkpoint is chosen."""

    job = "finetune"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=True,
            help="After training, score the best and the last checkpoint on the test split too, if there is one.",
        )
        parser.add_argument(
            "--follow_test",
            type=bool,
            default=False,
            help="Score the test split after every validation too, to see what choosing the epoch on it would gain; "
            "changes neither training nor choice.",
        )
        parser.add_argument(
            "--benchmark",
            type=str | None,
            default=None,
            help="Benchmark whose classes the labels are held against; reports show its published results.",
        )
        for name in ("spec", "labels", "modalities"):
            parser.link_arguments(f"model.{name}", f"data.{name}", apply_on="instantiate")
        parser.add_lightning_class_args(MovableCheckpoint, "best")
        parser.set_defaults({"best.filename": "best", "best.mode": "max", "best.enable_version_counter": False})

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Subcommands and the arguments that the command line leaves to the trainer."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "test": {"model", "dataloaders", "datamodule"},
        }

    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        config = self.config[self.subcommand]
        config.best.dirpath = str(checkpoint_directory(config.trainer.default_root_dir))
        if config.best.monitor is None:
            config.best.monitor = monitored_score(has_classes=bool(config.model.labels.classes))
        if config.data.paper_protocol:  # validation scores have another name then
            config.best.monitor = config.best.monitor.replace("val/", "paper_protocol_val/", 1)
        if config.benchmark is not None:
            benchmark = card(config.benchmark)
            check_benchmark(benchmark, self._labels(config))
            if config.data.average_over != benchmark.average_over:
                logger.warning(
                    "benchmark %s averages predictions over %s, but data.average_over is %s: not its scores",
                    benchmark.name, benchmark.average_over or "no clips", config.data.average_over or "empty",
                )  # fmt: skip

    @staticmethod
    def _labels(config: Any) -> LabelSpec:
        given = config.model.labels
        return given if isinstance(given, LabelSpec) else LabelSpec(classes=given.classes, dimensions=given.dimensions)

    def before_fit(self) -> None:
        """Say what becomes of a trained head; refuse weights, a teacher's too, that know this run's test clips."""
        if self.config.fit.follow_test:
            self._follow_test()
        describe_head(self.model.init, self.model.targets)
        for source in (self.model.init, self.model.teacher_path):
            for what, origin in origins_of(source):
                self.datamodule.protocol.check_start(origin, what)

    def _follow_test(self) -> None:
        self.datamodule.follow_test = True
        self.datamodule.setup("fit")  # refuses it where there is nothing to follow
        best, callbacks = self.config.fit.best, self.trainer.callbacks  # type: ignore[attr-defined]
        callbacks.insert(0, FollowTest(best.monitor, best.mode))  # before those that write checkpoints, which hold it

    def before_test(self) -> None:
        """Hand on the protocol of an exported recogniser; a checkpoint's comes with the checkpoint."""
        init = self.model.init
        if self.trainer.ckpt_path is None and not self.config.test.ckpt_path and is_recognizer(init):
            origin = origin_of(init)
            if origin is not None:
                self.datamodule.take_origin(origin, str(init))

    def after_fit(self) -> None:
        """Score the checkpoints and write what the run leaves behind."""
        finish_training(
            self.trainer,
            self.model,
            self.datamodule,
            test=self.config.fit.test_after_fit,
            benchmark=self.config.fit.benchmark,
        )

    def after_test(self) -> None:
        """Write the scores of the test."""
        checkpoint = self.trainer.ckpt_path or self.config.test.model.init
        benchmark = self.config.test.benchmark
        finish_test(self.trainer, self.model, self.datamodule, checkpoint=Path(checkpoint), benchmark=benchmark)


def main(args: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    given = sys.argv[1:] if args is None else list(args)
    if given and given[0] in JOBS:
        status: int = importlib.import_module(JOBS[given[0]]).main(given[1:])
        return status
    return run_job(
        "finetune",
        lambda: FinetuneCLI(
            FinetuneModule,
            FinetuneData,
            seed_everything_default=0,
            trainer_defaults={
                "callbacks": [*standard_callbacks(), FollowValidation()],
                "log_every_n_steps": 10,
                "num_sanity_val_steps": 0,  # labels are checked before training, and a partial score means nothing
            },
            save_config_kwargs={"overwrite": True},
            args=None if args is None else given,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
