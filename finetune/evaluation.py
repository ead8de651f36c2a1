"""A split's predictions as a table, and their scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hicmae.backbone import Modality
from hicmae.data.labels import LabelSpec
from hicmae.data.source import ClipSource
from hicmae.heads import Targets
from hicmae.metrics import CategoricalScores, DimensionalScores, categorical_scores, dimensional_scores
from hicmae.predictions import ClipOutputs

_LACKING = {"video": "picture", "audio": "sound"}


def targets_of(labels: LabelSpec) -> Targets:
    """What the head predicts for these labels.

    Raises:
        ValueError: more than one categorical column.
    """
    if len(labels.classes) > 1:
        raise ValueError(
            f"model.labels.classes has the columns {list(labels.classes)}; a head has one list of classes, keep one"
        )
    classes = next(iter(labels.classes.values()), ())
    return Targets(classes=tuple(classes), dimensions=tuple(labels.dimensions))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is known after a pass over a split."""

    table: pd.DataFrame
    """One row a clip: clip_id, subject, then label, predicted and probability_CLASS, and / or DIMENSION_target and
    DIMENSION_prediction, then n_segments."""
    categorical: CategoricalScores | None
    dimensional: dict[str, DimensionalScores]
    classes: tuple[str, ...]
    clips: int
    """Clips of the split."""
    lacking: dict[str, int] = field(default_factory=dict)
    """Clips without picture or sound; the model was given zeros for it."""

    @property
    def scalars(self) -> dict[str, float]:
        """Headline scores by name: uar, war, macro_f1, weighted_f1; ccc, pcc, mae, rmse (means over dimensions, NaN
        if one is), and the same for each dimension."""
        scores: dict[str, float] = {}
        if self.categorical is not None:
            scores |= {name: getattr(self.categorical, name) for name in ("uar", "war", "macro_f1", "weighted_f1")}
        for name in ("ccc", "pcc", "mae", "rmse") if self.dimensional else ():
            each = {dimension: getattr(value, name) for dimension, value in self.dimensional.items()}
            scores[name] = float(np.mean(list(each.values())))
            scores |= {f"{name}_{dimension}": value for dimension, value in each.items()}
        return scores

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not defined is ``None``."""
        values: dict[str, Any] = {name: _plain(value) for name, value in self.scalars.items()}
        if self.categorical is not None:
            values["recall"] = dict(zip(self.classes, map(_plain, self.categorical.recall), strict=True))
            values["f1"] = dict(zip(self.classes, map(_plain, self.categorical.f1), strict=True))
            values["confusion"] = self.categorical.confusion.tolist()
            values["classes_without_clips"] = list(self.categorical.absent)
        values["clips"] = self.clips
        values["clips_not_decoded"] = self.clips - len(self.table)
        return values | {f"clips_without_{name}": count for name, count in self.lacking.items()}


def evaluate(
    result: ClipOutputs, source: ClipSource, labels: LabelSpec, modalities: tuple[Modality, ...]
) -> Evaluation:
    """Compare outputs with labels.

    Args:
        result: for each clip class probabilities, then dimensions, then the share of segments with each modality.
        source: the clips of the split; gives names and labels.
        labels: what was predicted.
        modalities: what the model was given, in the order of the last outputs.

    Raises:
        ValueError: not one clip of the split could be decoded.
    """
    targets = targets_of(labels)
    if not len(result.index):
        raise ValueError(f"{source.name}: none of the {len(source)} clips could be decoded; the log says why")
    infos = [source.info(int(number)) for number in result.index]
    true = [labels.encode(info.labels, clip_id=info.clip_id) for info in infos]
    columns: dict[str, Any] = {
        "clip_id": [info.clip_id for info in infos],
        "subject": [info.subject for info in infos],
    }
    split = np.cumsum([len(targets.classes), len(targets.dimensions)])
    probabilities, values, given = np.split(result.outputs, split, axis=1)
    categorical = None
    if targets.classes:
        names = np.array(targets.classes, dtype=object)
        label = np.array([row[next(iter(labels.classes))] for row in true], dtype=np.int64)
        predicted = probabilities.argmax(axis=1)
        categorical = categorical_scores(label, predicted, targets.classes)
        columns |= {"label": names[label], "predicted": names[predicted]}
        columns |= {f"probability_{name}": probabilities[:, i] for i, name in enumerate(targets.classes)}
    dimensional: dict[str, DimensionalScores] = {}
    for i, name in enumerate(targets.dimensions):
        target = np.array([row[name] for row in true], dtype=np.float64)
        dimensional[name] = dimensional_scores(target, values[:, i])
        columns |= {f"{name}_target": target, f"{name}_prediction": values[:, i]}
    columns["n_segments"] = result.segments
    return Evaluation(
        table=pd.DataFrame(columns),
        categorical=categorical,
        dimensional=dimensional,
        classes=targets.classes,
        clips=len(source),
        lacking=_count_lacking(given, modalities),
    )


def _count_lacking(given: NDArray[np.float64], modalities: tuple[Modality, ...]) -> dict[str, int]:
    return {_LACKING[name]: int((given[:, i] == 0).sum()) for i, name in enumerate(modalities)}


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
