"""The pre-training job's model side: what happens to a batch, and how parameters are updated."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from hicmae.checkpoint import check_same_architecture
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.batch import ClipBatch
from hicmae.media.batch_transform import BatchTransform
from hicmae.pretraining import HiCMAE, Objective, PretrainOutput
from hicmae.training.optim import OptimizerConfig
from hicmae.training.run_optimizer import run_optimizer


class PretrainModule(pl.LightningModule):
    """Pre-trains a HiCMAE (paper, section 4.2).

    Args:
        preset: size of the model: micro, mini, tiny, small, base or large.
        architecture: fields of ``ModelConfig`` that differ from the preset, e.g. ``{width: 96}``.
        objective: settings of the loss.
        optimizer: AdamW, learning rates per 256 clips and schedule.
    """

    def __init__(
        self,
        preset: str = "base",
        architecture: dict[str, Any] | None = None,
        objective: Objective = Objective(),  # noqa: B008  frozen, and shown with its defaults by --help
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008
    ) -> None:
        super().__init__()
        self.config = ModelConfig.preset(preset, **(architecture or {}))
        self.spec = InputSpec.for_model(self.config)
        self.optimizer_config = optimizer
        self.model = HiCMAE(self.config, objective=objective, spec=self.spec)
        self.transform = BatchTransform(self.spec)

    def inputs(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Model inputs of a batch: video (B, 3, T, S, S) and log-mel (B, 1, frames, bins)."""
        video, log_mel = self.transform(
            batch.video,
            batch.waveform,
            sound_samples=batch.sound_samples,
            crop_box=batch.crop_box,
            flip=batch.flip,
            gain=batch.gain,
        )
        return video, log_mel

    def forward(self, batch: ClipBatch) -> PretrainOutput:
        """Losses and predictions of a batch."""
        video, log_mel = self.inputs(batch)
        output: PretrainOutput = self.model(
            video,
            log_mel,
            batch.video_visible,
            batch.audio_visible,
            has_video=batch.has_video & batch.valid,
            has_audio=batch.has_audio & batch.valid,
        )
        return output

    def training_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Tensor]:
        """Losses; ``TrainingMonitor`` logs them."""
        return _losses(self(batch))

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        """Losses of held-out clips, masked the same way every time."""
        losses = {f"val/{name}": value for name, value in _losses(self(batch)).items()}
        self.log_dict(losses, batch_size=len(batch.clip_ids), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine per step, for the global batch of this run."""
        return run_optimizer(self.trainer, self.model, self.optimizer_config, self.config)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the weights are, in plain values."""
        checkpoint["hicmae"] = {
            "job": "pretrain",
            "model": self.config.to_dict(),
            "input": self.spec.to_dict(),
            "objective": asdict(self.model.objective),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another architecture, naming the fields that differ."""
        if "hicmae" not in checkpoint:
            raise ValueError("this checkpoint was not written by HiCMAE; start from --model.preset instead")
        check_same_architecture(ModelConfig.from_dict(checkpoint["hicmae"]["model"]), self.config, "the checkpoint")


def _losses(output: PretrainOutput) -> dict[str, Tensor]:
    return {
        "loss": output.loss,
        "video_loss": output.video_loss,
        "audio_loss": output.audio_loss,
        "contrastive_loss": output.contrastive_loss,
    }
