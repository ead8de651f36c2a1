"""The stream under the trainer: an interrupted run sees the very batches that an undisturbed one sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn

from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import PretrainingDraws
from hicmae.data.batch import ClipBatch
from hicmae.data.loader import LoaderSettings
from hicmae.data.source import ManifestSource
from hicmae.data.stream import TrainStream
from tests.corpus import make_corpus

MODEL = ModelConfig.preset("micro", image_size=32, num_frames=2)


class Data(lightning.LightningDataModule):
    """The way in which a data module keeps a stream's place."""

    def __init__(self, source: ManifestSource) -> None:
        super().__init__()
        self.source = source
        self.stream: TrainStream | None = None
        self.saved: dict[str, Any] | None = None

    def train_dataloader(self) -> TrainStream:
        self.stream = TrainStream(
            self.source,
            spec=InputSpec.for_model(MODEL),
            draws=PretrainingDraws(model=MODEL),
            loader=LoaderSettings(batch_size=2),
        )
        if self.saved is not None:
            self.stream.load_state_dict(self.saved)
        return self.stream

    def state_dict(self) -> dict[str, Any]:
        return {"stream": self.stream.state_dict()} if self.stream else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.saved = state["stream"]


class Recorder(lightning.LightningModule):
    """Notes what it is fed; stops by an exception after so many batches."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, list[str], list[float]]] = []
        self.stop_after = stop_after

    def training_step(self, batch: ClipBatch) -> Tensor:
        self.seen.append((self.current_epoch, batch.clip_ids, batch.gain.tolist()))
        return self.weight * batch.gain.sum()

    def on_train_batch_end(self, *args: Any) -> None:
        if self.stop_after == len(self.seen):
            raise KeyboardInterrupt

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.trainer.estimated_stepping_batches > 0  # makes the loader before the loops are restored
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Save(lightning.Callback):
    """Saves after every batch, or after every epoch."""

    def __init__(self, path: Path, when: str) -> None:
        self.path = path
        self.when = when

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        if self.when == "batch":
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        if self.when == "epoch":
            trainer.save_checkpoint(self.path)


def fit(
    source: ManifestSource,
    folder: Path,
    *,
    stop_after: int | None = None,
    resume: Path | None = None,
    save: str = "batch",
    **settings: Any,
) -> tuple[Recorder, Path]:
    module = Recorder(stop_after)
    checkpoint = folder / "last.ckpt"
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=folder, callbacks=[Save(checkpoint, save)], **settings,
    )  # fmt: skip
    try:
        trainer.fit(module, Data(source), ckpt_path=resume, weights_only=True if resume else None)
    except (KeyboardInterrupt, SystemExit):
        assert stop_after
    return module, checkpoint


@pytest.mark.parametrize("settings", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 12}])
@pytest.mark.parametrize("stop_after", [2, 4, 7])  # within an epoch, at its end, within a later one
def test_resume_sees_the_same_batches(
    tmp_path: Path, corpus: ManifestSource, undisturbed: list[Any], settings: dict[str, Any], stop_after: int
) -> None:
    first, checkpoint = fit(corpus, tmp_path, stop_after=stop_after, **settings)
    assert len(first.seen) == stop_after
    second, _ = fit(corpus, tmp_path, resume=checkpoint, **settings)
    assert first.seen + second.seen == undisturbed


def test_resume_from_the_end_of_an_epoch(tmp_path: Path, corpus: ManifestSource, undisturbed: list[Any]) -> None:
    # With max_steps, Lightning 2.6 itself goes wrong from such a checkpoint: it adds a batch to the finished epoch.
    # Checkpoints of such runs are to be saved after batches, as above.
    first, checkpoint = fit(corpus, tmp_path, stop_after=6, save="epoch", max_epochs=3)
    second, _ = fit(corpus, tmp_path, resume=checkpoint, max_epochs=3)
    assert first.seen[:4] + second.seen == undisturbed


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> ManifestSource:
    return ManifestSource(make_corpus(tmp_path_factory.mktemp("lightning"), 9))


@pytest.fixture(scope="module")
def undisturbed(corpus: ManifestSource, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    module, _ = fit(corpus, tmp_path_factory.mktemp("whole"), max_epochs=3)
    assert [epoch for epoch, _, _ in module.seen] == [0] * 4 + [1] * 4 + [2] * 4
    return module.seen
