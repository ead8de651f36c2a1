"""Maps of features by layer and modality (the paper's figure), with what the eye alone cannot be trusted to tell.

Shapes: N clips, D width, L layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from hicmae.data.source import ClipInfo
from hicmae.report.clip_features import ClipFeatures
from hicmae.report.markup import joined, legend, paragraph, table
from hicmae.report.material import Material
from hicmae.report.run import NotAvailableError
from hicmae.report.svg import Line, line_panel, point_panel

NEIGHBOURS = 5
_LAYERS_DRAWN = 4
_FEWEST = 8
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Groups:
    """What clips are coloured by."""

    said: str
    """E.g. emotion, speaker."""
    numbers: NDArray[np.int64]
    """(N,): group of each clip."""
    names: list[str]
    subjects: list[str] | None
    """Speakers of the clips, where neighbours are to be of other speakers; ``None``: any clip may be a neighbour."""


def make_feature_map(material: Material) -> Markup:
    """t-SNE of video layers, audio layers and fusion; accuracy of neighbours and silhouette at every layer."""
    features = material.features
    if len(features.infos) < _FEWEST:
        raise NotAvailableError(f"{len(features.infos)} clips are too few for a map; {_FEWEST} are needed")
    columns = material.run.model.get("labels") or {}
    groups = group_clips(features.infos, [*(columns.get("classes") or {})], [*(columns.get("dimensions") or {})])
    parts = _layers(features)
    scores = {name: (neighbour_recall(values, groups), silhouette(values, groups)) for name, values in parts.items()}
    tooltips = [f"{info.clip_id}: {groups.names[n]}" for info, n in zip(features.infos, groups.numbers, strict=True)]
    rows_of_maps = [
        [
            point_panel(name, tsne(parts[name]), groups.numbers.tolist(), tooltips, note=_numbers(*scores[name]))
            for name in parts
            if name.startswith(kind) and _is_drawn(name, features)
        ]
        for kind in ("video", "audio", "fused")
    ]
    rows = [[name, *(_shown(value) for value in scores[name])] for name in parts]
    chance = 1 / len(np.unique(groups.numbers))
    header = ["features", f"{NEIGHBOURS}-nearest neighbours, mean recall", "silhouette (cosine)"]
    others = " of other speakers" if groups.subjects else ""
    said = (
        f"{material.choice.said}, coloured by {groups.said}. t-SNE keeps neighbours and not distances, and it can show "
        f"clusters where there are none: hence the table. Mean recall: the share of each {groups.said} that its "
        f"{NEIGHBOURS} nearest clips{others} tell, averaged; guessing gives {chance:.3f}. The silhouette is 1 for "
        "groups far apart and about 0 for groups that overlap."
    )
    return joined(
        [
            legend(groups.names),
            *(Markup('<div class="panels maps">{}</div>').format(joined(maps)) for maps in rows_of_maps if maps),
            Markup('<div class="beside">{}{}</div>').format(table(header, rows), _by_layer(scores, features)),
            paragraph(said, "note"),
        ]
    )


def group_clips(infos: Sequence[ClipInfo], classes: Sequence[str], dimensions: Sequence[str]) -> Groups:
    """Colours by the class learnt; else by thirds of the first dimension, any label of words, or the speaker.

    Raises:
        NotAvailableError: nothing tells clips apart.
    """
    subjects = [info.subject for info in infos]
    several = subjects if len(set(subjects) - {""}) > 1 else None
    words = [column for column in infos[0].labels if isinstance(infos[0].labels[column], str)]
    for column in [*classes, *([] if dimensions else words)]:
        values = [str(info.labels.get(column, "")) for info in infos]
        if 1 < len(set(values)) <= len(infos) // 2:
            return _grouped(column, values, several)
    for column in dimensions:
        numbers = np.array([float(info.labels.get(column, np.nan)) for info in infos])
        if np.isfinite(numbers).all() and np.ptp(numbers) > 0:
            edges = np.quantile(numbers, [1 / 3, 2 / 3])
            thirds = [("low", "middle", "high")[i] for i in np.searchsorted(edges, numbers)]
            return _grouped(f"{column} (thirds)", thirds, several, order=("low", "middle", "high"))
    if several is not None:
        return _grouped("speaker", subjects, None)
    raise NotAvailableError("the clips have neither labels nor speakers to colour them by")


def _grouped(said: str, values: Sequence[str], subjects: list[str] | None, order: Sequence[str] = ()) -> Groups:
    """The most frequent get colours of their own."""
    names = [name for name in order if name in values] or [
        name for name, _ in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    ]
    place = {name: i for i, name in enumerate(names)}
    return Groups(said=said, names=names, numbers=np.array([place[value] for value in values]), subjects=subjects)


def tsne(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, D) to (N, 2), the same every time."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    wide = features.astype(np.float64)
    scaled = (wide - wide.mean(axis=0)) / max(1e-12, float(wide.std()))
    perplexity = min(30.0, (len(features) - 1) / 3)
    model = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=_SEED)
    # So few points gain nothing from threads, which wait for each other at each of a thousand steps; and sums over
    # several of them need not come out the same every time.
    with threadpool_limits(1):
        points: NDArray[np.float64] = model.fit_transform(scaled)
    return points


def neighbour_recall(features: NDArray[np.floating], groups: Groups) -> float:
    """Mean over groups of the share of clips whose nearest neighbours by cosine vote for their group; (N, D).

    Of equal votes the nearest neighbour's decides. Where speakers are given, clips of one's own are no neighbours.
    """
    wide = features.astype(np.float64)
    unit = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    if groups.subjects is not None:
        subjects = np.array(groups.subjects)
        similarity[(subjects[:, None] == subjects[None]) & (subjects != "")] = -np.inf
    right = []
    for own, row in zip(groups.numbers, similarity, strict=True):
        nearest = [i for i in np.argsort(-row, kind="stable")[:NEIGHBOURS] if np.isfinite(row[i])]
        votes = Counter(groups.numbers[nearest].tolist())  # counts in the order of nearness: the first of equals wins
        right.append(bool(votes) and votes.most_common(1)[0][0] == own)
    correct = np.array(right)
    return float(np.mean([correct[groups.numbers == group].mean() for group in np.unique(groups.numbers)]))


def silhouette(features: NDArray[np.floating], groups: Groups) -> float:
    """Mean silhouette by cosine; NaN where every clip is a group of its own."""
    from sklearn.metrics import silhouette_score

    if not 1 < len(np.unique(groups.numbers)) < len(groups.numbers):
        return float("nan")
    return float(silhouette_score(features.astype(np.float64), groups.numbers, metric="cosine"))


def _layers(features: ClipFeatures) -> dict[str, NDArray[np.float32]]:
    parts = {
        f"{name}, layer {layer + 1}": values[layer]
        for name, values in (("video", features.video), ("audio", features.audio))
        if values is not None
        for layer in range(len(values))
    }
    return parts | ({"fused": features.fused} if features.fused is not None else {})


def _is_drawn(name: str, features: ClipFeatures) -> bool:
    if name == "fused":
        return True
    values = features.video if features.video is not None else features.audio
    assert values is not None
    chosen = np.linspace(1, len(values), min(_LAYERS_DRAWN, len(values))).round().astype(int)
    return int(name.rpartition(" ")[2]) in chosen.tolist()


def _by_layer(scores: dict[str, tuple[float, float]], features: ClipFeatures) -> Markup:
    """Neighbours by layer, where there are enough layers for a curve."""
    lines = []
    for name, values in (("video", features.video), ("audio", features.audio)):
        if values is not None and len(values) > 1:
            numbers = list(range(1, len(values) + 1))
            ys = [scores[f"{name}, layer {number}"][0] for number in numbers]
            lines.append(Line(name=name, xs=numbers, ys=ys, marked=True))
    return line_panel("nearest neighbours, mean recall", lines, unit="layer", from_zero=True) if lines else Markup("")


def _numbers(recall: float, silhouette_: float) -> str:
    return f"recall {_shown(recall)}, silhouette {_shown(silhouette_)}"


def _shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"
