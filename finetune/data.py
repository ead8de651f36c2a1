"""The fine-tuning job's data side: labelled clips, from shards or files, divided by speaker."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn

from finetune.grouping import check_groups, refuse_shared_groups
from finetune.protocol import PAPER_PROTOCOL, Protocol
from hicmae.backbone import MODALITIES, Modality
from hicmae.config import InputSpec
from hicmae.data.augment import RecognitionAugment, RecognitionDraws, Withheld
from hicmae.data.batch import ClipBatch
from hicmae.data.cache_settings import CacheSettings
from hicmae.data.epoch import EpochOrder, OrderSettings
from hicmae.data.evaluation import EvaluationLoader
from hicmae.data.labels import LabelSpec
from hicmae.data.loader import LoaderSettings
from hicmae.data.pixels import Pixels
from hicmae.data.shard_source import ShardSource
from hicmae.data.source import ClipSource, ManifestSource
from hicmae.data.splits import TEST, TRAIN, VAL, Splits, content_digest, keep_classes, part_for_test, split_source
from hicmae.data.stream import TrainStream
from hicmae.media.decode import Decoder

logger = logging.getLogger(__name__)


class FinetuneData(pl.LightningDataModule):
    """Labelled clips for training, validation and test, by the manifest's ``split`` (train, val, test, or foldN).

    Args:
        spec: the model's input (linked to the model by the command line).
        labels: what is learnt (linked to the model by the command line).
        modalities: what the model is given (linked to the model by the command line).
        shards: folders made by ``hicmae shards write`` or their URLs (http, https, s3); several are taken together.
        manifest: instead of shards, a manifest whose files are read as they are.
        test_fold: which of the folds (splits fold1, fold2, ...) is the test; the others are for training.
        paper_protocol: choose the best epoch on the test clips, as the paper's authors do; every number is labelled so.
        drop_other_classes: leave out clips of classes that are not learnt, counted; otherwise they are an error.
        average_over: label column whose clips share one prediction, the mean of theirs; empty: each has its own.
        batch_size: clips per device and step.
        num_workers: decoding processes per device; 0 decodes in the training process.
        seed: decides order, windows, crops, flips, mixing, drop path, and which speakers are chosen.
        shuffle_shards: shards whose clips are mixed with one another.
        augmentation: what is done to training clips beside window, crop and flip.
        val_fraction: share of the training speakers that become validation where the data has no split ``val``.
        max_train_subjects: train on so many speakers only, for experiments with few labels; empty: on all.
        label_fraction: share of the training clips that is kept, of each class by itself and at least one clip of
            each, for experiments with few labels; validation and test stay whole. A smaller share is a part of every
            larger one, and follows from ``seed`` and clip ids. Fewer clips make an epoch shorter: see ``epoch_clips``.
        epoch_clips: clips an epoch, from passes over the training clips, one after another, in which a clip that comes
            again is augmented anew; ``all``: as many as without ``label_fraction``, so that runs with few labels take
            as many steps as one with all. Empty: every clip once.
        allow_shared_subjects: accept speakers that occur in two of train, val and test.
        val_segments: windows per clip whose outputs are averaged in validation.
        test_segments: windows per clip whose outputs are averaged in the test.
        test_without: video or audio: withhold it from all clips of the test, as if they lacked it; empty: nothing.
        decoder: auto, pyav or decord.
        pixels: how frames are shipped: rgb, yuv (half of the bytes; for shards of h264 at the model's size), or auto.
        max_skip_fraction: share of clips that may be undecodable before the job stops.
        timeout_s: seconds to wait for a batch of the decoding processes before the job stops.
        slowest_shards: shards to list in data/slowest_shards.csv after every epoch, slowest first; 0: none.
        cache_dir: folder on a local disk for shards of URLs, shared by all processes and jobs of the machine.
        cache_gb: size that the shards there may have, in 10^9 bytes.
    """

    def __init__(
        self,
        spec: InputSpec,
        labels: LabelSpec,
        modalities: tuple[Modality, ...] = MODALITIES,
        shards: list[str] | None = None,
        manifest: Path | None = None,
        test_fold: int | None = None,
        paper_protocol: bool = False,
        drop_other_classes: bool = False,
        average_over: str | None = None,
        batch_size: int = 56,
        num_workers: int = 8,
        seed: int = 0,
        shuffle_shards: int = 8,
        augmentation: RecognitionAugment = RecognitionAugment(),  # noqa: B008  frozen, and shown by --help
        val_fraction: float = 0.2,
        max_train_subjects: int | None = None,
        label_fraction: float = 1.0,
        epoch_clips: int | Literal["all"] | None = None,
        allow_shared_subjects: bool = False,
        val_segments: int = 1,
        test_segments: int = 2,
        test_without: Withheld | None = None,
        decoder: Decoder = "auto",
        pixels: Pixels = "auto",
        max_skip_fraction: float = 0.05,
        timeout_s: float = 600.0,
        slowest_shards: int = 0,
        cache_dir: Path | None = None,
        cache_gb: float = 200.0,
    ) -> None:
        super().__init__()
        if bool(shards) == bool(manifest):
            raise ValueError("give the labelled clips either as data.shards or as data.manifest, one of the two")
        if len(modalities) == 1 and (augmentation.drop_video or augmentation.drop_audio or test_without):
            raise ValueError(
                f"model.modalities is {list(modalities)}, and nothing can be withheld of one: set "
                "augmentation.drop_video and drop_audio to 0, and test_without to null"
            )
        self.spec = spec
        self.labels = labels
        self.modalities = modalities
        self.batch_size = batch_size
        self.seed = seed
        self.slowest_shards = slowest_shards
        self._loader = LoaderSettings(
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            decoder=decoder,
            pixels=pixels,
            require_video="video" in modalities,
            max_skip_fraction=max_skip_fraction,
            timeout_s=timeout_s,
            pin_memory=torch.cuda.is_available(),
        )
        self.epoch_clips = epoch_clips
        self.order = OrderSettings(shuffle_shards=shuffle_shards)
        """Its epochs are those of ``epoch_clips`` when training starts."""
        self.val_fraction = val_fraction
        self.max_train_subjects = max_train_subjects
        self.label_fraction = label_fraction
        self.allow_shared_subjects = allow_shared_subjects
        self.augmentation = augmentation
        self.segments = {VAL: val_segments, TEST: test_segments}
        self.test_without = test_without
        self.average_over = average_over
        self.source: ClipSource = open_source(shards, manifest, CacheSettings.of(cache_dir, cache_gb))
        self.protocol = Protocol(test_fold=test_fold, paper=paper_protocol, content=content_digest(self.source))
        self.dropped: dict[str, dict[str, int]] = {}
        """Clips left out for their class, by label column and class."""
        if drop_other_classes:
            self.source, self.dropped = keep_classes(self.source, labels)
        self.splits: Splits | None = None
        """Set when training starts."""
        self.follow_test = False
        """Validations during a training score the test clips too."""
        self.training_spec = spec
        """The input that training clips are decoded for."""
        self._teacher_looks = False
        self.train_loader: TrainStream | None = None
        self._evaluation_loaders: dict[str, EvaluationLoader] = {}

    def setup(self, stage: str) -> None:
        """Divide the clips and check every label, before anything takes time.

        Raises:
            ValueError: no clips, speakers in two parts, unusable labels.
        """
        if stage != "fit" or self.splits is not None:
            return
        splits = split_source(
            self.source,
            test_fold=self.protocol.test_fold,
            paper_protocol=self.protocol.paper,
            val_fraction=self.val_fraction,
            seed=self.seed,
            max_train_subjects=self.max_train_subjects,
            allow_shared_subjects=self.allow_shared_subjects,
            together=self.average_over,
            label_fraction=self.label_fraction,
            label_columns=tuple(self.labels.classes),
        )
        if self.protocol.paper:
            logger.warning("%s; its scores are too high to be expected of new people", PAPER_PROTOCOL)
        for part, clips in ((TRAIN, splits.train), (VAL, splits.val), (TEST, splits.test)):
            if clips is not None:
                self.labels.check(clips)
                self._warn_of_absent_classes(part, clips)
                if self.average_over is not None and part != TRAIN:
                    check_groups(clips, self.labels, self.average_over)
        if self.average_over is not None:
            parts = {TRAIN: splits.train} | ({} if splits.val_is_test else {VAL: splits.val})
            refuse_shared_groups(parts | ({TEST: splits.test} if splits.test is not None else {}), self.average_over)
        if self.follow_test:
            self._check_followed(splits)
        self.splits = splits
        if self.epoch_clips is not None:
            per_epoch = splits.labelled_clips if self.epoch_clips == "all" else self.epoch_clips
            self.order = replace(self.order, sampling="passes", epoch_clips=per_epoch)

    def _check_followed(self, splits: Splits) -> None:
        if splits.test is None:
            raise ValueError(
                f"{self.source.name}: follow_test=true scores the test clips, and there are none: leave it out"
            )
        if splits.val_is_test:
            raise ValueError(
                "data.paper_protocol=true chooses the best epoch on the test clips, and follow_test=true measures what "
                "that gains, in a run that chooses it on validation: leave one of the two out"
            )

    def prepare_for(self, *, image_size: int, modalities: tuple[Modality, ...]) -> None:
        """Have training clips decoded for a teacher too; validation and test stay as the model alone needs them.

        Args:
            image_size: side of training frames, in pixels.
            modalities: what model and teacher take together.
        """
        self.training_spec = self.spec.with_(image_size=image_size)
        self._teacher_looks = "video" in modalities

    def _warn_of_absent_classes(self, part: str, clips: ClipSource) -> None:
        for column, names in self.labels.classes.items():
            counts = Counter(clips.info(number).labels[column] for number in range(len(clips)))
            if absent := [name for name in names if not counts[name]]:
                logger.warning("%s: no clip of the split %r has %s %s", clips.name, part, column, ", ".join(absent))

    def evaluation_source(self, part: str) -> ClipSource:
        """The clips of ``val`` or ``test``."""
        if self.splits is None:  # a test alone: nothing is trained, so nothing needs to be divided
            assert part == TEST
            return part_for_test(self.source, self.protocol.test_fold)
        clips = self.splits.val if part == VAL else self.splits.test
        assert clips is not None, "asked for a split that the data does not have"
        return clips

    @property
    def loader(self) -> LoaderSettings:
        """Settings of this process's loaders."""
        if self.trainer is None:
            return self._loader
        return replace(self._loader, rank=self.trainer.global_rank, world_size=self.trainer.world_size)

    @property
    def batches_per_epoch(self) -> int:
        """Training batches per rank and epoch."""
        assert self.splits is not None
        order = EpochOrder.of(self.splits.train, self.order, seed=self.seed)
        try:
            return order.batches(world_size=self.loader.world_size, batch_size=self.batch_size)
        except ValueError as error:
            raise ValueError(
                f"{self.splits.train.name}: {error}; or set data.epoch_clips, the clips an epoch (all: as many as "
                "there are without label_fraction), to go through few clips several times"
            ) from None

    def train_dataloader(self) -> TrainStream:
        """The training stream; it resumes to the batch."""
        assert self.splits is not None
        self.train_loader = TrainStream(
            self.splits.train,
            spec=self.training_spec,
            draws=RecognitionDraws(image_size=self.training_spec.image_size, augmentation=self.augmentation),
            labels=self.labels,
            loader=replace(self.loader, require_video=self.loader.require_video or self._teacher_looks),
            order=self.order,
        )
        return self.train_loader

    def transfer_batch_to_device(self, batch: ClipBatch, device: torch.device, dataloader_idx: int) -> ClipBatch:
        """Copy from page-locked memory while the device works."""
        return batch.to(device, non_blocking=True)

    def val_dataloader(self) -> EvaluationLoader | list[EvaluationLoader]:
        """Every validation clip once; where a training follows the test, every test clip and segment after it."""
        if self.follow_test and self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            return [self._evaluation_loader(VAL), self._evaluation_loader(TEST)]
        return self._evaluation_loader(VAL)

    def test_dataloader(self) -> EvaluationLoader:
        """Every test clip and segment once."""
        return self._evaluation_loader(TEST)

    def state_dict(self) -> dict[str, Any]:
        """Goes into checkpoints: what they must not be tested on, and how the best of them is chosen."""
        return self.protocol.to_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to test what was trained on the test clips; a label of the numbers is handed on."""
        self.take_origin(state_dict, "the checkpoint")

    def take_origin(self, origin: dict[str, Any], what: str) -> None:
        """Take note of the protocol under which the weights to be tested were chosen.

        Raises:
            ValueError: they were trained on the test clips.
        """
        self.protocol.check_origin(origin, what)
        self.protocol = replace(self.protocol, paper=self.protocol.paper or bool(origin["paper"]))

    def _evaluation_loader(self, part: str) -> EvaluationLoader:
        if part not in self._evaluation_loaders:  # kept, because its workers are
            source = self.evaluation_source(part)
            if self.splits is None and self.average_over is not None:
                check_groups(source, self.labels, self.average_over)
            self._evaluation_loaders[part] = EvaluationLoader(
                source,
                spec=self.spec,
                segments=self.segments[part],
                labels=self.labels,
                loader=self.loader,
                withheld=self.test_without if part == TEST else None,
            )
        return self._evaluation_loaders[part]

    def close(self) -> None:
        """End all decoding processes."""
        for loader in (self.train_loader, *self._evaluation_loaders.values()):
            if loader is not None:
                loader.close()


def open_source(
    shards: list[str] | None, manifest: Path | None, cache: CacheSettings | None
) -> ShardSource | ManifestSource:
    """The labelled clips; one of the two is given."""
    return ShardSource(list(shards), cache) if shards else ManifestSource(manifest or "")
