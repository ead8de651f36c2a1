"""A split's predictions as a table, and their scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finetune.grouping import group_outputs
from hicmae.backbone import Modality
from hicmae.bootstrap import Intervals, score_intervals
from hicmae.data.labels import LabelSpec
from hicmae.data.source import ClipSource
from hicmae.heads import Targets
from hicmae.metrics import (
    CATEGORICAL,
    DIMENSIONAL,
    CategoricalScores,
    DimensionalScores,
    categorical_scores,
    dimensional_scores,
)
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
    return Targets(classes=tuple(classes), dimensions=tuple(labels.dimensions), ranges=labels.dimensions)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is known after a pass over a split."""

    table: pd.DataFrame
    """One row a clip: clip_id, subject, then label, predicted and probability_CLASS, and / or DIMENSION_target and
    DIMENSION_prediction, then n_segments. One row a group, with n_clips, where clips share a prediction."""
    categorical: CategoricalScores | None
    dimensional: dict[str, DimensionalScores]
    classes: tuple[str, ...]
    clips: int
    """Clips of the split."""
    decoded: int
    """Clips that could be decoded and are behind the table."""
    average_over: str | None = None
    """Label column whose clips share a prediction."""
    lacking: dict[str, int] = field(default_factory=dict)
    """Clips without picture or sound; the model was given zeros for it."""

    @property
    def scalars(self) -> dict[str, float]:
        """Headline scores by name: uar, war, macro_f1, weighted_f1; ccc, pcc, mae, rmse (means over dimensions, NaN
        if one is), and the same for each dimension."""
        scores: dict[str, float] = {}
        if self.categorical is not None:
            scores |= {name: getattr(self.categorical, name) for name in CATEGORICAL}
        for name in DIMENSIONAL if self.dimensional else ():
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
        values["clips_not_decoded"] = self.clips - self.decoded
        if self.average_over is not None:
            values["predictions"] = len(self.table)
            values["averaged_over"] = self.average_over
        return values | {f"clips_without_{name}": count for name, count in self.lacking.items()}

    def intervals(self) -> Intervals:
        """Bounds of the scores in ``scalars``, by resampling speakers."""
        return table_intervals(self.table, self.classes, tuple(self.dimensional))

    @property
    def rows(self) -> str:
        """How many predictions there are, in words."""
        return f"{len(self.table)} {'clips' if self.average_over is None else 'groups of clips'}"


def table_intervals(table: pd.DataFrame, classes: tuple[str, ...], dimensions: tuple[str, ...]) -> Intervals:
    """Bounds of the scores of predictions as ``Evaluation.table`` holds them."""
    number = {name: i for i, name in enumerate(classes)}
    return score_intervals(
        table["subject"].tolist(),
        classes=(table["label"].map(number), table["predicted"].map(number), len(classes)) if classes else None,
        dimensions={name: (table[f"{name}_target"], table[f"{name}_prediction"]) for name in dimensions},
    )


def evaluate(
    result: ClipOutputs,
    source: ClipSource,
    labels: LabelSpec,
    modalities: tuple[Modality, ...],
    *,
    average_over: str | None = None,
) -> Evaluation:
    """Compare outputs with labels.

    Args:
        result: for each clip class probabilities, then dimensions, then the share of segments with each modality.
        source: the clips of the split; gives names and labels.
        labels: what was predicted.
        modalities: what the model was given, in the order of the last outputs.
        average_over: label column whose clips share one prediction, the mean of theirs.

    Raises:
        ValueError: not one clip of the split could be decoded.
    """
    targets = targets_of(labels)
    if not len(result.index):
        raise ValueError(f"{source.name}: none of the {len(source)} clips could be decoded; the log says why")
    infos = [source.info(int(number)) for number in result.index]
    split = np.cumsum([len(targets.classes), len(targets.dimensions)])
    lacking = _count_lacking(result.outputs[:, split[1] :], modalities)
    outputs, segments = result.outputs, result.segments
    counts: dict[str, Any] = {}
    if average_over is not None:
        grouped = group_outputs(result, infos, average_over)
        infos, outputs, segments, counts = grouped.infos, grouped.outputs, grouped.segments, {"n_clips": grouped.clips}
    true = [labels.encode(info.labels, clip_id=info.clip_id) for info in infos]
    columns: dict[str, Any] = {
        "clip_id": [info.clip_id for info in infos],
        "subject": [info.subject for info in infos],
    }
    probabilities, values, _ = np.split(outputs, split, axis=1)
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
    columns |= {"n_segments": segments} | counts
    return Evaluation(
        table=pd.DataFrame(columns),
        categorical=categorical,
        dimensional=dimensional,
        classes=targets.classes,
        clips=len(source),
        decoded=len(result.index),
        average_over=average_over,
        lacking=lacking,
    )


def _count_lacking(given: NDArray[np.float64], modalities: tuple[Modality, ...]) -> dict[str, int]:
    return {_LACKING[name]: int((given[:, i] == 0).sum()) for i, name in enumerate(modalities)}


def is_score(name: str) -> bool:
    """Whether a value of ``Evaluation.to_dict`` is one of ``Evaluation.scalars``, by its name."""
    return name in (*CATEGORICAL, *DIMENSIONAL) or name.startswith(tuple(f"{score}_" for score in DIMENSIONAL))


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
