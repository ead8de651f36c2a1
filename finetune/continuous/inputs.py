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
from hicmae.continuous.statistics import centred
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
    _stop_if_strict(settings, rejects)
    _check_subjects({
        split: {v.subject for v in sequences.videos if v.split == split and (v.annotation or split == TEST)}
        for split in (TRAIN, VAL, TEST)
    }, settings)  # fmt: skip
    rows: dict[str, Rows] = {
        video.name: read_rows(video.annotation, settings.targets, limits=settings.limits)
        for video in sequences.videos
        if video.annotation is not None
    }
    backbone, transform = load_backbone(settings.backbone)
    weights = weights_digest(settings.backbone)
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
        one = LabelledVideo(name=video.name, subject=video.subject, split=video.split, features=features, labels=labels)
        videos.append(centred(one, settings.streams) if settings.centre_features else one)
    _tell(settings, videos, rejects)
    return videos


def _stop_if_strict(settings: ContinuousSettings, rejects: list[Reject]) -> tuple[Path, str]:
    """Write ``rejects.csv``; with ``data.strict``, ``ValueError`` if it is not empty. Returns its path, and the counts
    by reason in words."""
    path = settings.out / "rejects.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([vars(one) for one in rejects], columns=["name", "reason", "detail"]).to_csv(path, index=False)
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(r.reason for r in rejects).items()))
    if rejects and settings.data.strict:
        raise ValueError(f"{len(rejects)} sequences cannot be used ({counts}), see {path}; mend them, or set "
                         "data.strict to false to go on without them")  # fmt: skip
    return path, counts


def _check_subjects(subjects: dict[str, set[str]], settings: ContinuousSettings) -> None:
    """Raise ``ValueError`` for subjects on two sides, or fewer than folds."""
    sides = [(TRAIN, TEST), (VAL, TEST)] + ([] if settings.folds else [(TRAIN, VAL)])
    for one, other in sides:
        if not (shared := sorted(subjects[one] & subjects[other])):
            continue
        found = f"subjects in {one} and in {other}: {', '.join(shared)}"
        if not settings.data.allow_shared_subjects:
            raise ValueError(f"{found}; a score would show how well they are known: move them to one side, or set "
                             "data.allow_shared_subjects")  # fmt: skip
        logger.warning("%s (allowed)", found)
    count = len(subjects[TRAIN] | subjects[VAL])
    if count < settings.folds:
        raise ValueError(f"{count} labelled subjects of train and val cannot be divided into {settings.folds} folds; "
                         "lower folds, or set it to 0 for the data's own split")  # fmt: skip


def _tell(settings: ContinuousSettings, videos: list[LabelledVideo], rejects: list[Reject]) -> None:
    """Write ``rejects.csv`` and say what there is."""
    path, counts = _stop_if_strict(settings, rejects)
    for one in rejects:
        logger.warning("left out %s (%s): %s", one.name, one.reason, one.detail)
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
        ValueError: a subject on two sides, parts without labels, or fewer subjects than folds.
    """
    usable = [video for video in videos if video.split in (TRAIN, VAL) and video.labels is not None]
    names = {video.name for video in usable}
    others = [video for video in videos if video.name not in names]
    _check_subjects({
        split: {v.subject for v in (others if split == TEST else usable) if v.split == split}
        for split in (TRAIN, VAL, TEST)
    }, settings)  # fmt: skip
    if settings.folds:
        fold = deal_folds(
            {v.name: v.labelled_frames for v in usable}, {v.name: v.subject for v in usable}, settings.folds
        )
        return [_fold(number, usable, fold, settings) for number in range(settings.folds)], others
    train = tuple(v for v in usable if v.split == TRAIN)
    val = tuple(v for v in usable if v.split == VAL)
    if not train or not val:
        raise ValueError(f"folds=0 takes the data's own split, which has {len(train)} labelled sequences for train "
                         f"and {len(val)} for val; give both, or set folds")  # fmt: skip
    return [FoldParts(number=0, train=train, select=val, score=val)], others


def _fold(number: int, videos: list[LabelledVideo], fold: dict[str, int], settings: ContinuousSettings) -> FoldParts:
    chooser = number if settings.paper_protocol else (number + 1) % settings.folds
    return FoldParts(
        number=number,
        train=tuple(v for v in videos if fold[v.name] not in (number, chooser)),
        select=tuple(v for v in videos if fold[v.name] == chooser),
        score=tuple(v for v in videos if fold[v.name] == number),
    )


def weights_digest(backbone: Path) -> str:
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
