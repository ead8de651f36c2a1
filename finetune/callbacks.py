"""What a fine-tuning run says while it trains: the course of its scores."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from finetune.module import FinetuneModule
from finetune.protocol import labelled
from finetune.selection import CurvePoint, FollowedCurve
from hicmae.data.splits import TEST, VAL
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


class FollowTest(Callback):
    """With ``--follow_test true``, keeps the course of the test scores in ``test_curve.json`` and ``.csv``.

    The module scores the test clips in the validation's own pass, after the validation clips. Nothing is logged and
    nothing is chosen by these scores: a run with and without has the same weights and the same best epoch.

    Args:
        monitor: name of the validation score by which the best epoch is chosen, ``val/uar``.
        mode: max or min.

    Raises:
        ValueError: another kind of score.
    """

    def __init__(self, monitor: str, mode: str) -> None:
        if not monitor.startswith(f"{VAL}/"):
            raise ValueError(
                f"follow_test=true compares choices of an epoch by a score of the validation, and best.monitor is "
                f"{monitor!r}: set it to val/uar or another one, or leave follow_test out"
            )
        self._score, self._mode = monitor.removeprefix(f"{VAL}/"), mode
        self._points: list[CurvePoint] = []
        self._goes_on = False

    @property
    def curve(self) -> FollowedCurve:
        """The scores so far."""
        return FollowedCurve(score=self._score, mode=self._mode, points=tuple(self._points))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step and not self._goes_on:
            raise ValueError(
                f"{trainer.ckpt_path} was written without follow_test, so its epochs have no test scores and a curve "
                "would lack them; go on without --follow_test, or start a new run with it"
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, FinetuneModule)
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        scores = {part: pl_module.evaluations[part].scalars for part in (VAL, TEST)}
        self._points.append(
            CurvePoint(epoch=trainer.current_epoch + 1, step=trainer.global_step, val=scores[VAL], test=scores[TEST])
        )
        if trainer.is_global_zero:
            self.curve.write(run_directory(trainer))

    def state_dict(self) -> dict[str, Any]:
        return {"points": [point.to_dict() for point in self._points]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._points = [CurvePoint.from_dict(point) for point in state_dict["points"]]
        self._goes_on = True
