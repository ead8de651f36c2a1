"""The steps of training and inference on a batch that lies on the device, as the jobs take them.

Lightning, data and callbacks are left out; model, losses, precision and optimiser are those of the jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from hicmae.backbone import Backbone
from hicmae.bench.batch import CLASSES, SyntheticBatch
from hicmae.bench.settings import BenchSettings
from hicmae.config import InputSpec
from hicmae.flops import pretraining_macs, recognition_macs
from hicmae.heads import categorical
from hicmae.losses import soft_cross_entropy
from hicmae.media.batch_transform import BatchTransform
from hicmae.pretraining import HiCMAE
from hicmae.recognition import EmotionRecognizer
from hicmae.speed import THRIFTY, SpeedConfig, accelerate
from hicmae.training.optim import OptimizerConfig, build_optimizer

FINETUNING = OptimizerConfig(
    lr_per_256=1e-3, min_lr_per_256=1e-6, scale_min_lr=False, betas=(0.9, 0.999), layer_decay=0.75
)
"""The recipe of the fine-tuning job, which the library does not import; a test holds the two together."""


class Steps(Protocol):
    """What the bench can time: our steps, and those of the reference."""

    def whole(self) -> float | Tensor:
        """A whole step of training: gradients set to nothing, forward, loss, backward, optimiser. Gives the loss."""

    def forward_backward(self) -> float | Tensor:
        """The same without the optimiser."""


class TrainingSteps:
    """Steps of one model with its optimiser.

    Args:
        model: on the device, and sped up as it is to be.
        loss: computes the loss of the batch, inside autocast.
        optimizer: recipe of the job.
        settings: device and precision.
        depth, fusion_depth: of the model, for layer-wise decay.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[], Tensor],
        optimizer: OptimizerConfig,
        settings: BenchSettings,
        *,
        depth: int,
        fusion_depth: int,
    ) -> None:
        self.model = model
        self._loss = loss
        self._settings = settings
        # 1,000 epochs of 1,000 steps: the schedule only has to go on for as long as the bench does
        self._optimizer, self._schedule = build_optimizer(
            model, optimizer, global_batch=settings.batch, steps_per_epoch=1000, epochs=1000.0, depth=depth,
            fusion_depth=fusion_depth,
        )  # fmt: skip

    def forward_backward(self) -> Tensor:
        """Gradients set to nothing, forward, loss, backward."""
        self._optimizer.zero_grad(set_to_none=True)
        with autocast(self._settings):
            loss = self._loss()
        loss.backward()
        return loss.detach()

    def whole(self) -> Tensor:
        """The step of the job; the loss stays on the device."""
        loss = self.forward_backward()
        self._optimizer.step()
        self._schedule.step()
        return loss


def autocast(settings: BenchSettings) -> torch.autocast:
    """The precision of the jobs."""
    return torch.autocast(settings.torch_device.type, torch.bfloat16, enabled=settings.precision == "bf16")


def accelerate_as(settings: BenchSettings, model: nn.Module) -> None:
    """Compile and recompute as the jobs do under the same settings."""
    usual = THRIFTY if isinstance(model, EmotionRecognizer) else SpeedConfig()
    recompute = settings.recompute or usual.recompute
    accelerate(model, SpeedConfig(compile=settings.compile, recompute=recompute), settings.torch_device.type)


def pretraining_steps(settings: BenchSettings, batch: SyntheticBatch, *, seed: int = 0) -> TrainingSteps:
    """Masked reconstruction and contrast, with the paper's optimiser."""
    torch.manual_seed(seed)
    config = settings.config
    model = HiCMAE(config).to(settings.torch_device).train()
    accelerate_as(settings, model)
    everywhere = torch.ones(len(batch), dtype=torch.bool, device=settings.torch_device)

    def loss() -> Tensor:
        # The job always says which clips have what, so the bench does too.
        output = model(
            batch.video, batch.log_mel, batch.video_visible, batch.audio_visible, has_video=everywhere,
            has_audio=everywhere,
        )  # fmt: skip
        value: Tensor = output.loss
        return value

    return TrainingSteps(
        model, loss, OptimizerConfig(), settings, depth=config.depth, fusion_depth=config.fusion_depth
    )  # fmt: skip


def finetuning_steps(settings: BenchSettings, batch: SyntheticBatch, *, seed: int = 0) -> TrainingSteps:
    """Six emotions with stochastic depth and label smoothing, with the paper's optimiser."""
    torch.manual_seed(seed)
    config = settings.config
    recognizer = EmotionRecognizer(Backbone(config, drop_path=0.1), categorical(CLASSES), init_scale=1e-3)
    recognizer.to(settings.torch_device).train()
    accelerate_as(settings, recognizer)

    def loss() -> Tensor:
        logits = recognizer(batch.video, batch.log_mel).logits
        return soft_cross_entropy(logits, batch.labels, label_smoothing=0.1)

    return TrainingSteps(
        recognizer, loss, FINETUNING, settings, depth=config.depth, fusion_depth=config.fusion_depth
    )  # fmt: skip


def embedding_step(settings: BenchSettings, batch: SyntheticBatch) -> Callable[[], Tensor]:
    """Features of whole clips, as ``hicmae embed`` computes them."""
    torch.manual_seed(0)
    backbone = Backbone(settings.config).to(settings.torch_device).eval()
    accelerate_as(settings, backbone)

    def step() -> Tensor:
        with torch.inference_mode(), autocast(settings):
            pooled: Tensor = backbone(batch.video, batch.log_mel).pooled
            return pooled

    return step


def transform_step(settings: BenchSettings, batch: SyntheticBatch) -> Callable[[], object]:
    """Random crops, colours, gains and log-mel of the frames and the sound that workers ship."""
    clips, side = len(batch), settings.config.image_size
    transform = BatchTransform(InputSpec.for_model(settings.config)).to(settings.torch_device)
    rng = torch.Generator().manual_seed(0)
    inner = (0.66 + 0.34 * torch.rand(clips, 2, generator=rng)) * side
    crop_box = torch.cat([(side - inner) / 2, inner], dim=1).to(settings.torch_device)
    gain = (0.5 + torch.rand(clips, generator=rng)).to(settings.torch_device)
    return lambda: transform(batch.frames, batch.waveform, crop_box=crop_box, gain=gain)


def stage_step(stage: str, settings: BenchSettings, batch: SyntheticBatch) -> Callable[[], object]:
    """What a stage times on a batch that lies on the device."""
    if stage == "pretrain":
        return pretraining_steps(settings, batch).whole
    if stage == "finetune":
        return finetuning_steps(settings, batch).whole
    if stage == "embed":
        return embedding_step(settings, batch)
    if stage == "transform":
        return transform_step(settings, batch)
    raise ValueError(f"{stage} has no step on the device")


def macs_per_clip(stage: str, settings: BenchSettings, batch: SyntheticBatch) -> int:
    """Multiply-adds of a clip's forward pass in this stage."""
    if stage == "pretrain":
        return pretraining_macs(
            settings.config,
            video_visible=batch.video_visible.shape[1],
            audio_visible=batch.audio_visible.shape[1],
        )
    return recognition_macs(settings.config)


def flops_per_clip(stage: str, settings: BenchSettings, batch: SyntheticBatch) -> int:
    """Floating-point operations of a clip: two a multiply-add, and three forward passes' worth in training."""
    return 2 * macs_per_clip(stage, settings, batch) * (1 if stage == "embed" else 3)
