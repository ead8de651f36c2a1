"""Settings of the continuous job: ``python -m finetune continuous --help``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hicmae.continuous.features import STREAMS, FeatureSettings, Stream
from hicmae.continuous.leader_follower import LeaderFollowerConfig
from hicmae.continuous.windows import WindowSettings


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the videos and their labels are: a table, or the folders of Aff-Wild2."""

    table: Path | None = None
    """Sequences as csv: subject, video and/or faces, annotation, split, name, frame_rate."""
    annotations: Path | None = None
    """Aff-Wild2: the folder that holds Train_Set and Validation_Set, with a text file for every sequence."""
    videos: list[Path] = field(default_factory=list)
    """Aff-Wild2: folders with the videos."""
    faces: Path | None = None
    """Aff-Wild2: the folder cropped_aligned with the face pictures; empty: the videos' own pictures."""
    test_names: Path | None = None
    """Aff-Wild2: text file with the names of the test sequences, one a line."""
    allow_shared_subjects: bool = False
    """Accept subjects in train or val and in the test, or in train and in val where folds is 0."""
    strict: bool = False
    """Stop if any sequence has to be left out; otherwise they are named in rejects.csv."""

    def __post_init__(self) -> None:
        if (self.table is None) == (self.annotations is None):
            raise ValueError("give the sequences either as data.table or as data.annotations, one of the two")
        if self.table is not None and (self.videos or self.faces or self.test_names):
            raise ValueError("data.videos, data.faces and data.test_names belong to data.annotations; a data.table "
                             "names its files itself")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a head is trained."""

    epochs: int = 30
    """Passes over the windows of the training sequences."""
    batch_size: int = 8
    """Windows of a step."""
    lr: float = 1e-3
    """Highest learning rate, reached after the warm-up; a cosine takes it to 0."""
    warmup_epochs: float = 1.0
    """Epochs of linear warm-up from 0."""
    weight_decay: float = 0.01
    """Decoupled weight decay (AdamW)."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name}={getattr(self, name)} must be at least 1")
        for name in ("lr", "weight_decay", "warmup_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"training.{name}={getattr(self, name)} must be 0 or more")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"training.warmup_epochs={self.warmup_epochs} leaves nothing of training.epochs={self.epochs}; "
                "lower the warm-up or train longer"
            )


@dataclass(frozen=True, kw_only=True)
class ContinuousSettings:
    """Continuous recognition over time."""

    backbone: Path
    """Exported folder of pre-training or fine-tuning, which gives the features."""
    out: Path
    """Folder of the run; a run that was stopped goes on there."""
    data: DataSettings
    features_dir: Path | None = None
    """Folder for the features, which several runs may share; empty: OUT/features."""
    targets: list[str] = field(default_factory=lambda: ["valence", "arousal"])
    """Columns of the annotations that are predicted, one or more."""
    limits: tuple[float, float] = (-1.0, 1.0)
    """Least and greatest value of the targets; predictions are cut to them."""
    streams: list[Stream] = field(default_factory=lambda: ["video", "audio"])
    """Features that the head reads, the leader first: video, audio, fused_video, fused_audio."""
    centre_features: bool = False
    """Take each video's own mean from its features. It is no part of the paper, needs the video as a whole, and hides
    how videos differ on the whole; but heads learn from few people what would else be lost among their differences."""
    folds: int = 6
    """Folds of the subjects of the splits train and val together; 0: train on train, choose on val."""
    run_folds: list[int] | None = None
    """Train these folds only, say one on each machine; results appear when all are there."""
    paper_protocol: bool = False
    """Choose the best checkpoint of a fold on the very part that it is scored on, as the paper does. Otherwise the
    next fold serves for choosing, and the part that is scored is touched once."""
    seed: int = 0
    """Decides initial weights, order of windows and dropout."""
    device: str = "auto"
    """auto, cpu or cuda."""
    features: FeatureSettings = field(default_factory=FeatureSettings)
    window: WindowSettings = field(default_factory=WindowSettings)
    model: LeaderFollowerConfig = field(default_factory=LeaderFollowerConfig)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", tuple(self.limits))
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise ValueError(f"targets={self.targets} must name one or more columns, each once")
        if not self.streams or len(set(self.streams)) != len(self.streams):
            raise ValueError(f"streams={self.streams} must name one or more of {', '.join(STREAMS)}, each once")
        if any(name.startswith("fused") for name in self.streams) and not self.features.fused:
            raise ValueError(f"streams={self.streams} needs features.fused to be true")
        if not self.limits[0] < self.limits[1]:
            raise ValueError(f"limits={list(self.limits)} must ascend")
        if self.folds < 0 or self.folds == 1 or (self.folds == 2 and not self.paper_protocol):
            raise ValueError(
                f"folds={self.folds}: give at least 3 (one to score, one to choose the checkpoint, the rest to train; "
                "2 with paper_protocol), or 0 for the data's own split into train and val"
            )
        if self.run_folds is not None and any(not 0 <= fold < self.folds for fold in self.run_folds):
            raise ValueError(f"run_folds={self.run_folds}: there are folds 0 to {self.folds - 1}")

    @property
    def feature_folder(self) -> Path:
        """Where the features lie."""
        return self.features_dir if self.features_dir is not None else self.out / "features"

    def trained_by(self) -> dict[str, Any]:
        """The settings that a trained head depends on, as plain values."""
        return {
            "targets": self.targets,
            "limits": list(self.limits),
            "streams": self.streams,
            "centre_features": self.centre_features,
            "every": self.features.every,
            "folds": self.folds,
            "paper_protocol": self.paper_protocol,
            "seed": self.seed,
            "window": asdict(self.window),
            "model": {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self.model).items()},
            "training": asdict(self.training),
        }
