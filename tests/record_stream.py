"""A run under the real trainer that writes down what it is fed; started by tests, with one process or two."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import PretrainingDraws
from hicmae.data.batch import ClipBatch
from hicmae.data.loader import LoaderSettings
from hicmae.data.shard_source import ShardSource
from hicmae.data.source import ClipSource, ManifestSource
from hicmae.data.stream import TrainStream
from hicmae.training.epoch_length import EpochLength
from hicmae.training.optim import OptimizerConfig
from hicmae.training.run_optimizer import run_optimizer
from tests.silent_source import SilentSource

MODEL = ModelConfig.preset("micro", image_size=32, num_frames=2)


class Data(lightning.LightningDataModule):
    def __init__(self, source: ClipSource, loader: dict[str, Any], windows_per_clip: int) -> None:
        super().__init__()
        self.source = source
        self.batch_size = loader["batch_size"]
        self._settings = loader
        self._windows = windows_per_clip

    @property
    def loader(self) -> LoaderSettings:
        assert self.trainer is not None
        return LoaderSettings(rank=self.trainer.global_rank, world_size=self.trainer.world_size, **self._settings)

    @property
    def batches_per_epoch(self) -> int:
        return len(self._stream())

    def _stream(self) -> TrainStream:
        return TrainStream(
            self.source, spec=InputSpec.for_model(MODEL), draws=PretrainingDraws(model=MODEL), loader=self.loader,
            windows_per_clip=self._windows,
        )  # fmt: skip

    def train_dataloader(self) -> TrainStream:
        self.stream = self._stream()
        return self.stream


class Recorder(lightning.LightningModule):
    """A model of one number."""

    def __init__(self, optimizer: OptimizerConfig, stop_after: int | None, part: int) -> None:
        super().__init__()
        self.model = nn.Linear(1, 1)
        self.optimizer = optimizer
        self.stop_after = stop_after
        self.part = part
        self.seen: list[dict[str, Any]] = []

    def on_fit_start(self) -> None:
        folder = Path(self.trainer.default_root_dir)
        (folder / f"pid{self.global_rank}").write_text(str(os.getpid()))
        self.lines = (folder / f"part{self.part}_rank{self.global_rank}.jsonl").open("w", buffering=1)

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        self.seen.append({
            "epoch": self.current_epoch, "batch": batch_idx, "step": self.global_step, "clips": batch.clip_ids,
            "gain": batch.gain.tolist(), "lr": self.optimizers().param_groups[0]["lr"],
        })  # fmt: skip
        # at once: the process of an interrupted run that stops first ends the others at any moment
        self.lines.write(json.dumps(self.seen[-1]) + "\n")
        loss: Tensor = self.model(batch.gain[:, None]).square().mean()
        return loss

    def on_train_batch_end(self, *args: Any) -> None:
        if self.stop_after is not None and len(self.seen) >= self.stop_after:
            raise KeyboardInterrupt

    def configure_optimizers(self) -> Any:
        return run_optimizer(self.trainer, self.model, self.optimizer, MODEL)


class SaveEachBatch(lightning.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        trainer.save_checkpoint(self.path)


def record(
    clips: Path | str | ClipSource,
    folder: Path,
    *,
    max_epochs: int,
    optimizer: OptimizerConfig = OptimizerConfig(warmup_epochs=0),  # noqa: B008
    ranks: int = 1,
    accumulate: int = 1,
    stop_after: int | None = None,
    resume: bool = False,
    windows_per_clip: int = 1,
    **loader: Any,
) -> list[dict[str, Any]]:
    """Train on a manifest, folders of shards (commas between) or a source; returns what this process was fed."""
    if isinstance(clips, (Path, str)):
        paths = str(clips).split(",")
        clips = ShardSource(paths) if Path(paths[0]).is_dir() else ManifestSource(paths[0])
    folder.mkdir(parents=True, exist_ok=True)
    module = Recorder(optimizer, stop_after, part=1 if resume else 0)
    checkpoint = folder / "last.ckpt"
    trainer = lightning.Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
        callbacks=[EpochLength(), SaveEachBatch(checkpoint)], max_epochs=max_epochs,
        accumulate_grad_batches=accumulate,
    )  # fmt: skip
    data = Data(clips, loader, windows_per_clip)
    try:
        trainer.fit(module, data, ckpt_path=checkpoint if resume else None, weights_only=True if resume else None)
    except (KeyboardInterrupt, SystemExit):
        assert stop_after
    data.stream.close()
    return module.seen


def read(path: Path) -> list[dict[str, Any]]:
    """What a process of such a run was fed."""
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("clips")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--stuck", action="store_true")
    for name in ("batch_size", "max_epochs", "ranks", "stop_after", "num_workers", "seed", "timeout_s"):
        parser.add_argument(f"--{name}", type=int)
    settings = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    if settings.pop("stuck"):
        settings["clips"] = SilentSource(settings["clips"])
    record(**settings)
