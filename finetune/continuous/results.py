"""What a run leaves: scores, predictions of every frame in the challenges' formats, figures.

Shapes: N frames of a video, K targets, F folds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finetune.continuous.files import as_json, replace
from finetune.continuous.fold import BEST, LAST, FoldParts
from finetune.continuous.settings import ContinuousSettings
from hicmae.continuous.merging import centre_folds
from hicmae.continuous.prediction import LabelledVideo, frame_scores

logger = logging.getLogger(__name__)

Frames = dict[str, NDArray[np.float64]]
_DRAWN = 4
_ON_SCREEN = 4000
"""Most points of a curve: more are not to be told apart."""


def write_results(
    settings: ContinuousSettings, folds: Sequence[FoldParts], others: Sequence[LabelledVideo]
) -> dict[str, Any]:
    """Write ``metrics.json``, ``report.md``, ``predictions.parquet``, ``predictions/`` and ``figures/``.

    Every sequence of train and val is predicted by the fold that scores it, and every other one by all folds, merged
    by CCC-centering. Returns what ``metrics.json`` holds.
    """
    out = settings.out
    scored = {video.name: video for fold in folds for video in fold.score}
    metrics: dict[str, Any] = {"about": _about(settings, folds, others)}
    kept: dict[str, Frames] = {}
    for checkpoint in (BEST, LAST):
        tables = [_read(out / "folds" / str(fold.number), checkpoint, settings.targets) for fold in folds]
        own: Frames = {
            video.name: table[video.name].clip(*settings.limits)
            for fold, table in zip(folds, tables, strict=True)
            for video in fold.score
        }
        merged: Frames = {video.name: _merge([table[video.name] for table in tables], settings) for video in others}
        scores: dict[str, Any] = {
            "scored": _scores(own, scored.values(), settings),
            "folds": [_scores({v.name: own[v.name] for v in fold.score}, fold.score, settings) for fold in folds],
        }
        for split, videos in _by_split(others).items():
            if labelled := [video for video in videos if video.labels is not None]:
                scores[split] = _scores(merged, labelled, settings)
        metrics[checkpoint] = scores
        kept[checkpoint] = own | merged
    everybody = [*scored.values(), *others]
    _write_predictions(out, kept, everybody, settings)
    _draw(out / "figures" / "timelines.png", kept[BEST], everybody, settings)
    replace(out / "metrics.json", as_json(metrics))
    report = _report(metrics, settings)
    replace(out / "report.md", report)
    logger.info(
        "wrote %s, predictions.parquet, predictions/ and figures/timelines.png\n%s", out / "metrics.json", report
    )
    return metrics


def _read(folder: Path, checkpoint: str, targets: Sequence[str]) -> Frames:
    table = pd.read_parquet(folder / "predictions.parquet", filters=[("checkpoint", "==", checkpoint)])
    return {
        str(name): part.sort_values("frame")[list(targets)].to_numpy(dtype=np.float64)
        for name, part in table.groupby("name")
    }


def _merge(predictions: Sequence[NDArray[np.float64]], settings: ContinuousSettings) -> NDArray[np.float64]:
    """(F, N, K) -> (N, K), every target and video by itself."""
    stacked = np.stack(predictions)
    return np.stack([centre_folds(stacked[:, :, k], limits=settings.limits) for k in range(stacked.shape[2])], axis=1)


def _scores(predictions: Frames, videos: Any, settings: ContinuousSettings) -> dict[str, float]:
    return frame_scores(predictions, {video.name: video.labels for video in videos}, settings.targets)


def _by_split(videos: Sequence[LabelledVideo]) -> dict[str, list[LabelledVideo]]:
    found: dict[str, list[LabelledVideo]] = {}
    for video in videos:
        found.setdefault(video.split or "other", []).append(video)
    return found


def _about(settings: ContinuousSettings, folds: Sequence[FoldParts], others: Sequence[LabelledVideo]) -> dict[str, Any]:
    if not settings.folds:
        chosen = "on the split val, on which it is scored too: 'best' is optimistic there, 'last' is not"
    elif settings.paper_protocol:
        chosen = "on the very fold that is scored (paper protocol): 'best' is optimistic, 'last' is not"
    else:
        chosen = "on the fold after the one that is scored"
    return {
        "backbone": str(settings.backbone),
        "best_is_chosen": chosen,
        "subjects": len({video.subject for fold in folds for video in fold.score}),
        "predicted_only": {split: len(videos) for split, videos in _by_split(others).items()},
        "merging": "CCC-centering, every video by itself" if settings.folds else "one model",
        **settings.trained_by(),
    }


def _write_predictions(
    out: Path, kept: Mapping[str, Frames], videos: Sequence[LabelledVideo], settings: ContinuousSettings
) -> None:
    """``predictions.parquet`` with labels and both checkpoints; of the best one a text file a video (``predictions/
    NAME.txt``: the targets' names, then a row a frame) and ``predictions/predictions.csv`` with a row
    ``NAME/00001.jpg`` a frame: the forms in which the challenges of 2021 and of 2022 and later take them."""
    tables = []
    folder = out / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    for video in videos:
        frames = video.features.frames
        table = pd.DataFrame({"name": video.name, "split": video.split, "frame": np.arange(1, frames + 1)})
        for k, target in enumerate(settings.targets):
            table[f"{target}_label"] = np.full(frames, np.nan) if video.labels is None else video.labels[:, k]
            for checkpoint, values in kept.items():
                table[f"{target}_{checkpoint}"] = values[video.name][:, k].astype(np.float32)
        tables.append(table)
        best = pd.DataFrame(kept[BEST][video.name], columns=settings.targets)
        best.to_csv(folder / f"{video.name}.txt", index=False, float_format="%.6f")
    whole = pd.concat(tables, ignore_index=True)
    draft = out / ".predictions.parquet.draft"
    whole.to_parquet(draft, index=False)
    draft.replace(out / "predictions.parquet")
    location = whole["name"] + "/" + whole["frame"].astype(str).str.zfill(5) + ".jpg"
    flat = pd.DataFrame({"image_location": location} | {t: whole[f"{t}_{BEST}"] for t in settings.targets})
    flat.to_csv(folder / "predictions.csv", index=False, float_format="%.6f")


def _draw(path: Path, predictions: Frames, videos: Sequence[LabelledVideo], settings: ContinuousSettings) -> None:
    from hicmae.figures.timeline import Timeline, draw_timelines

    lines = []
    for video in videos[:: max(1, len(videos) // _DRAWN)][:_DRAWN]:
        features = video.features
        times = np.interp(np.arange(features.frames), features.steps, features.times_s)
        thin = slice(None, None, max(1, features.frames // _ON_SCREEN))
        lines.append(
            Timeline(
                title=video.name,
                times_s=times[thin],
                truth=None if video.labels is None else video.labels[thin],
                predictions={"prediction": predictions[video.name][thin]},
            )
        )
    draw_timelines(lines, settings.targets, path, limits=settings.limits, title=f"{settings.out.name}: best checkpoint")


def _report(metrics: Mapping[str, Any], settings: ContinuousSettings) -> str:
    names = ["ccc", *(f"ccc_{target}" for target in settings.targets), "pcc", "mae", "rmse"]
    lines = [
        "# Continuous recognition over time",
        "",
        f"| part | checkpoint | videos | frames | {' | '.join(name.replace('_', ' ') for name in names)} |",
        "|" + "---|" * (4 + len(names)),
    ]
    parts = ["scored", *(part for part in metrics[BEST] if part not in ("scored", "folds"))]
    scored = (
        f"{settings.folds} folds of train and val, each frame by the fold that scores it" if settings.folds else "val"
    )
    for part in parts:
        for checkpoint in (BEST, LAST):
            scores = metrics[checkpoint][part]
            cells = " | ".join("-" if math.isnan(scores[name]) else f"{scores[name]:.3f}" for name in names)
            title = scored if part == "scored" else f"{part}, folds merged" if settings.folds else part
            lines.append(f"| {title} | {checkpoint} | {scores['videos']} | {scores['frames']} | {cells} |")
    for checkpoint in (BEST, LAST) if settings.folds else ():
        values = np.array([fold["ccc"] for fold in metrics[checkpoint]["folds"]])
        shown = ", ".join(f"{value:.3f}" for value in values)
        lines += ["", f"CCC by fold, {checkpoint} checkpoint: {shown}; mean {values.mean():.3f}, standard deviation "
                  f"{values.std(ddof=1):.3f}."]  # fmt: skip
    about = metrics["about"]
    lines += ["", f"The best checkpoint is chosen {about['best_is_chosen']}. Scores are over all labelled frames of a "
              "part, each once."]  # fmt: skip
    return "\n".join(lines) + "\n"
