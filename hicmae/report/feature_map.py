"""Maps of features by layer and modality (the paper's figure), with what the eye alone cannot be trusted to tell.

Shapes: N clips, D width, L layers.
"""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from hicmae.figures.feature_grid import FeatureMaps
from hicmae.report.clip_features import ClipFeatures
from hicmae.report.feature_groups import NEIGHBOURS, Groups, group_clips, neighbour_recall, silhouette, tsne
from hicmae.report.markup import joined, legend, paragraph, table
from hicmae.report.material import Material
from hicmae.report.run import NotAvailableError
from hicmae.report.svg import Line, line_panel, point_panel

_LAYERS_DRAWN = 4
_FEWEST = 8


def make_feature_map(material: Material) -> Markup:
    """t-SNE of video layers, audio layers and fusion; accuracy of neighbours and silhouette at every layer."""
    features = material.features
    if len(features.infos) < _FEWEST:
        raise NotAvailableError(f"{len(features.infos)} clips are too few for a map; {_FEWEST} are needed")
    columns = material.run.model.get("labels") or {}
    groups = group_clips(features.infos, [*(columns.get("classes") or {})], [*(columns.get("dimensions") or {})])
    parts = layers_of(features)
    scores = {name: (neighbour_recall(values, groups), silhouette(values, groups)) for name, values in parts.items()}
    tooltips = [f"{info.clip_id}: {groups.names[n]}" for info, n in zip(features.infos, groups.numbers, strict=True)]
    rows_of_maps = [
        [
            point_panel(name, tsne(parts[name]), groups.numbers.tolist(), tooltips, note=_numbers(*scores[name]))
            for name in parts
            if name.startswith(kind) and is_drawn(name, features)
        ]
        for kind in ("video", "audio", "fused")
    ]
    rows = [[name, *(_shown(value) for value in scores[name])] for name in parts]
    chance = 1 / len(np.unique(groups.numbers))
    header = ["features", f"{NEIGHBOURS}-nearest neighbours, mean recall", "silhouette (cosine)"]
    others = " of other speakers" if groups.subjects else ""
    said = (
        f"{material.choice.said}, coloured by {groups.said}; model of {features.weights}. t-SNE keeps "
        "neighbours and not distances, each map is stretched to fill its panel, and it can show "
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


def layers_of(features: ClipFeatures) -> dict[str, NDArray[np.float32]]:
    """Each layer's features (N, D) by name: ``video, layer 1`` and so on, then ``fused``."""
    parts = {
        f"{name}, layer {layer + 1}": values[layer]
        for name, values in (("video", features.video), ("audio", features.audio))
        if values is not None
        for layer in range(len(values))
    }
    return parts | ({"fused": features.fused} if features.fused is not None else {})


def is_drawn(name: str, features: ClipFeatures) -> bool:
    """Whether there is room for a map of this layer: of many, some are left out, evenly."""
    if name == "fused":
        return True
    values = features.video if features.video is not None else features.audio
    assert values is not None
    chosen = np.linspace(1, len(values), min(_LAYERS_DRAWN, len(values))).round().astype(int)
    return int(name.rpartition(" ")[2]) in chosen.tolist()


def feature_maps(name: str, features: ClipFeatures, groups: Groups) -> FeatureMaps:
    """The same maps and scores, for a picture in a file."""
    points: dict[tuple[str, int], NDArray[np.float64]] = {}
    notes: dict[tuple[str, int], str] = {}
    recall: dict[str, list[float]] = {}
    for part, values in layers_of(features).items():
        kind, _, layer = part.partition(", layer ")
        score = neighbour_recall(values, groups)
        if layer:
            recall.setdefault(kind, []).append(score)
        if is_drawn(part, features):
            key = kind, int(layer or 0)
            points[key] = tsne(values)
            notes[key] = f"recall {score:.2f}, silhouette {silhouette(values, groups):.2f}"
    return FeatureMaps(name=name, points=points, notes=notes, recall=recall)


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
