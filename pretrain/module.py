"""The pre-training job's model side: what happens to a batch, and how parameters are updated."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from hicmae.checkpoint import check_same_architecture
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.batch import ClipBatch
from hicmae.media.batch_transform import BatchTransform
from hicmae.pretraining import HiCMAE, Objective, PretrainOutput
from hicmae.training.optim import OptimizerConfig, build_optimizer, schedule_epochs


class PretrainModule(pl.LightningModule):
    """Pre-trains a HiCMAE (paper, section 4.2).

    Args:
        preset: size of the model: micro, tiny, small or base.
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
        trainer = self.trainer
        accumulate = trainer.accumulate_grad_batches
        data = trainer.datamodule  # type: ignore[attr-defined]
        steps_per_epoch = max(1, math.ceil(data.batches_per_epoch / accumulate))
        optimizer, schedule = build_optimizer(
            self.model,
            self.optimizer_config,
            global_batch=data.batch_size * trainer.world_size * accumulate,
            steps_per_epoch=steps_per_epoch,
            epochs=schedule_epochs(trainer.max_epochs, trainer.max_steps, steps_per_epoch),
            depth=self.config.depth,
            fusion_depth=self.config.fusion_depth,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the weights are, in plain values."""
        checkpoint["hicmae"] = {
            "job": "pretrain",
            "model": self.config.to_dict(),
            "input": self.spec.to_dict(),
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
