"""The labelled clips of online probes: which they are, what they share with the training, and their decoded windows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hicmae.backbone import Modality
from hicmae.config import InputSpec
from hicmae.data.batch import ClipBatch
from hicmae.data.evaluation import EvaluationLoader
from hicmae.data.labels import LabelSpec
from hicmae.data.loader import LoaderSettings
from hicmae.data.order import generator
from hicmae.data.source import ClipInfo, ClipSource, SubsetSource, digest_of
from hicmae.data.splits import TEST, TRAIN, VAL, split_source, subjects_of

logger = logging.getLogger(__name__)

_QUERY_SHARE = 1 / 3
"""Of speakers, where the data have no split ``val``."""
_BATCH = 16
_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class ProbeChoice:
    """The clips chosen, in the order of their source."""

    source: SubsetSource
    infos: list[ClipInfo]
    fit: NDArray[np.bool_]
    """(N,): clips that probes are fitted to; the others ask."""
    said: str
    """How clips were divided."""

    @property
    def digest(self) -> str:
        """Changes with the clips, what they are for, and their labels."""
        rows = zip(self.infos, self.fit.tolist(), strict=True)
        return digest_of(sorted(f"{info.clip_id} {fits} {sorted(info.labels.items())}" for info, fits in rows))

    def summary(self) -> dict[str, Any]:
        """Plain values for the run's files."""
        return {
            "source": self.source.name,
            "divided": self.said,
            "clips": {"fit": int(self.fit.sum()), "queries": int((~self.fit).sum())},
            "subjects": {"fit": len(self._subjects(True)), "queries": len(self._subjects(False))},
            "digest": self.digest,
        }

    def _subjects(self, fit: bool) -> set[str]:
        return {info.subject for info, own in zip(self.infos, self.fit, strict=True) if own == fit} - {""}


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What probe clips and training clips share, by name."""

    clips: list[str]
    subjects: list[str]
    """Of the same name: whether they are the same people, names alone cannot tell."""


@dataclass(frozen=True, kw_only=True)
class ProbeClips:
    """Decoded windows, in the small types of the data workers, and what is known of them."""

    batches: list[ClipBatch]
    usable: NDArray[np.bool_]
    """(rows of all batches,): rows that hold a clip with every modality of the model. N of them are."""
    fit: NDArray[np.bool_]
    """(N,)"""
    targets: dict[str, NDArray[Any]]
    """By label column (N,): class numbers, or values."""
    left_out: Counter[str]
    """Clips that cannot be used, by reason."""


# ---------------------------------------------------------------- choosing


def choose_probe_clips(source: ClipSource, labels: LabelSpec, *, max_clips: int, seed: int) -> ProbeChoice:
    """Choose at most ``max_clips`` clips: half to fit probes to, half to ask, no speaker in both.

    With a split ``train`` its clips are fitted and those of ``val`` ask; without ``val``, speakers taken out of
    ``train`` do. The test clips are left alone, since whoever watches a curve chooses by it. Data of other splits, or
    of none, are divided by speakers, and where there are no speakers, by clips.

    Raises:
        ValueError: one speaker alone, a clip without a usable label, or one class alone.
    """
    splits = {source.info(number).split for number in range(len(source))}
    fit: ClipSource
    queries: ClipSource
    if TRAIN in splits:
        if VAL not in splits:
            _check_speakers(source, [n for n in range(len(source)) if source.info(n).split == TRAIN])
        parts = split_source(source, val_fraction=_QUERY_SHARE, seed=seed)
        fit, queries = parts.train, parts.val
        said = "the data's splits train and val" if not parts.val_is_carved else "split train, by speakers"
    else:
        fit, queries = _cut(source, seed)
        said = "by speakers" if subjects_of(source) else "by clips, for want of speakers"
    for part in (fit, queries):
        labels.check(part)
    _check_classes(source.name, fit, queries, labels)
    counts = _shares(len(fit), len(queries), max_clips)
    chosen = {
        number: fits
        for part, count, fits in ((fit, counts[0], True), (queries, counts[1], False))
        for number in _numbers_in(source, part, _spread(part, labels, count, seed))
    }
    numbers = sorted(chosen)
    return ProbeChoice(
        source=SubsetSource(source, numbers, f"{len(numbers)} clips of the probes"),
        infos=[source.info(number) for number in numbers],
        fit=np.array([chosen[number] for number in numbers]),
        said=said,
    )


def _check_speakers(source: ClipSource, numbers: Sequence[int]) -> None:
    clips = [source.info(number) for number in numbers]
    subjects = {clip.subject for clip in clips}
    if len(subjects) == 1 and (len(clips) < 2 or subjects != {""}):
        raise ValueError(
            f"{source.name}: the probe's clips are all of one speaker, {clips[0].subject!r}, so that nothing could be "
            "told of another; name more in the manifest's subject column, or give clips of others the split 'val'"
        )


def _cut(source: ClipSource, seed: int) -> tuple[ClipSource, ClipSource]:
    """Clips to fit and clips that ask, of other speakers; none of the test."""
    everything = [number for number in range(len(source)) if source.info(number).split != TEST]
    if not everything:
        raise ValueError(
            f"{source.name}: all clips of the probe are of the split {TEST!r}, which is left alone, since whoever "
            "watches a curve chooses by it; name clips of other splits, or leave their split empty"
        )
    _check_speakers(source, everything)
    clips = [source.info(number) for number in everything]
    if unnamed := sum(not clip.subject for clip in clips):
        logger.warning(
            "%s: %d of %d clips of the probe have no speaker; they are divided clip by clip, so the same person may be "
            "on both sides and the probe look better than it is. Fill in the manifest's subject column",
            source.name, unnamed, len(clips),
        )  # fmt: skip
    unit = [clip.subject or f"\0{clip.clip_id}" for clip in clips]
    names = sorted(set(unit))
    order = generator("probe queries", seed).permutation(len(names))
    asking = {names[i] for i in order[: max(1, round(_QUERY_SHARE * len(names)))]}
    return (
        SubsetSource(source, (n for n in everything if unit[n] not in asking), "fitted"),
        SubsetSource(source, (n for n in everything if unit[n] in asking), "queries"),
    )


def _check_classes(name: str, fit: ClipSource, queries: ClipSource, labels: LabelSpec) -> None:
    for column in labels.classes:
        found = Counter(str(fit.info(number).labels[column]) for number in range(len(fit)))
        if len(found) < 2:
            raise ValueError(
                f"{name}: all {len(fit)} clips that the probe would be fitted to have {column} {next(iter(found))!r}; "
                "a probe needs clips of two classes or more"
            )
        asked = {str(queries.info(number).labels[column]) for number in range(len(queries))}
        if unknown := sorted(asked - set(found)):
            logger.warning("%s: the probe is fitted to no clip of %s %s, but asked for it", name, column,
                           ", ".join(unknown))  # fmt: skip


def _shares(fit: int, queries: int, most: int) -> tuple[int, int]:
    """Half each; what one part does not have goes to the other."""
    asking = min(queries, max(most // 2, most - fit))
    return min(fit, most - asking), asking


def _spread(part: ClipSource, labels: LabelSpec, count: int, seed: int) -> list[int]:
    """So many clips of a part, of all classes in turn; which, depends on their names alone."""
    infos = sorted((part.info(number).clip_id, number) for number in range(len(part)))
    order = generator("probe clips", seed).permutation(len(infos))
    column = next(iter(labels.classes), None)
    queues: dict[str, list[int]] = {}
    for i in order:
        number = infos[i][1]
        queues.setdefault(str(part.info(number).labels[column]) if column else "", []).append(number)
    in_turn = sorted((place, name, number) for name, queue in queues.items() for place, number in enumerate(queue))
    return [number for _, _, number in in_turn[:count]]


def _numbers_in(source: ClipSource, part: ClipSource, numbers: Sequence[int]) -> list[int]:
    """Numbers in the source of clips that a part of it numbers otherwise."""
    wanted = {part.info(number).clip_id for number in numbers}
    return [number for number in range(len(source)) if source.info(number).clip_id in wanted]


# ---------------------------------------------------------------- what is shared


def find_overlap(choice: ProbeChoice, training: ClipSource) -> Overlap:
    """Clips of the probe that are trained on too, and speakers of the same name."""
    clip_ids = {info.clip_id for info in choice.infos}
    subjects = {info.subject for info in choice.infos} - {""}
    shared_clips: set[str] = set()
    shared_subjects: set[str] = set()
    for number in range(len(training)):
        info = training.info(number)
        if info.clip_id in clip_ids:
            shared_clips.add(info.clip_id)
        if info.subject in subjects:
            shared_subjects.add(info.subject)
    return Overlap(clips=sorted(shared_clips), subjects=sorted(shared_subjects))


def warn_of_overlap(overlap: Overlap, choice: ProbeChoice, listed_in: str) -> None:
    """Say what is shared, with the first names; nothing where nothing is."""
    for names, what, of_all in (
        (overlap.subjects, "speakers", len({info.subject for info in choice.infos} - {""})),
        (overlap.clips, "clips", len(choice.infos)),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more (all in {listed_in})" if len(names) > _SHOWN else ""
            logger.warning(
                "%d of the probe's %d %s occur in the pre-training data, by name: %s%s. What the probe says then holds "
                "for people and clips that the model has seen, not for new ones",
                len(names), of_all, what, ", ".join(names[:_SHOWN]), more,
            )  # fmt: skip


# ---------------------------------------------------------------- decoding


def decode_probe_clips(
    choice: ProbeChoice, spec: InputSpec, labels: LabelSpec, modalities: Sequence[Modality]
) -> ProbeClips:
    """Decode the window in the middle of each clip, once and for all probes of a training.

    Raises:
        ValueError: too few clips can be used.
    """
    # In this process: workers would need as long to start as the clips need.
    loader = EvaluationLoader(
        choice.source,
        segments=1,
        spec=spec,
        loader=LoaderSettings(batch_size=min(_BATCH, len(choice.source)), max_skip_fraction=1.0),
    )
    batches = list(loader)
    left_out = Counter(loader.skipped)
    given = {"video": torch.cat([batch.has_video for batch in batches]).numpy(),
             "audio": torch.cat([batch.has_audio for batch in batches]).numpy()}  # fmt: skip
    valid = torch.cat([batch.valid for batch in batches]).numpy()
    usable = valid.copy()
    for modality in modalities:
        usable &= given[modality]
        lacking = int((valid & ~given[modality]).sum())
        if lacking:
            left_out[f"no {modality}"] += lacking
    numbers = torch.cat([batch.index for batch in batches]).numpy()[usable]
    fit = choice.fit[numbers]
    encoded = [labels.encode(choice.infos[i].labels, clip_id=choice.infos[i].clip_id) for i in numbers]
    reasons = ", ".join(f"{reason} {count}" for reason, count in left_out.most_common())
    targets = {name: np.array([row[name] for row in encoded]) for name in [*labels.classes, *labels.dimensions]}
    if fit.sum() < 2 or (~fit).sum() < 2 or any(len(np.unique(targets[name][fit])) < 2 for name in labels.classes):
        raise ValueError(
            f"{choice.source.name}: {int(fit.sum())} clips to fit probes to and {int((~fit).sum())} that ask can be "
            f"used ({reasons or 'none left out'}); two of each, and of two classes, are needed. Name other clips, or "
            "take probe.shards and probe.manifest out"
        )
    if left_out:
        logger.warning("left out of the probes: %s", reasons)
    return ProbeClips(batches=batches, usable=usable, fit=fit, targets=targets, left_out=left_out)
