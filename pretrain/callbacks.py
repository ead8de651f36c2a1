"""What a pre-training run leaves behind: an exported backbone, pictures."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from hicmae.checkpoint import save_export
from hicmae.data.batch import ClipBatch
from hicmae.figures.curves import draw_curves
from hicmae.figures.reconstruction import draw_reconstruction
from hicmae.pretraining import HiCMAE
from hicmae.reconstruction import reconstruct
from hicmae.speed import eagerly
from hicmae.training.monitor import TrainingMonitor
from hicmae.training.provenance import run_provenance
from hicmae.training.run_directory import export_directory, run_directory
from hicmae.training.sharding import whole_model
from pretrain.module import PretrainModule

logger = logging.getLogger(__name__)

_CLIPS_DRAWN = 2


class FinishPretraining(Callback):
    """At the end of training: ``export/`` and ``figures/`` in the run directory."""

    def __init__(self) -> None:
        self._batch: ClipBatch | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        self._batch = batch

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not at the end of training: that is when the last checkpoint is written, which is to come first.
        assert isinstance(pl_module, PretrainModule)
        model = whole_model(pl_module.model, keep=trainer.is_global_zero)  # with all ranks, where each has a share
        if model is None:
            return
        root = run_directory(trainer)
        monitor = next(c for c in trainer.callbacks if isinstance(c, TrainingMonitor))  # type: ignore[attr-defined]
        draw_curves(monitor.history, root / "figures" / "learning_curves.png", title=f"pre-training, {root.name}")
        self._draw(trainer, pl_module, model)
        provenance = run_provenance(trainer, job="pretrain", metrics=_losses_of(monitor))
        # Written last: it is the sign that the run is finished.
        export = save_export(export_directory(root), model.backbone, spec=pl_module.spec, provenance=provenance)
        logger.info("exported the backbone to %s", export)

    def _draw(self, trainer: Trainer, module: PretrainModule, model: HiCMAE) -> None:
        if self._batch is None:  # resumed a finished run
            return
        figures = run_directory(trainer) / "figures"
        views: int = trainer.datamodule.views_per_clip  # type: ignore[attr-defined]
        batch = self._batch.first(_CLIPS_DRAWN * views).to(module.device)
        model.eval()
        with torch.no_grad(), eagerly():
            video, log_mel = module.inputs(batch)
            assert batch.video_visible is not None
            assert batch.audio_visible is not None
            shown = reconstruct(model, video, log_mel, batch.video_visible, batch.audio_visible)
        for number, row in enumerate(range(0, len(batch), views)):  # the first view of each clip
            title = f"{batch.clip_ids[row]}, after {trainer.global_step} steps"
            draw_reconstruction(shown, figures / f"reconstruction_{number}.png", clip=row, title=title)
        logger.info("drew %s", figures / "reconstruction_0.png")


def _losses_of(monitor: TrainingMonitor) -> dict[str, float]:
    """The training losses as last logged."""
    last = monitor.history[-1] if monitor.history else {}
    return {name: value for name, value in last.items() if name.startswith("train/")}
