"""The command line of both jobs: LightningCLI with our defaults, and errors that fit on one line."""

from __future__ import annotations

import logging
import netrc
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from jsonargparse import set_docstring_parse_options
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from hicmae.data.loader import DataStoppedError
from hicmae.data.skips import UnusableDataError
from hicmae.training.attention_report import AttentionReport
from hicmae.training.checkpoint_io import AtomicCheckpointIO, CheckpointNotWrittenError
from hicmae.training.data_report import DataReport
from hicmae.training.epoch_length import EpochLength
from hicmae.training.launching import cluster_plugins, settle_ddp
from hicmae.training.memory import MemoryAdvice
from hicmae.training.monitor import TrainingMonitor
from hicmae.training.precision import usable_precision
from hicmae.training.provenance import RunProvenance
from hicmae.training.resume import RunIsFinishedError, choose_start
from hicmae.training.resume_points import ResumePoints
from hicmae.training.run_record import RunRecord
from hicmae.training.status import NonFiniteLossError, StepStatus, StopRequestedError
from hicmae.user_errors import explains_itself

logger = logging.getLogger(__name__)

set_docstring_parse_options(attribute_docstrings=True)  # --help says what the fields of settings are

_NOISE = (
    r".*LeafSpec.*is deprecated",
    r"Total length of `list` across ranks is zero",  # a run without held-out clips
    r"The number of training batches .* is smaller than the logging interval",  # our monitor logs by optimiser step
    r"Checkpoint directory .* exists and is not empty",  # a resumed run
    r".*does not have many workers",
    r"The dirpath has changed from",  # a test of another run's checkpoint
)


class JobCLI(LightningCLI):
    """``fit``, ``validate`` and ``test`` from YAML files and flags.

    Adds to Lightning's trainer: ``--wandb`` (auto, online, offline, off), ``--checkpoint.*`` (how often and how many
    are kept), ``--ckpt_path auto``, the monitor and the status callback; and puts everything a run writes below
    ``--trainer.default_root_dir``.
    """

    job: str
    """Name of the job, as its checkpoints say it."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--wandb",
            default="auto",
            choices=["auto", "online", "offline", "off"],
            help="Weights & Biases: auto logs online where a key is found and offline otherwise; never asks.",
        )
        parser.add_argument("--wandb_project", type=str, default="hicmae", help="Project at Weights & Biases.")
        parser.add_lightning_class_args(ResumePoints, "checkpoint")

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand] if self.subcommand else self.config
        trainer = config.trainer
        if trainer.default_root_dir is None:
            raise ValueError("trainer.default_root_dir is not set: say where the run may write, e.g. runs/first")
        if trainer.precision is not None:
            trainer.precision = usable_precision(str(trainer.precision), str(trainer.accelerator))
        if trainer.enable_progress_bar is None:
            trainer.enable_progress_bar = sys.stderr.isatty()  # a bar in a log file is noise

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        config = self.config_init[self.subcommand] if self.subcommand else self.config_init
        if config.trainer.logger in (None, True) and self.subcommand == "fit":
            kwargs["logger"] = default_loggers(
                Path(config.trainer.default_root_dir), wandb=config.wandb, project=config.wandb_project
            )
        elif config.trainer.logger is None:
            kwargs["logger"] = False
        kwargs.setdefault("use_distributed_sampler", False)  # our loaders share out the clips themselves
        plugins = config.trainer.plugins or []
        plugins = list(plugins) if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        kwargs["plugins"] = [*plugins, *cluster_plugins(plugins)]
        trainer = super().instantiate_trainer(**kwargs)
        settle_ddp(trainer.strategy)
        return trainer

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        arguments: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        fitting = subcommand == "fit"
        arguments["ckpt_path"] = choose_start(
            self.trainer, arguments.get("ckpt_path"), job=self.job, new_run_allowed=fitting
        )
        return arguments


def standard_callbacks() -> list[Any]:
    """Callbacks of every job."""
    # The advice comes before the record, which takes its words as the reason why the run stopped.
    return [TrainingMonitor(), DataReport(), StepStatus(), EpochLength(), RunProvenance(), AttentionReport(),
            MemoryAdvice(), RunRecord()]  # fmt: skip


def default_loggers(root: Path, *, wandb: str, project: str) -> list[Logger]:
    """CSV always; Weights & Biases unless switched off."""
    loggers: list[Logger] = [CSVLogger(save_dir=root, name="logs", flush_logs_every_n_steps=1)]
    if wandb != "off":
        online = wandb == "online" or (wandb == "auto" and _wandb_key_found())
        os.environ.setdefault("WANDB_SILENT", "true")
        if not online:
            os.environ["WANDB_MODE"] = "offline"
        root.mkdir(parents=True, exist_ok=True)
        loggers.append(WandbLogger(save_dir=root, project=project, offline=not online))
    return loggers


def _wandb_key_found() -> bool:
    """Whether Weights & Biases would find a key, without asking for one or using the network."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def run_job(name: str, job: Callable[[], Any]) -> int:
    """Run a job; what a user can cause ends with one line on stderr. Returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    # Lightning's own notices repeat what our lines say, or speak of its inner workings.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    try:
        job()
    except RunIsFinishedError:
        _leave_group()
        return 0
    except StopRequestedError:  # of all ranks at the same step
        if dist.is_available() and dist.is_initialized():
            dist.barrier()  # srun and torchrun end the others once one has left so, and rank 0 has more to write
        _leave_group()
        raise
    except (
        NonFiniteLossError, CheckpointNotWrittenError, DataStoppedError, UnusableDataError, torch.OutOfMemoryError
    ) as error:  # fmt: skip
        sys.stderr.write(f"{name}: error: {error}\n")
        return 1
    except Exception as error:
        if not explains_itself(error):
            raise
        sys.stderr.write(f"{name}: error: {error}\n")
        return 2
    _leave_group()
    return 0


def _leave_group() -> None:
    """Leave the group of processes before the interpreter ends: threads of gloo that still run then abort the process.

    Not after an error: another rank may never come to what this one would wait for.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
