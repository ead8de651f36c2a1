"""From settings to labelled sequences with features: what is there, what is left out, and who is in which fold."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import pandas as pd
import torch

from finetune.continuous.fold import FoldParts
from finetune.continuous.settings import ContinuousSettings
from hicmae.checkpoint import load_backbone
from hicmae.continuous.features import FeatureStore
from hicmae.continuous.labels import Rows, fit_to_frames, read_rows
from hicmae.continuous.partition import deal_folds
from hicmae.continuous.prediction import LabelledVideo
from hicmae.continuous.sequences import Reject, Sequences, read_affwild2, read_table
from hicmae.data.splits import TEST, TRAIN, VAL
from hicmae.media.clip import DecodeError

logger = logging.getLogger(__name__)


def find_sequences(settings: ContinuousSettings) -> Sequences:
    """The sequences that the settings name."""
    data = settings.data
    if data.table is not None:
        return read_table(data.table)
    assert data.annotations is not None
    return read_affwild2(data.annotations, data.videos, faces=data.faces, test_names=data.test_names)


def prepare(settings: ContinuousSettings, *, device: str) -> list[LabelledVideo]:
    """Read all labels, then compute the features that are missing.

    Labels come first: they are quickly read, and what is wrong with them should not appear after a night of decoding.
    What cannot be used is written to ``OUT/rejects.csv``.

    Raises:
        ValueError: wrong labels, ``data.strict`` and something left out, or nothing left.
    """
    sequences = find_sequences(settings)
    rejects = list(sequences.rejects)
    rows: dict[str, Rows] = {
        video.name: read_rows(video.annotation, settings.targets, limits=settings.limits)
        for video in sequences.videos
        if video.annotation is not None
    }
    backbone, transform = load_backbone(settings.backbone)
    weights = _digest(settings.backbone)
    backbone.to(device)
    store = FeatureStore(settings.feature_folder, backbone, transform.spec, weights=weights, settings=settings.features)
    videos: list[LabelledVideo] = []
    for video in sequences.videos:
        try:
            features = store.get(video)
        except DecodeError as error:
            rejects.append(Reject(name=video.name, reason=error.reason, detail=str(error)))
            continue
        labels = None
        if video.name in rows:
            fitted = fit_to_frames(video.name, rows[video.name], features.frames)
            if isinstance(fitted, Reject):
                rejects.append(fitted)
                continue
            if fitted.note:
                logger.warning("%s: %s", video.name, fitted.note)
            labels = fitted.values
        if not features.present[settings.streams[0]].any():
            rejects.append(Reject(name=video.name, reason="no_leader", detail=f"it has no {settings.streams[0]}, "
                                  "which leads; put another stream first"))  # fmt: skip
            continue
        videos.append(
            LabelledVideo(name=video.name, subject=video.subject, split=video.split, features=features, labels=labels)
        )
    _tell(settings, videos, rejects)
    return videos


def _tell(settings: ContinuousSettings, videos: list[LabelledVideo], rejects: list[Reject]) -> None:
    """Write ``rejects.csv``, say what there is; with ``data.strict`` stop if anything was left out."""
    path = settings.out / "rejects.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([vars(one) for one in rejects], columns=["name", "reason", "detail"]).to_csv(path, index=False)
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(r.reason for r in rejects).items()))
    for one in rejects:
        logger.warning("left out %s (%s): %s", one.name, one.reason, one.detail)
    if rejects and settings.data.strict:
        raise ValueError(f"{len(rejects)} sequences cannot be used ({counts}), see {path}; mend them, or set "
                         "data.strict to false to go on without them")  # fmt: skip
    if not videos:
        raise ValueError(f"no sequence is left ({counts}), see {path}")
    by_split = Counter(video.split or "no split" for video in videos)
    logger.info(
        "%d sequences of %d subjects (%s), %d labelled frames; left out: %s",
        len(videos), len({v.subject for v in videos}), ", ".join(f"{n} {s}" for s, n in by_split.items()),
        sum(v.labelled_frames for v in videos), counts or "none",
    )  # fmt: skip


def divide(videos: list[LabelledVideo], settings: ContinuousSettings) -> tuple[list[FoldParts], list[LabelledVideo]]:
    """The folds, and the sequences that only are predicted (test, and those without labels).

    Raises:
        ValueError: a subject in the test and in training, parts without labels, or fewer subjects than folds.
    """
    usable = [video for video in videos if video.split in (TRAIN, VAL) and video.labels is not None]
    names = {video.name for video in usable}
    others = [video for video in videos if video.name not in names]
    shared = {v.subject for v in usable} & {v.subject for v in others if v.split == TEST}
    if shared:
        raise ValueError(f"subjects in test and in train or val: {', '.join(sorted(shared))}; a score would show how "
                         "well they are known, so move them to one side")  # fmt: skip
    if settings.folds:
        if not usable:
            raise ValueError("no labelled sequence has the split train or val; there is nothing to train on")
        fold = deal_folds(
            {v.name: v.labelled_frames for v in usable}, {v.name: v.subject for v in usable}, settings.folds
        )
        return [_fold(number, usable, fold, settings) for number in range(settings.folds)], others
    train = tuple(v for v in usable if v.split == TRAIN)
    val = tuple(v for v in usable if v.split == VAL)
    if not train or not val:
        raise ValueError(f"folds=0 takes the data's own split, which has {len(train)} labelled sequences for train "
                         f"and {len(val)} for val; give both, or set folds")  # fmt: skip
    if both := {v.subject for v in train} & {v.subject for v in val}:
        raise ValueError(f"subjects in train and in val: {', '.join(sorted(both))}; move them to one side")
    return [FoldParts(number=0, train=train, select=val, score=val)], others


def _fold(number: int, videos: list[LabelledVideo], fold: dict[str, int], settings: ContinuousSettings) -> FoldParts:
    chooser = number if settings.paper_protocol else (number + 1) % settings.folds
    return FoldParts(
        number=number,
        train=tuple(v for v in videos if fold[v.name] not in (number, chooser)),
        select=tuple(v for v in videos if fold[v.name] == chooser),
        score=tuple(v for v in videos if fold[v.name] == number),
    )


def _digest(backbone: Path) -> str:
    """Digest of an export's weights (``load_backbone`` has compared it with the file)."""
    digest: str = json.loads((backbone / "config.json").read_text())["sha256"]["model.safetensors"]
    return digest


def choose_device(name: str) -> str:
    """auto is a GPU where there is one.

    Raises:
        ValueError: cuda without a GPU, or another name.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={name!r}: choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but there is no usable GPU here; set device to cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
