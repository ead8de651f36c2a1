"""``python -m pretrain fit|validate``: see ``--help`` and configs/pretrain/."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lightning.pytorch.cli import LightningArgumentParser

from hicmae.training.cli import JobCLI, run_job, standard_callbacks
from pretrain.callbacks import FinishPretraining
from pretrain.data import PretrainData
from pretrain.module import PretrainModule
from pretrain.online_probes import OnlineProbes


class PretrainCLI(JobCLI):
    """The pre-training command line."""

    job = "pretrain"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        for name in ("config", "modalities"):
            parser.link_arguments(f"model.{name}", f"data.{name}", apply_on="instantiate")
        parser.add_lightning_class_args(OnlineProbes, "probe")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Subcommands and the arguments that the command line leaves to the trainer."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "validate": {"model", "dataloaders", "datamodule"},
        }


def main(args: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return run_job(
        "pretrain",
        lambda: PretrainCLI(
            PretrainModule,
            PretrainData,
            seed_everything_default=0,
            trainer_defaults={"callbacks": [*standard_callbacks(), FinishPretraining()], "log_every_n_steps": 10},
            save_config_kwargs={"overwrite": True},
            args=list(args) if args is not None else None,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
