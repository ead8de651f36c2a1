"""From features of probe clips to the values that are reported.

Shapes: N clips, D width of a feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hicmae.attention import attention_weights
from hicmae.attention_measures import attention_distance, attention_entropy, distance_of_even_attention
from hicmae.backbone import Backbone
from hicmae.fixed_probes import balanced_weights, predict_by_neighbours, predict_linearly
from hicmae.metrics import confusion_matrix, confusion_scores, dimensional_scores
from hicmae.patches import audio_to_patches, video_to_patches
from hicmae.representation import AT, alignment, alignment_of_strangers, effective_rank, rank, uniformity
from pretrain.module import PretrainModule
from pretrain.probe_clips import ProbeClips

Array = NDArray[np.float64]
_CLIPS_LOOKED_AT = 8


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value of a part, and what it would be if features told nothing (NaN where that is not known)."""

    part: str
    metric: str
    value: float
    chance: float = float("nan")


def score_parts(
    parts: Mapping[str, Array],
    *,
    fit: NDArray[np.bool_],
    targets: Mapping[str, NDArray[Any]],
    classes: Mapping[str, int],
    layers: Sequence[int],
) -> list[Value]:
    """All values of features.

    Args:
        parts: by name (``hicmae.feature_parts``) float (N, D).
        fit: bool (N,), clips that probes are fitted to; the others ask.
        targets: by label column (N,): class numbers, or values.
        classes: by label column of classes, how many there are.
        layers: those at which the modalities are compared, 0-based.
    """
    found: list[Value] = []
    for name, features in parts.items():
        for column, target in targets.items():
            found += _probes(name, features, column, target, classes.get(column), fit)
        found.append(Value(part=name, metric="uniformity", value=uniformity(features)))
        found.append(Value(part=name, metric="effective_rank", value=effective_rank(features)))
    for layer in layers:
        video, audio = parts.get(f"video_layer{layer + 1}"), parts.get(f"audio_layer{layer + 1}")
        if video is not None and audio is not None:
            found += _pairs(f"layer{layer + 1}", video, audio)
    return found


def score_attention(
    module: PretrainModule, backbone: Backbone, clips: ProbeClips, layers: Sequence[int]
) -> Iterator[Value]:
    """How evenly attention is divided and how far it reaches at some layers of the encoders, for a few clips."""
    config = module.config
    sums: dict[tuple[str, str], list[float]] = {}
    chance: dict[tuple[str, str], float] = {}
    batch = clips.batches[0]
    rows = np.flatnonzero(clips.usable[: len(batch)])[:_CLIPS_LOOKED_AT]
    video, log_mel = module.inputs(batch.to(module.device))
    for row in rows.tolist():  # one by one: the matrices are large
        for modality in backbone.modalities:
            if modality == "video":
                encoder, patches = backbone.video_encoder, video_to_patches(video[row : row + 1], config)
            else:
                encoder, patches = backbone.audio_encoder, audio_to_patches(log_mel[row : row + 1], config)
            grid: tuple[int, ...] = config.video_grid if modality == "video" else config.audio_grid
            for layer, weights in attention_weights(encoder, patches, layers).items():
                part = f"{modality}_layer{layer + 1}"
                sums.setdefault((part, "attention_entropy"), []).append(attention_entropy(weights))
                sums.setdefault((part, "attention_distance"), []).append(attention_distance(weights, grid))
                chance |= {(part, "attention_entropy"): 1.0,
                           (part, "attention_distance"): distance_of_even_attention(grid)}  # fmt: skip
    for (part, metric), values in sums.items():
        yield Value(part=part, metric=metric, value=float(np.mean(values)), chance=chance[part, metric])


def _probes(
    part: str, features: Array, column: str, target: NDArray[Any], classes: int | None, fit: NDArray[np.bool_]
) -> Iterator[Value]:
    """Neighbours and a linear model, on one label column."""
    x, queries, truth = features[fit], features[~fit], target[~fit]
    if classes is None:
        y = target[fit].astype(np.float64)[:, None]
        values = {"knn": predict_by_neighbours(x, y, queries), "linear": predict_linearly(x, y, queries)}
        for method, guess in values.items():
            ccc = dimensional_scores(truth, guess[:, 0]).ccc
            yield Value(part=part, metric=f"{method}_ccc_{column}", value=ccc, chance=0.0)
        return
    y = np.eye(classes)[target[fit]]
    votes = {
        "knn": predict_by_neighbours(x, y, queries),
        "linear": predict_linearly(x, y, queries, weights=balanced_weights(target[fit])),
    }
    for method, guess in votes.items():
        uar = confusion_scores(confusion_matrix(truth, guess.argmax(axis=1), classes))["uar"]
        chance = 1 / len(np.unique(truth))
        yield Value(part=part, metric=f"{method}_uar_{column}", value=float(uar), chance=chance)


def _pairs(part: str, video: Array, audio: Array) -> Iterator[Value]:
    """How well the two sides of a clip find one another at a layer."""
    for name, ranking in (("video_to_audio", rank(video, audio)), ("audio_to_video", rank(audio, video))):
        for at in AT:
            yield Value(part=part, metric=f"{name}_recall_at_{at}", value=ranking.recall(at),
                        chance=min(1.0, at / len(video)))  # fmt: skip
    strangers = alignment_of_strangers(video, audio)
    yield Value(part=part, metric="alignment", value=alignment(video, audio), chance=strangers)
