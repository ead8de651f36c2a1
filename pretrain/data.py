"""The pre-training job's data side: shards in, batches out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import torch

from hicmae.backbone import MODALITIES, Modality
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import PretrainingDraws
from hicmae.data.batch import ClipBatch
from hicmae.data.cache_settings import CacheSettings
from hicmae.data.clip_decoder import stack_optional
from hicmae.data.epoch import EpochOrder, OrderSettings, Sampling
from hicmae.data.evaluation import EvaluationLoader
from hicmae.data.loader import LoaderSettings
from hicmae.data.order import clip_generator
from hicmae.data.pixels import Pixels
from hicmae.data.shard_source import ShardSource
from hicmae.data.source import ClipSource
from hicmae.data.stream import TrainStream
from hicmae.media.decode import Decoder


class PretrainData(pl.LightningDataModule):
    """Streams unlabelled clips from WebDataset shards.

    Args:
        config: the model's architecture (linked to the model by the command line).
        modalities: what the model is given; the other half of the clips is not decoded, and clips that lack a lone one
            are skipped (linked to the model by the command line).
        shards: folders made by ``hicmae shards write`` or their URLs (http, https, s3), each a data set; several are
            taken together.
        weights: share of each data set in an epoch and, nearly, in a batch, in the order of ``shards``; empty: each
            clip once an epoch.
        val_shards: folders of held-out clips whose losses ``validate`` reports; empty: none.
        batch_size: clips per device and step; with ``views_per_clip``, views.
        num_workers: decoding processes per device; 0 decodes in the training process.
        seed: decides order, windows, crops, gains and masks.
        shuffle_shards: shards whose clips are mixed with one another.
        sampling: epoch: each clip once an epoch; resampled: shards drawn anew for each window, without end.
        epoch_clips: clips per epoch, with ``weights`` or ``sampling: resampled``; empty: as many as there are.
        windows_per_clip: windows decoded of a clip together; they go into as many batches in a row, so an epoch has so
            many times the batches.
        views_per_clip: views of each window in its batch, each with another crop, gain and masks; an epoch then has so
            many times the batches. ``batch_size`` counts them and must be a multiple.
        video_mask_ratio: share of video patches masked, the same in all frames.
        audio_mask_ratio: share of spectrogram patches masked.
        video_decode_ratio: share of the masked video patches that is decoded, another one in each frame.
        audio_decode_ratio: share of the masked spectrogram patches that is decoded.
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
        config: ModelConfig,
        shards: list[str],
        modalities: tuple[Modality, ...] = MODALITIES,
        weights: list[float] | None = None,
        val_shards: list[str] | None = None,
        batch_size: int = 40,
        num_workers: int = 8,
        seed: int = 0,
        shuffle_shards: int = 8,
        sampling: Sampling = "epoch",
        epoch_clips: int | None = None,
        windows_per_clip: int = 1,
        views_per_clip: int = 1,
        video_mask_ratio: float = 0.9,
        audio_mask_ratio: float = 0.8,
        video_decode_ratio: float = 1.0,
        audio_decode_ratio: float = 1.0,
        decoder: Decoder = "auto",
        pixels: Pixels = "auto",
        max_skip_fraction: float = 0.05,
        timeout_s: float = 600.0,
        slowest_shards: int = 0,
        cache_dir: Path | None = None,
        cache_gb: float = 200.0,
    ) -> None:
        super().__init__()
        if not shards:
            raise ValueError("data.shards is empty; name at least one folder made by 'hicmae shards write'")
        self.spec = InputSpec.for_model(config)
        self.draws = PretrainingDraws(
            model=config,
            video_mask_ratio=video_mask_ratio,
            audio_mask_ratio=audio_mask_ratio,
            video_decode_ratio=video_decode_ratio,
            audio_decode_ratio=audio_decode_ratio,
        )
        self.seed = seed
        self.slowest_shards = slowest_shards
        self.batch_size = batch_size
        self.windows_per_clip = windows_per_clip
        self.views_per_clip = views_per_clip
        self._loader = LoaderSettings(
            batch_size=_clips_of(batch_size, views_per_clip),
            num_workers=num_workers,
            seed=seed,
            decoder=decoder,
            pixels=pixels,
            max_skip_fraction=max_skip_fraction,
            timeout_s=timeout_s,
            modalities=tuple(modalities),
            pin_memory=torch.cuda.is_available(),
        )
        self.order = OrderSettings(
            shuffle_shards=shuffle_shards,
            sampling=sampling,
            weights=tuple(weights) if weights else None,
            epoch_clips=epoch_clips,
        )
        # Opened at once: a wrong folder is an error before any model is built.
        self.cache = cache = CacheSettings.of(cache_dir, cache_gb)
        self.source: ClipSource = ShardSource(list(shards), cache)
        self.val_source: ClipSource | None = ShardSource(list(val_shards), cache) if val_shards else None
        self.train_loader: TrainStream | None = None
        self._val_loader: EvaluationLoader | None = None

    @property
    def loader(self) -> LoaderSettings:
        """Settings of this process's loaders; their batch size counts clips, not views."""
        if self.trainer is None:
            return self._loader
        return replace(self._loader, rank=self.trainer.global_rank, world_size=self.trainer.world_size)

    @property
    def batches_per_epoch(self) -> int:
        """Training batches per rank and epoch."""
        order = EpochOrder.of(self.source, self.order, seed=self.seed)
        batches = order.batches(world_size=self.loader.world_size, batch_size=self.loader.batch_size)
        return batches * self.windows_per_clip

    def train_dataloader(self) -> TrainStream:
        """The training stream; it resumes to the batch."""
        self.train_loader = TrainStream(
            self.source,
            spec=self.spec,
            draws=self.draws,
            loader=self.loader,
            order=self.order,
            windows_per_clip=self.windows_per_clip,
            views_per_clip=self.views_per_clip,
        )
        return self.train_loader

    def val_dataloader(self) -> EvaluationLoader | list[EvaluationLoader]:
        """Held-out clips, each once; nothing to validate on without ``val_shards``."""
        if self.val_source is None:
            return []
        if self._val_loader is None:  # kept, because its workers are
            loader = replace(self.loader, batch_size=self.batch_size)  # one view of each
            self._val_loader = EvaluationLoader(self.val_source, segments=1, spec=self.spec, loader=loader)
        return self._val_loader

    def transfer_batch_to_device(self, batch: ClipBatch, device: torch.device, dataloader_idx: int) -> ClipBatch:
        """Copy from page-locked memory while the device works; views are made of clips there."""
        return batch.to(device, non_blocking=True).each_view()

    def teardown(self, stage: str) -> None:
        """End the decoding processes."""
        for loader in (self.train_loader, self._val_loader):
            if loader is not None:
                loader.close()

    def on_before_batch_transfer(self, batch: ClipBatch, dataloader_idx: int) -> ClipBatch:
        """Held-out clips come unmasked: give each the masks that belong to its name, the same every time.

        All that is masked is decoded there, so that losses of runs with other decode ratios can be compared.
        """
        if batch.video_visible is not None:
            return batch
        draws = [self.draws(clip_generator(self.seed, 0, clip_id)) for clip_id in batch.clip_ids]
        return replace(
            batch,
            video_visible=stack_optional([draw.video_visible for draw in draws]),
            audio_visible=stack_optional([draw.audio_visible for draw in draws]),
        )


def _clips_of(batch_size: int, views: int) -> int:
    """Clips in a batch of ``batch_size`` views."""
    if views < 1:
        raise ValueError(f"views_per_clip={views} must be at least 1")
    if batch_size % views:
        below = batch_size // views * views
        nearest = f"{below} or {below + views}" if below else f"{views}"
        raise ValueError(
            f"batch_size={batch_size} counts views and is no multiple of views_per_clip={views}; the nearest valid "
            f"batch_size is {nearest}"
        )
    return batch_size // views
