"""What online probes say in the log: a line after each, and warnings where features seem to come to nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from hicmae.data.labels import LabelSpec
from hicmae.probe_history import RUN, ProbeHistory, ProbeRow, best, one

_COLLAPSED = 1.5
"""Effective rank below which features vary in one direction alone."""
_PATIENCE = 5
"""Probes after the baseline before it is said that nothing has moved."""
_GROUPS = ("video_layer", "audio_layer", "fused", "all")


def main_metric(labels: LabelSpec, method: str = "knn") -> str:
    """The score that is told first: of the first label."""
    if labels.classes:
        return f"{method}_uar_{next(iter(labels.classes))}"
    return f"{method}_ccc_{next(iter(labels.dimensions))}"


def sentence(history: ProbeHistory, step: int, labels: LabelSpec, layers: Sequence[int]) -> str:
    """One line about the probe of a step; ``layers`` as ``score_parts`` takes them."""
    rows = history.at(step)
    told = []
    for method, name in (("knn", "kNN"), ("linear", "linear")):
        metric = main_metric(labels, method)
        scores = [_score(found) for group in _GROUPS if (found := best(rows, metric, group)) is not None]
        score, _, column = metric.removeprefix(f"{method}_").partition("_")
        start = best(history.baseline, metric) if step else None
        chance = next((row.chance for row in rows if row.metric == metric), math.nan)
        random = f", random weights at best {start.value:.2f}" if start is not None else ""
        told.append(f"{name} {score.upper()} of {column}: {', '.join(scores)} (chance {chance:.2f}{random})")
    top = max(layers)
    if one(rows, f"layer{top + 1}", "alignment") is not None:
        forth, back = (one(rows, f"layer{top + 1}", f"{way}_recall_at_1") for way in
                       ("video_to_audio", "audio_to_video"))  # fmt: skip
        assert forth is not None
        assert back is not None
        told.append(f"retrieval@1 at layer {top + 1} video to audio {forth.value:.3f}, audio to video {back.value:.3f} "
                    f"(chance {forth.chance:.3f})")  # fmt: skip
    ranks = [f"{_said(row.part)} {row.value:.1f}" for row in rows if row.metric == "effective_rank"
             and row.part in {f"{m}_layer{top + 1}" for m in ("video", "audio")}]  # fmt: skip
    told += [f"effective rank {', '.join(ranks)}"] if ranks else []
    when = f"after epoch {rows[0].epoch:.4g}" if step else "before training"
    return f"probes {when} | {' | '.join(told)}"


def _score(row: ProbeRow) -> str:
    return f"{_said(row.part)} {row.value:.2f}"


def _said(part: str) -> str:
    """``video_layer4`` in words."""
    return part.replace("_", " ").replace("layer", "layer ")


def collapsed(rows: Sequence[ProbeRow], layers: Sequence[int]) -> list[ProbeRow]:
    """Effective ranks near 1, or 0, of these layers and of what is fused."""
    watched = {f"{modality}_layer{layer + 1}" for modality in ("video", "audio") for layer in layers} | {"fused"}
    return [row for row in rows if row.metric == "effective_rank" and row.part in watched and row.value < _COLLAPSED]


def collapse_warning(found: Sequence[ProbeRow], baseline: Sequence[ProbeRow]) -> str:
    """What is said of them."""
    parts = []
    for row in found:
        start = one(baseline, row.part, "effective_rank")
        before = f", {start.value:.1f} before training" if start is not None and start is not row else ""
        parts.append(f"{_said(row.part)} ({row.value:.2f}{before})")
    return (
        f"features of different clips differ in hardly more than one direction: effective rank of {', '.join(parts)}. "
        "Where it stays so they have collapsed: see whether the losses fall, and whether the learning rate or the "
        "weight of the contrastive loss is too high, or the probe's clips all alike"
    )


def stillness_warning(history: ProbeHistory, labels: LabelSpec, queries: int) -> str | None:
    """Said where no probe is above the baseline after several; ``None`` where one is, or it is too early to tell."""
    later = [step for step in history.steps if step]
    if not history.baseline or len(later) < _PATIENCE:
        return None
    told = []
    for method, name in (("knn", "kNN"), ("linear", "linear")):
        metric = main_metric(labels, method)
        start, now = best(history.baseline, metric), best(history.at(later[-1]), metric)
        if start is None or now is None:
            return None
        error = _standard_error(start, queries)
        if now.value > start.value + error:
            return None
        told.append(f"{name} {now.value:.2f} ({_said(now.part)}) against {start.value:.2f} +- {error:.2f}")
    score, _, column = main_metric(labels).removeprefix("knn_").partition("_")
    return (
        f"after {len(later)} probes none is above that of the random weights by more than its standard error: "
        f"{score.upper()} of {column}, {'; '.join(told)}. With {queries} clips that ask, or early in a run, that may "
        "be chance; if it stays so, the pre-training does not help with these labels"
    )


def _standard_error(row: ProbeRow, queries: int) -> float:
    """Of a share of right answers, roughly that of a mean recall too; of a correlation that of no correlation."""
    if "_uar_" in row.metric:
        return math.sqrt(max(row.value * (1 - row.value), 0.0) / queries)
    return 1 / math.sqrt(max(queries - 1, 1))


def logged(rows: Sequence[ProbeRow]) -> Iterator[tuple[str, float]]:
    """Names and values for loggers."""
    for row in rows:
        yield (f"probe/{row.metric}" if row.part == RUN else f"probe/{row.part}/{row.metric}"), row.value
