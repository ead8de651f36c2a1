"""Class weights of a run: as they are given, or from the training clips."""

from __future__ import annotations

import logging
import math
from collections import Counter

import torch
from torch import Tensor

from hicmae.data.labels import LabelSpec
from hicmae.data.source import ClipSource
from hicmae.losses import balanced_weights

logger = logging.getLogger(__name__)


def given_weights(weights: list[float] | str | None, classes: tuple[str, ...]) -> Tensor | None:
    """Class weights as a tensor; ones until the training clips are known, where they are to balance them.

    Raises:
        ValueError: no classes, another number of weights than classes, or a weight that is not positive and finite.
    """
    if weights is None:
        return None
    if not classes:
        raise ValueError(f"model.class_weights is {weights}, but there are no classes; set it to null")
    if isinstance(weights, str):
        return torch.ones(len(classes))
    if len(weights) != len(classes) or not all(0 < weight < math.inf for weight in weights):
        raise ValueError(
            f"model.class_weights has {len(weights)} values {weights}; give a positive one for each of the "
            f"{len(classes)} classes {list(classes)}, or balanced"
        )
    return torch.tensor(weights)


def weights_of_clips(clips: ClipSource, labels: LabelSpec) -> Tensor:
    """Weights by which all classes of the training clips count alike, float32 (C,); they are logged."""
    column, names = next(iter(labels.classes.items()))
    counts = Counter(str(clips.info(number).labels[column]) for number in range(len(clips)))
    weights = balanced_weights([counts[name] for name in names])
    logger.info("class weights: %s", dict(zip(names, weights.tolist(), strict=True)))
    return weights
