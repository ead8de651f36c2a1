"""The training loop's side of the continuous head.

Shapes: B windows, L steps, K targets.
"""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from numpy.typing import NDArray
from torch import Tensor

from finetune.continuous.data import ContinuousData, WindowBatch
from finetune.continuous.settings import ContinuousSettings
from hicmae.continuous.leader_follower import LeaderFollower
from hicmae.continuous.loss import masked_ccc_loss
from hicmae.continuous.prediction import LabelledVideo, frame_scores, predict_frames, selection_score
from hicmae.data.order import generator
from hicmae.training.optim import warmup_cosine

MONITORED = "val/ccc"


class ContinuousModule(pl.LightningModule):
    """Trains a ``LeaderFollower`` with the CCC loss; validates over all frames of the validation videos.

    Args:
        model: the head.
        settings: of the job.
        fold: its number goes into the seed of dropout.
    """

    def __init__(self, model: LeaderFollower, settings: ContinuousSettings, *, fold: int) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.fold = fold
        self.history: list[dict[str, float]] = []
        """The mean loss and the validation scores of every epoch so far, resumed parts included."""
        self._losses: list[Tensor] = []
        self._predictions: dict[str, NDArray[np.float64]] = {}
        self._labels: dict[str, NDArray[np.float32]] = {}

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:
        """CCC loss over the labelled steps."""
        # Keyed by the step, so that a resumed run drops what an undisturbed one would.
        rng = generator("continuous dropout", self.settings.seed, self.fold, self.global_step)
        torch.manual_seed(int(rng.integers(2**63)))
        loss = masked_ccc_loss(self.model(batch.features, batch.present).values, batch.target, batch.labelled)
        if not math.isfinite(value := loss.item()):
            raise ValueError(
                f"fold {self.fold}, step {self.global_step}: the loss is {value}; lower training.lr "
                f"({self.settings.training.lr})"
            )
        self._losses.append(loss.detach())
        return loss

    def validation_step(self, video: LabelledVideo, batch_idx: int) -> None:
        """Predictions for every frame of a video."""
        settings = self.settings
        values = predict_frames(self.model, video, settings.window, batch_size=settings.training.batch_size)
        assert video.labels is not None
        self._predictions[video.name] = values.clip(*settings.limits)
        self._labels[video.name] = video.labels

    def on_validation_epoch_end(self) -> None:
        """Scores over all frames of all videos."""
        scores = frame_scores(self._predictions, self._labels, self.settings.targets)
        self._predictions, self._labels = {}, {}
        loss = torch.stack(self._losses).mean().item() if self._losses else math.nan
        self._losses = []
        self.log(MONITORED, selection_score(scores), prog_bar=True)
        self.history.append({"epoch": self.current_epoch + 1, "loss": loss} | scores)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW; the learning rate follows from the step alone."""
        training = self.settings.training
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ContinuousData)
        per_epoch = data.batches_per_epoch
        warmup, total = round(per_epoch * training.warmup_epochs), per_epoch * training.epochs
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=training.lr,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: warmup_cosine(step, peak=1.0, floor=0.0, warmup_steps=warmup, total_steps=total),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the weights are, and keep the course of the scores."""
        checkpoint["hicmae"] = {"job": "continuous", "fold": self.fold, "history": self.history}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the course of the scores up again."""
        self.history = list(checkpoint["hicmae"]["history"])
