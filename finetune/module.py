"""The fine-tuning job's model side: what happens to a batch, and how parameters are updated."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from finetune.class_weights import given_weights, weights_of_clips
from finetune.evaluation import Evaluation, evaluate, targets_of
from finetune.lesson import Lesson, settings_of
from finetune.start import check_modalities, check_same_task, choose_start, is_recognizer
from finetune.timing import check_same_timing, with_timing
from hicmae.backbone import MODALITIES, Backbone, Modality
from hicmae.checkpoint import check_same_architecture, load_recognizer
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.batch import ClipBatch
from hicmae.data.labels import LabelSpec
from hicmae.data.order import generator
from hicmae.data.splits import TEST, VAL
from hicmae.distillation import DistillationConfig, resize_frames
from hicmae.heads import Targets
from hicmae.losses import dimensional_loss, soft_cross_entropy
from hicmae.media.batch_transform import BatchTransform
from hicmae.mixing import Mix, MixConfig, draw_mix
from hicmae.predictions import SegmentOutputs
from hicmae.recognition import EmotionRecognizer, Recognition
from hicmae.speed import THRIFTY, SpeedConfig, accelerate, eagerly
from hicmae.training.ema import EmaWeights
from hicmae.training.optim import OptimizerConfig
from hicmae.training.run_optimizer import run_optimizer

logger = logging.getLogger(__name__)

RECIPE = OptimizerConfig(lr_per_256=1e-3, min_lr_per_256=1e-6, scale_min_lr=False, betas=(0.9, 0.999), layer_decay=0.75)
"""The paper's optimiser for fine-tuning (section 4.2)."""


class FinetuneModule(pl.LightningModule):
    """Fine-tunes a backbone to recognise emotion (paper, sections 3.4 and 4.2).

    Args:
        labels: what is learnt: classes by label column (one column at most), ranges of dimensions by label column.
        init: backbone to start from: exported folder, ``.ckpt`` or reference file; empty: random weights. The test
            takes an exported recogniser, head and all.
        preset: size of the model without ``init`` (micro, mini, tiny, small, base, large; base if empty); with it,
            only checked.
        architecture: fields of ``ModelConfig`` that differ from the preset, e.g. ``{width: 96}``; with ``init``, only
            checked, but for ``feature_fusion`` (``layers`` or ``last``), which is chosen anew: no weight depends on it.
        input: timing of the input where it differs from that of ``init`` (without it, the paper's), in seconds:
            ``frame_interval_s``, from frame to frame, and ``audio_seconds``. No weight depends on it.
        modalities: what the model sees and hears: video, audio, or both.
        freeze: layers of both encoders, counted from the input, that are not trained, their patch embeddings
            included; ``backbone``: all but the head.
        drop_path: stochastic depth of the last layer; grows from 0 over the layers.
        head_init_scale: factor of the head's initial weights.
        label_smoothing: share of every class label spread evenly over the classes.
        class_weights: factors of the classes' terms in the cross-entropy, in the order of the classes; ``balanced``:
            inversely proportional to their training clips; empty: none.
        dimensional_loss: loss of the dimensions: mse, ccc, pcc, l1 or smooth_l1.
        dimensional_weight: factor of that loss beside the classes' cross-entropy.
        mixing: mixup and cutmix.
        teacher: trained recogniser to learn from beside the labels: exported folder or ``.ckpt`` of a fine-tuning. Its
            frames may be larger, its modalities others, its classes in another order. Empty: none.
        distillation: how much the teacher counts.
        ema_decay: average the weights over the steps, keeping this share of the average at each (0.999, say);
            validation, test and export take the average. Empty: off.
        optimizer: AdamW, learning rates per 256 clips, layer decay and schedule.
        speed: compiled graphs and recomputed activations; validation and test run uncompiled.
    """

    def __init__(
        self,
        labels: LabelSpec,
        init: Path | None = None,
        preset: str | None = None,
        architecture: dict[str, Any] | None = None,
        input: dict[str, float] | None = None,
        modalities: tuple[Modality, ...] = MODALITIES,
        freeze: int | Literal["backbone"] = 0,
        drop_path: float = 0.1,
        head_init_scale: float = 1e-3,
        label_smoothing: float = 0.1,
        class_weights: list[float] | Literal["balanced"] | None = None,
        dimensional_loss: Literal["mse", "ccc", "pcc", "l1", "smooth_l1"] = "mse",
        dimensional_weight: float = 1.0,
        mixing: MixConfig = MixConfig(),  # noqa: B008  frozen, and shown with its defaults by --help
        teacher: Path | None = None,
        distillation: DistillationConfig = DistillationConfig(),  # noqa: B008  frozen, and shown by --help
        ema_decay: float | None = None,
        optimizer: OptimizerConfig = RECIPE,
        speed: SpeedConfig = THRIFTY,
    ) -> None:
        super().__init__()
        self.speed = speed
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing} must be at least 0 and below 1")
        if dimensional_weight < 0:
            raise ValueError(f"dimensional_weight={dimensional_weight} must be 0 or more: below, errors are rewarded")
        if mixing.video_only and "video" not in modalities:
            raise ValueError("mixing.video_only needs video among model.modalities; set mixing.video_only=false")
        self.labels = labels
        self.targets = targets_of(labels)
        self.init = init
        start = choose_start(init, preset, architecture)
        check_modalities(start, modalities, init)
        self.config, self.spec = start.config, with_timing(start.spec, input or {})
        backbone = Backbone(self.config, drop_path=drop_path)
        if start.backbone is not None:
            backbone.load_state_dict(start.backbone)
        self.model = EmotionRecognizer(backbone, self.targets, modalities=modalities, init_scale=head_init_scale)
        self.model.freeze(freeze)
        self.frozen = freeze
        self.modalities = self.model.modalities
        self.class_weights = class_weights
        self.register_buffer("_weight", given_weights(class_weights, self.targets.classes), persistent=False)
        self.ema_decay = ema_decay
        if ema_decay is not None:
            EmaWeights(ema_decay)  # refuses what it cannot be, before any data is read
        self.label_smoothing = label_smoothing
        self.dimensional_loss_name = dimensional_loss
        self.dimensional_weight = dimensional_weight
        self.mixing = mixing
        self.optimizer_config = optimizer
        self.transform = BatchTransform(self.spec)
        self.teacher_path = teacher
        self.distillation = distillation
        self.lesson: Lesson | None = None
        """The teacher, read when a training starts: neither test nor probe needs it."""
        self._taught: dict[str, Any] | None = None
        self.evaluations: dict[str, Evaluation] = {}
        """The latest pass over each split (val, test)."""
        self._segments = _nothing_yet()
        self._has_head = False

    _weight: Tensor | None
    """float32 (C,), factors of the classes' terms in the loss."""

    @property
    def monitored(self) -> str:
        """The validation score that the best checkpoint has most of."""
        return monitored_score(has_classes=bool(self.targets.classes))

    # ------------------------------------------------------------ one batch

    def inputs(self, batch: ClipBatch, mix: Mix | None = None) -> tuple[Tensor | None, Tensor | None]:
        """Model inputs: video (B, 3, T, S, S) and log-mel (B, 1, frames, bins); ``None`` for what is not used."""
        return self._inputs(batch, mix, self.transform, self.modalities)

    def _inputs(
        self, batch: ClipBatch, mix: Mix | None, frames: BatchTransform, modalities: tuple[Modality, ...]
    ) -> tuple[Tensor | None, Tensor | None]:
        video = log_mel = None
        if "video" in modalities:
            video = frames.frames(
                batch.video,
                crop_box=batch.crop_box,
                flip=batch.flip,
                frame_ops=batch.frame_ops,
                erasures=batch.erasures,
            )
            video = video if mix is None else mix.video(video)
        if "audio" in modalities:
            log_mel = self.transform.sound(
                batch.waveform, sound_samples=batch.sound_samples, gain=batch.gain, stripes=batch.stripes
            )
            log_mel = log_mel if mix is None else mix.log_mel(log_mel)
        return video, log_mel

    def forward(self, batch: ClipBatch, mix: Mix | None = None) -> Recognition:
        """Features, logits and values of a batch."""
        recognition: Recognition = self.model(*self.inputs(batch, mix))
        return recognition

    def losses(self, output: Recognition, labels: dict[str, Tensor], mix: Mix | None = None) -> dict[str, Tensor]:
        """``loss``, and its parts where there are two."""
        parts: dict[str, Tensor] = {}
        if output.logits is not None:
            target = labels[next(iter(self.labels.classes))]
            shares = target if mix is None else mix.classes(target, len(self.targets.classes))
            parts["class_loss"] = soft_cross_entropy(
                output.logits, shares, label_smoothing=self.label_smoothing, weight=self._weight
            )
        if output.values is not None:
            values = torch.stack([labels[name] for name in self.targets.dimensions], dim=1)
            values = values if mix is None else mix.values(values)
            parts["dimensional_loss"] = dimensional_loss(self.dimensional_loss_name)(output.values, values)
        return self._total(parts)

    def _total(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """A part that comes alone, because a teacher has no more, keeps its factor: it is weighed as against labels."""
        both = self.targets.classes and self.targets.dimensions
        factors = {"class_loss": 1.0, "dimensional_loss": self.dimensional_weight if both else 1.0}
        total = torch.stack([factors[name] * part for name, part in parts.items()]).sum()
        return {"loss": total} | (parts if len(parts) > 1 else {})

    def lesson_losses(self, lesson: Lesson, batch: ClipBatch, mix: Mix | None = None) -> dict[str, Tensor]:
        """``loss`` and its parts, with a teacher that sees the same clips."""
        video, log_mel = self._inputs(batch, mix, lesson.transform, lesson.modalities)
        output = self.model(None if video is None else resize_frames(video, self.spec.image_size), log_mel)
        task = self.losses(output, batch.labels, mix)
        parts = lesson.losses(output, lesson.teacher(video, log_mel), dimensional_loss(self.dimensional_loss_name))
        return lesson.join(task, self._total(parts))

    def training_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Tensor]:
        """Losses; ``TrainingMonitor`` logs them."""
        # Keyed by step and clip, so that a resumed run draws what an undisturbed one would; the clip tells ranks and
        # accumulated batches apart. Drop path draws from torch's own generator.
        rng = generator("finetune", self._data.seed, self.global_step, batch.clip_ids[0])
        torch.manual_seed(int(rng.integers(2**63)))
        lesson = self.lesson
        shown = self.modalities if lesson is None else lesson.modalities
        image_size = self.spec.image_size if lesson is None else lesson.image_size
        mix = draw_mix(
            rng,
            self.mixing,
            image_size=image_size if "video" in shown else None,
            audio_frames=self.spec.audio_frames if "audio" in shown else None,
        )
        if lesson is not None:
            return self.lesson_losses(lesson, batch, mix)
        return self.losses(self(batch, mix), batch.labels, mix)

    # ------------------------------------------------------------ evaluation

    def _evaluate(self, batch: ClipBatch, part: str) -> None:
        with eagerly():  # a test after training says what a test by itself does
            output = self(batch)
        columns = [] if output.logits is None else [output.logits.float().softmax(dim=1)]
        columns += [] if output.values is None else [output.values.float()]
        given = {"video": batch.has_video, "audio": batch.has_audio}
        columns += [given[name].float()[:, None] for name in self.modalities]
        self._segments[part].add(batch.index, batch.segment, batch.valid, torch.cat(columns, dim=1))

    def _finish_evaluation(self, part: str) -> Evaluation:
        result = self._segments[part].gather()
        source, average_over = self._data.evaluation_source(part), self._data.average_over
        evaluation = evaluate(result, source, self.labels, self.modalities, average_over=average_over)
        self.evaluations[part] = evaluation
        return evaluation

    def on_validation_epoch_start(self) -> None:
        """Forget the last pass."""
        self._segments = _nothing_yet()

    def validation_step(self, batch: ClipBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Outputs of validation clips; of the test's, which come second, where a training follows them."""
        self._evaluate(batch, (VAL, TEST)[dataloader_idx])

    def on_validation_epoch_end(self) -> None:
        """Scores over all clips of all ranks."""
        if self.trainer.sanity_checking:
            return
        scores = self._finish_evaluation(VAL).scalars
        if self.trainer.state.fn == TrainerFn.FITTING:
            # The same on every rank: gathered before they were computed.
            prefix = self._data.protocol.validation_name
            self.log_dict({f"{prefix}/{name}": value for name, value in scores.items()}, sync_dist=True)
            if self._data.follow_test:  # not logged: nothing may choose by it
                self._finish_evaluation(TEST)

    def on_test_start(self) -> None:
        """A test without a checkpoint takes the head, too, from the exported recogniser in ``init``."""
        if not self._has_head:
            self._load_recognizer()

    def on_test_epoch_start(self) -> None:
        """Forget the last pass."""
        self._segments = _nothing_yet()

    def test_step(self, batch: ClipBatch, batch_idx: int) -> None:
        """Outputs of test clips."""
        self._evaluate(batch, TEST)

    def on_test_epoch_end(self) -> None:
        """Scores over all clips of all ranks."""
        self._finish_evaluation(TEST)

    def _load_recognizer(self) -> None:
        if not is_recognizer(self.init):
            raise ValueError(
                f"nothing to test: model.init is {str(self.init) if self.init else 'empty'}, which holds no trained "
                "head; give --ckpt_path RUN/checkpoints/best.ckpt, or --model.init with an exported recogniser"
            )
        assert self.init is not None
        recognizer, transform = load_recognizer(self.init)
        check_same_task(recognizer.targets, self.targets, recognizer.modalities, self.modalities, self.init)
        check_same_architecture(recognizer.config, self.config, self.init)
        check_same_timing(transform.spec, self.spec, self.init)
        self.model.load_state_dict(recognizer.state_dict())
        self._has_head = True

    # ------------------------------------------------------------ training

    @property
    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Before a training, read the teacher, and have clips decoded as both need them."""
        if stage == "fit" and self.teacher_path is not None:
            self.lesson = Lesson.of(self.teacher_path, self.distillation, self.spec, self.targets, self.modalities)
            self._data.prepare_for(image_size=self.lesson.image_size, modalities=self.lesson.modalities)

    def configure_callbacks(self) -> list[Callback]:
        """The average of the weights, where there is one."""
        return [EmaWeights(self.ema_decay)] if self.ema_decay is not None else []

    def on_fit_start(self) -> None:
        """From here on the head is this run's own; balanced class weights follow from the training clips."""
        self._has_head = True
        accelerate(self.model, self.speed, self.device.type)
        if self.lesson is not None:
            self.lesson.teacher.to(self.device)
            accelerate(self.lesson.teacher.recognizer, self.speed, self.device.type)
        if self.class_weights == "balanced":
            assert self._weight is not None
            self._weight.copy_(weights_of_clips(self._data.splits.train, self.labels))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with layer decay, warm-up and cosine per step, for the global batch of this run."""
        return run_optimizer(self.trainer, self.model, self.optimizer_config, self.config)

    # ------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the weights are, in plain values."""
        checkpoint["hicmae"] = {
            "job": "finetune",
            "model": self.config.to_dict(),
            "input": self.spec.to_dict(),
            "targets": {"classes": list(self.targets.classes), "dimensions": list(self.targets.dimensions)},
            "labels": self.labels.to_dict(),
            "modalities": list(self.modalities),
            "ema_decay": self.ema_decay,
            "freeze": self.frozen,
            "distillation": self.distilled_from(),
        }

    def distilled_from(self) -> dict[str, Any] | None:
        """Teacher, weight and temperature in plain values; ``None`` without a teacher."""
        return self._taught if self.lesson is None else self.lesson.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another architecture or task, naming what differs."""
        about = checkpoint.get("hicmae")
        if about is None or about["job"] != "finetune":
            raise ValueError(
                "this checkpoint was not written by fine-tuning; to start from a pre-trained backbone, give it as "
                "--model.init instead of --ckpt_path"
            )
        check_same_architecture(ModelConfig.from_dict(about["model"]), self.config, "the checkpoint")
        found = Targets(classes=tuple(about["targets"]["classes"]), dimensions=tuple(about["targets"]["dimensions"]))
        check_same_task(found, self.targets, tuple(about["modalities"]), self.modalities, "the checkpoint")
        check_same_timing(InputSpec.from_dict(about["input"]), self.spec, "the checkpoint")
        if self.trainer.state.fn == TrainerFn.FITTING:
            _check_same("ema_decay", about.get("ema_decay"), self.ema_decay)
            _check_same("freeze", about.get("freeze", 0), self.frozen)
            theirs, ours = (settings_of(one) for one in (about.get("distillation"), self.distilled_from()))
            for option, value in ours.items():
                _check_same(option, theirs[option], value)
        else:
            self._taught = about.get("distillation")
        self._has_head = True


def _nothing_yet() -> dict[str, SegmentOutputs]:
    return {part: SegmentOutputs() for part in (VAL, TEST)}


def _check_same(option: str, theirs: float | str | None, ours: float | str | None) -> None:
    if theirs != ours:
        raise ValueError(
            f"the checkpoint was written with model.{option} {theirs}, and is to go on with {ours}: set the same, or "
            "start a new run from it with --model.init"
        )


def monitored_score(*, has_classes: bool) -> str:
    """Validation score by which the best checkpoint is chosen: UAR, or the mean CCC without classes."""
    return "val/uar" if has_classes else "val/ccc"
