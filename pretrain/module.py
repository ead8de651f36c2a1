"""The pre-training job's model side: what happens to a batch, and how parameters are updated."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from hicmae.accumulation import losses_in_parts
from hicmae.backbone import MODALITIES, Modality
from hicmae.checkpoint import check_same_architecture
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.batch import ClipBatch
from hicmae.media.batch_transform import BatchTransform
from hicmae.pretraining import HiCMAE, Objective, PretrainInput, PretrainLosses
from hicmae.speed import SpeedConfig, accelerate, eagerly
from hicmae.training.optim import OptimizerConfig
from hicmae.training.run_optimizer import run_optimizer

logger = logging.getLogger(__name__)


class PretrainModule(pl.LightningModule):
    """Pre-trains a HiCMAE (paper, section 4.2).

    Args:
        preset: size of the model: micro, mini, tiny, small, base or large.
        architecture: fields of ``ModelConfig`` that differ from the preset, e.g. ``{width: 96}``.
        objective: settings of the loss.
        modalities: what the model learns from: video, audio, or both. Of a lone one there is neither fusion nor
            contrast, and the other's parts are not trained.
        optimizer: AdamW, learning rates per 256 clips and schedule.
        micro_batch_size: clips of a device's batch that go through the model at a time; ``null``: all. Losses and
            gradients are those of the whole batch, contrast included; memory falls, and the encoders run once more.
        speed: compiled graphs and recomputed activations; validation runs uncompiled.
    """

    def __init__(
        self,
        preset: str = "base",
        architecture: dict[str, Any] | None = None,
        objective: Objective = Objective(),  # noqa: B008  frozen, and shown with its defaults by --help
        modalities: tuple[Modality, ...] = MODALITIES,
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008
        micro_batch_size: int | None = None,
        speed: SpeedConfig = SpeedConfig(),  # noqa: B008
    ) -> None:
        super().__init__()
        if micro_batch_size is not None and micro_batch_size < 1:
            raise ValueError(
                f"micro_batch_size={micro_batch_size} must be 1 clip or more; null takes the whole batch at once"
            )
        self.micro_batch_size = micro_batch_size
        self.speed = speed
        self.config = ModelConfig.preset(preset, **(architecture or {}))
        self.spec = InputSpec.for_model(self.config)
        self.optimizer_config = optimizer
        self.model = HiCMAE(self.config, objective=objective, spec=self.spec, modalities=modalities)
        self.modalities = self.model.modalities
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

    def forward(self, batch: ClipBatch) -> PretrainLosses:
        """Losses of a batch, as a whole or in parts."""
        assert batch.video_visible is not None
        assert batch.audio_visible is not None
        video, log_mel = self.inputs(batch)
        clips = PretrainInput(
            video=video,
            log_mel=log_mel,
            video_visible=batch.video_visible,
            audio_visible=batch.audio_visible,
            has_video=batch.has_video & batch.valid,
            has_audio=batch.has_audio & batch.valid,
            video_decoded=batch.video_decoded,
            audio_decoded=batch.audio_decoded,
            clip_of=batch.clip_of,
        )
        if self.micro_batch_size is not None and self.micro_batch_size < len(clips):
            return losses_in_parts(self.model, clips, self.micro_batch_size)
        output: PretrainLosses = self.model(**vars(clips))
        return output

    def setup(self, stage: str) -> None:
        """Refuse what batches in parts cannot be combined with, and say where they change nothing."""
        if self.micro_batch_size is None:
            return
        asked = f"model.micro_batch_size={self.micro_batch_size}"
        if reason := self.why_not_in_parts():
            raise ValueError(f"{asked} {reason}")
        batch_size: int = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
        if self.micro_batch_size >= batch_size:
            logger.warning("%s has no effect: data.batch_size=%d is not more", asked, batch_size)

    def why_not_in_parts(self) -> str | None:
        """Why this trainer cannot take batches in parts (``micro_batch_size``), with a remedy; ``None``: it can."""
        strategy = self.trainer.strategy
        if type(strategy) not in (SingleDeviceStrategy, DDPStrategy):  # a kind of these may shard gradients
            return (
                f"needs one device or the strategy ddp, not {type(strategy).__name__}: gradients of the parts are "
                "taken past the hooks that share them out. Use ddp, or a smaller data.batch_size instead"
            )
        if self.trainer.precision in ("16-mixed", "16-true"):
            return (
                f"does not work with trainer.precision={self.trainer.precision}: gradients of the parts are taken "
                "before the loss is scaled. Use 32-true, or bf16-mixed on a GPU that has bfloat16"
            )
        return None

    def on_fit_start(self) -> None:
        """The model lies on its device now."""
        accelerate(self.model, self.speed, self.device.type)

    def training_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Tensor]:
        """Losses; ``TrainingMonitor`` logs them."""
        return _losses(self(batch))

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        """Losses of held-out clips, masked the same way every time."""
        with eagerly():
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
            "modalities": list(self.modalities),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another architecture or other modalities, naming what differs; warn of another loss."""
        if "hicmae" not in checkpoint:
            raise ValueError("this checkpoint was not written by HiCMAE; start from --model.preset instead")
        check_same_architecture(ModelConfig.from_dict(checkpoint["hicmae"]["model"]), self.config, "the checkpoint")
        found = tuple(checkpoint["hicmae"].get("modalities", MODALITIES))
        if found != self.modalities:
            raise ValueError(
                f"the checkpoint was written with model.modalities {list(found)}, and is to go on with "
                f"{list(self.modalities)}: set the same, or start a new run"
            )
        self._warn_of_another_loss(checkpoint["hicmae"].get("objective"))

    def _warn_of_another_loss(self, said: dict[str, Any] | None) -> None:
        """``said``: the checkpoint's objective, without fields that came later; ``None``: it was not said at first."""
        if said is None:
            return
        theirs, ours = asdict(Objective()) | said, asdict(self.model.objective)
        if changed := [f"{name} was {theirs[name]} and is {ours[name]}" for name in ours if theirs[name] != ours[name]]:
            logger.warning(
                "the checkpoint was trained with another loss: model.objective.%s. Its losses cannot be compared with "
                "those from here on", ", ".join(changed),
            )  # fmt: skip


def _losses(output: PretrainLosses) -> dict[str, Tensor]:
    return {
        "loss": output.loss,
        "video_loss": output.video_loss,
        "audio_loss": output.audio_loss,
        "contrastive_loss": output.contrastive_loss,
    }
