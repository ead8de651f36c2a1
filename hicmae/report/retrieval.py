"""Retrieval between picture and sound: does the sound of a clip find its own picture among those of all others?"""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from hicmae.figures.spectrogram import spectrogram_picture
from hicmae.report.clip_features import ClipFeatures
from hicmae.report.markup import folded, joined, paragraph, picture, table
from hicmae.report.material import Material
from hicmae.report.pictures import webp
from hicmae.report.run import NotAvailableError
from hicmae.representation import AT, Ranking, rank

_EXAMPLES, _FOUND = 3, 3
_THUMB = (96, 64)


def make_retrieval(material: Material) -> Markup:
    """Recall and median rank at the tapped layers, with examples at the last of them."""
    features = material.features
    if features.video is None or features.audio is None:
        raise NotAvailableError("the model has one modality alone")
    count = len(features.infos)
    if count < 2:
        raise NotAvailableError("one clip alone can be used")
    rows, examples = [], Markup("")
    for tap in features.taps:
        for name, queries, targets in (
            ("video to audio", features.video, features.audio),
            ("audio to video", features.audio, features.video),
        ):
            ranking = rank(queries[tap], targets[tap])
            shares = [f"{100 * ranking.recall(at):.1f}" for at in AT]
            rows.append([f"{name}, layer {tap + 1}", *shares, f"{ranking.median_rank:g}"])
            if tap == features.taps[-1]:
                examples += _examples(features, ranking, name)
    chance = [f"{100 * min(1, at / count):.1f}" for at in AT]
    rows.append(["chance", *chance, f"{(count + 1) / 2:g}"])
    header = ["query to target", *(f"R@{at} (%)" for at in AT), f"median rank of {count}"]
    said = (
        f"{material.choice.said}; model of {features.weights}; whole windows, nothing masked; cosine of "
        "features averaged over tokens, at the tapped layers, which the contrastive loss of the paper compares. "
        "Right is the same clip alone."
    )
    if features.left_out:
        said += f" Left out: {', '.join(f'{why} {n}' for why, n in features.left_out.most_common())}."
    return joined([table(header, rows), paragraph(said, "note"), folded("Examples", examples)])


def _examples(features: ClipFeatures, ranking: Ranking, name: str) -> Markup:
    """Queries spread evenly over the clips, each with what it finds first."""
    count = len(features.infos)
    lines = []
    for query in np.unique(np.linspace(0, count - 1, min(_EXAMPLES, count)).round().astype(int)):
        from_video = name.startswith("video")
        found = joined(
            Markup('<figure class="{0}">{1}<figcaption>{0} <small>{2}</small></figcaption></figure>').format(
                "right" if target == query else "wrong",
                _thumb(features, int(target), as_picture=not from_video),
                features.infos[target].clip_id,
            )
            for target in ranking.order[query][:_FOUND]
        )
        asked = Markup("<figure>{}<figcaption>query <small>{}</small></figcaption></figure>").format(
            _thumb(features, int(query), as_picture=from_video), features.infos[query].clip_id
        )
        lines.append(Markup('<div class="query">{}<span>&rarr;</span>{}<small>own at {}</small></div>').format(
            asked, found, ranking.ranks[query]
        ))  # fmt: skip
    return joined([Markup("<h3>{}</h3>").format(name), *lines])


def _thumb(features: ClipFeatures, number: int, *, as_picture: bool) -> Markup:
    clip_id = features.infos[number].clip_id
    if as_picture:
        return picture(webp(features.frames[number]), "image/webp", alt=f"a frame of {clip_id}", style="thumb")
    image = spectrogram_picture(features.log_mels[number], _THUMB)
    return picture(webp(image), "image/webp", alt=f"the sound of {clip_id}", style="thumb")
