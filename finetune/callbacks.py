"""What a fine-tuning run says while it trains: the course of its scores."""

from __future__ import annotations

import logging

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from finetune.module import FinetuneModule
from finetune.protocol import labelled
from hicmae.data.splits import VAL
from hicmae.figures.curves import draw_curves
from hicmae.training.monitor import TrainingMonitor
from hicmae.training.run_directory import run_directory

logger = logging.getLogger(__name__)

_DRAWN = ("uar", "war", "macro_f1", "ccc", "mae")


class FollowValidation(Callback):
    """Says each validation's scores; at the end draws ``figures/learning_curves.png``.

    What follows a training (scores of the checkpoints, predictions, export) is in ``finish.py``: it needs passes over
    the data of its own.
    """

    def __init__(self) -> None:
        self.history: list[dict[str, float]] = []
        """The main scores after each epoch, with ``step``."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, FinetuneModule)
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        scores = pl_module.evaluations[VAL].scalars
        protocol = trainer.datamodule.protocol  # type: ignore[attr-defined]
        drawn = {f"{protocol.validation_name}/{name}": scores[name] for name in _DRAWN if name in scores}
        self.history.append({"step": float(trainer.global_step)} | drawn)
        if trainer.is_global_zero:
            shown = " ".join(f"{name} {value:.4f}" for name, value in scores.items())
            what = labelled("validation", protocol.label)
            logger.info("after epoch %d, %s | %s", trainer.current_epoch + 1, what, shown)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        root = run_directory(trainer)
        for monitor in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(monitor, TrainingMonitor):
                draw_curves(
                    monitor.history,
                    root / "figures" / "learning_curves.png",
                    validation=self.history,
                    title=labelled(f"fine-tuning, {root.name}", trainer.datamodule.protocol.label),  # type: ignore[attr-defined]
                )
