"""One fold: train a head, then let its best and its last checkpoint predict.

A fold's folder holds ``checkpoints/`` while it trains, ``export/`` (the best head), ``predictions.parquet``, and
``result.json``, which is written last.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from finetune.continuous.data import ContinuousData
from finetune.continuous.files import as_json, replace
from finetune.continuous.module import MONITORED, ContinuousModule
from finetune.continuous.settings import ContinuousSettings
from hicmae.continuous.export import save_head
from hicmae.continuous.leader_follower import LeaderFollower
from hicmae.continuous.prediction import LabelledVideo, predict_frames
from hicmae.continuous.statistics import stream_statistics
from hicmae.data.file_lock import hold_lock_if_free
from hicmae.training.checkpoint_io import AtomicCheckpointIO
from hicmae.training.run_directory import checkpoint_directory, export_directory

logger = logging.getLogger(__name__)

BEST, LAST = "best", "last"


@dataclass(frozen=True, kw_only=True)
class FoldParts:
    """Who is what in a fold; no subject is in two parts, but for ``select`` and ``score`` being the same."""

    number: int
    train: tuple[LabelledVideo, ...]
    select: tuple[LabelledVideo, ...]
    """The best checkpoint is chosen on these."""
    score: tuple[LabelledVideo, ...]
    """The fold is scored on these."""


def run_fold(
    folder: Path, parts: FoldParts, others: Sequence[LabelledVideo], settings: ContinuousSettings, *, device: str
) -> None:
    """Train, or go on where a stopped training was; predict ``score`` and ``others``. A finished fold only predicts
    those of ``others`` that it has not.

    Raises:
        ValueError: the training part has no labelled window.
        FileExistsError: another process is at work on this fold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock_if_free(folder / ".lock") as lock:
        if lock is None:
            raise FileExistsError(f"another process is at work in {folder}; wait for it, or let this one train other "
                                  "folds (run_folds)")  # fmt: skip
        _run_fold(folder, parts, others, settings, device=device)


def _run_fold(
    folder: Path, parts: FoldParts, others: Sequence[LabelledVideo], settings: ContinuousSettings, *, device: str
) -> None:
    result = folder / "result.json"
    module = ContinuousModule(_build(parts, settings), settings, fold=parts.number)
    if not result.is_file():
        _train(folder, module, parts, settings, device=device)
        _load(folder, module, BEST)
        save_head(export_directory(folder), module.model, settings.trained_by())
        (folder / "predictions.parquet").unlink(missing_ok=True)  # of a run that was killed while it predicted
        _predict(folder, module, [*parts.score, *others], settings, device=device)
        replace(result, as_json({
            "fold": parts.number,
            "subjects": {part: sorted({v.subject for v in getattr(parts, part)}) for part in
                         ("train", "select", "score")},
            "best_epoch": _epoch(checkpoint_directory(folder) / "best.ckpt"),
            "history": module.history,
        }))  # fmt: skip
        return
    known = pd.read_parquet(folder / "predictions.parquet", columns=["name", "features"]).drop_duplicates()
    there = set(zip(known["name"], known["features"], strict=True))
    if new := [video for video in others if (video.name, video.features.digest) not in there]:
        logger.info("fold %d is trained; %d new videos to predict", parts.number, len(new))
        _predict(folder, module, new, settings, device=device)


def _build(parts: FoldParts, settings: ContinuousSettings) -> LeaderFollower:
    torch.manual_seed(settings.seed * 1000 + parts.number)
    widths: dict[str, int] = {name: parts.train[0].features.streams[name].shape[1] for name in settings.streams}
    model = LeaderFollower(widths, len(settings.targets), settings.model)
    model.set_statistics(*stream_statistics(parts.train, settings.streams))
    return model


def _train(
    folder: Path, module: ContinuousModule, parts: FoldParts, settings: ContinuousSettings, *, device: str
) -> None:
    training = settings.training
    data = ContinuousData(
        parts.train,
        parts.select,
        streams=settings.streams,
        window=settings.window,
        batch_size=training.batch_size,
        seed=settings.seed,
    )
    if not len(data.windows):
        raise ValueError(f"fold {parts.number}: no window of its training videos has a label; lower features.every")
    logger.info(
        "fold %d: %d training videos (%d windows, %d without a label left out), %d to choose on, %d to score",
        parts.number, len(parts.train), len(data.windows), data.windows.without_label, len(parts.select),
        len(parts.score),
    )  # fmt: skip
    checkpoints = checkpoint_directory(folder)
    # At the end of the epoch, as a checkpoint taken after the validation would skip the rest of it when resumed.
    keep = partial(_Keep, checkpoints, enable_version_counter=False, save_on_train_epoch_end=True)
    best = keep(filename=BEST, monitor=MONITORED, mode="max")
    last_one = keep(filename=LAST)  # "save_last" would be the last one that was best
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        max_epochs=training.epochs,
        logger=False,
        callbacks=[best, last_one],
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )
    last = checkpoints / f"{LAST}.ckpt"
    if last.is_file():
        logger.info("fold %d goes on after epoch %d", parts.number, _epoch(last))
    trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.is_file() else None)
    chosen = module.history[_epoch(checkpoints / f"{BEST}.ckpt") - 1]
    logger.info("fold %d: best after epoch %d of %d, CCC %.3f where it was chosen (last: %.3f)", parts.number,
                chosen["epoch"], training.epochs, chosen["ccc"], module.history[-1]["ccc"])  # fmt: skip


def _predict(
    folder: Path,
    module: ContinuousModule,
    videos: Sequence[LabelledVideo],
    settings: ContinuousSettings,
    *,
    device: str,
) -> None:
    """Add predictions of both checkpoints to ``predictions.parquet``: a row a video, frame and checkpoint, not yet cut
    to the limits, as merging takes them. Those of videos of the same name, from other features, are replaced."""
    path = folder / "predictions.parquet"
    tables = []
    if path.is_file():
        table = pd.read_parquet(path)
        tables = [table[~table["name"].isin([video.name for video in videos])]]
    model = module.model.to(device)
    for checkpoint in (BEST, LAST):
        _load(folder, module, checkpoint)
        for video in videos:
            values = predict_frames(model, video, settings.window, batch_size=settings.training.batch_size)
            table = pd.DataFrame(values.astype("float32"), columns=settings.targets)
            table.insert(0, "frame", range(1, len(table) + 1))
            table.insert(0, "features", video.features.digest)
            table.insert(0, "name", video.name)
            table.insert(0, "checkpoint", checkpoint)
            tables.append(table)
    draft = path.with_name(f".{path.name}.draft")
    pd.concat(tables, ignore_index=True).to_parquet(draft, index=False)
    draft.replace(path)


class _Keep(ModelCheckpoint):
    """Goes on in a folder that has been moved or copied: Lightning would forget the best score so far, and with it
    which checkpoint is the best."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint, with its files where they are now."""

        def here(path: str) -> str:
            return str(Path(self.dirpath or "") / Path(path).name) if path else path

        moved = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | moved | {"best_k_models": best, "dirpath": self.dirpath})


def _load(folder: Path, module: ContinuousModule, checkpoint: str) -> None:
    """Give the module the weights of ``best`` or ``last``."""
    state = torch.load(checkpoint_directory(folder) / f"{checkpoint}.ckpt", map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])


def _epoch(checkpoint: Path) -> int:
    """Epochs behind a checkpoint."""
    about = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["hicmae"]
    return len(about["history"])
