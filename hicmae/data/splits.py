"""Training, validation and test clips of a corpus, with no speaker in two of them.

The test clips are those that the manifest calls ``test``. Where it has no ``val`` split, a validation part is carved
out of ``train`` by speaker: what is chosen on the test clips, or on speakers heard in training, is not a result.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hicmae.data.order import generator
from hicmae.data.source import ClipInfo, ClipSource, SubsetSource, select_split

logger = logging.getLogger(__name__)

TRAIN, VAL, TEST = "train", "val", "test"
_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The parts of a corpus."""

    train: ClipSource
    val: ClipSource
    test: ClipSource | None
    """``None`` where the manifest has no test split."""
    val_is_carved: bool
    """The validation part was carved out of the training clips; the manifest has none."""

    def summary(self) -> dict[str, dict[str, int]]:
        """Clips and speakers of each part."""
        parts = {TRAIN: self.train, VAL: self.val, TEST: self.test}
        return {
            name: {"clips": len(part), "subjects": len(subjects_of(part))}
            for name, part in parts.items()
            if part is not None
        }


def split_source(
    source: ClipSource,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    max_train_subjects: int | None = None,
    allow_shared_subjects: bool = False,
) -> Splits:
    """Divide a source by its clips' ``split``: train, val (or a carved one) and test (where there is one).

    Args:
        source: clips of all splits; other splits than these three are left out.
        val_fraction: share of the training speakers that become validation, if no clip has split ``val``. Clips
            without a speaker are carved clip by clip, with a warning.
        seed: of the choice of speakers.
        max_train_subjects: train on this many speakers alone, chosen by ``seed`` after validation is taken out, so
            that validation stays the same; a smaller choice is a part of every larger one.
        allow_shared_subjects: accept speakers that occur in two parts.

    Raises:
        ValueError: no training clips, speakers in two parts, too few speakers for what is asked.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction={val_fraction} must lie between 0 and 1")
    clips = [source.info(number) for number in range(len(source))]
    there = {clip.split for clip in clips}
    train: ClipSource = select_split(source, TRAIN)
    own_val = select_split(source, VAL) if VAL in there else None
    test = select_split(source, TEST) if TEST in there else None
    if not allow_shared_subjects:
        # Before anything is chosen: whether a corpus is sound does not depend on how much of it is used.
        parts = {TRAIN: train, VAL: own_val, TEST: test}
        _refuse_shared(source.name, {part: clips for part, clips in parts.items() if clips is not None})
    if own_val is None:
        train, val = _carve(source, clips, val_fraction, seed)
    else:
        val = own_val
    if max_train_subjects is not None:
        train = _some_subjects(train, max_train_subjects, seed)
    return Splits(train=train, val=val, test=test, val_is_carved=own_val is None)


def subjects_of(source: ClipSource) -> set[str]:
    """The speakers of a source; clips without one count for nothing."""
    return {source.info(number).subject for number in range(len(source))} - {""}


def _carve(source: ClipSource, clips: list[ClipInfo], fraction: float, seed: int) -> tuple[SubsetSource, SubsetSource]:
    numbers = [number for number, clip in enumerate(clips) if clip.split == TRAIN]
    subjects = {clips[number].subject for number in numbers} - {""}
    alone = {clips[number].clip_id for number in numbers if not clips[number].subject}
    if alone:
        logger.warning(
            "%s: %d of %d training clips have no subject; they are divided clip by clip, so the same person may be in "
            "training and validation. Fill in the manifest's subject column",
            source.name, len(alone), len(numbers),
        )  # fmt: skip
    taken_subjects = _choose(subjects, fraction, seed, "subjects") if subjects else set()
    # Beside speakers, so few clips may be without one that none of them is taken.
    taken_clips = _choose(alone, fraction, seed, "clips") if len(alone) > 1 or not subjects else set()
    val = [n for n in numbers if clips[n].subject in taken_subjects or clips[n].clip_id in taken_clips]
    train = sorted(set(numbers) - set(val))
    logger.info(
        "%s has no split 'val': %d of %d training clips (%d of %d subjects) become validation",
        source.name, len(val), len(numbers), len(taken_subjects), len(subjects),
    )  # fmt: skip
    return SubsetSource(source, train, "split train"), SubsetSource(source, val, "validation carved from train")


def _choose(names: Iterable[str], fraction: float, seed: int, what: str) -> set[str]:
    order = _shuffled(names, seed, "validation")
    if len(order) < 2:
        raise ValueError(
            f"the training split has 1 of {what}, {order[0]!r}, and no split 'val': nothing can be set aside for "
            "validation; add subjects, or give some clips the split 'val'"
        )
    count = min(len(order) - 1, max(1, round(fraction * len(order))))
    return set(order[:count])


def _some_subjects(train: ClipSource, count: int, seed: int) -> SubsetSource:
    clips = [train.info(number) for number in range(len(train))]
    order = _shuffled({clip.subject for clip in clips} - {""}, seed, "few subjects")
    if any(not clip.subject for clip in clips):
        raise ValueError(
            f"{train.name}: max_train_subjects={count} needs a subject for every training clip; fill in the manifest"
        )
    if not 1 <= count <= len(order):
        raise ValueError(
            f"{train.name}: max_train_subjects={count} must be at least 1 and at most the {len(order)} subjects there "
            "are for training"
        )
    chosen = set(order[:count])
    numbers = (number for number, clip in enumerate(clips) if clip.subject in chosen)
    return SubsetSource(train, numbers, f"{count} of {len(order)} subjects")


def _shuffled(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """Names in an order that depends on them, the seed and the purpose, and not on where the clips are stored."""
    order = sorted(names)
    return [order[i] for i in generator(purpose, seed).permutation(len(order))]


def _refuse_shared(name: str, parts: Mapping[str, ClipSource]) -> None:
    subjects = {part: subjects_of(source) for part, source in parts.items()}
    problems = []
    for first, second in ((TRAIN, TEST), (VAL, TEST), (TRAIN, VAL)):
        if shared := sorted(subjects.get(first, set()) & subjects.get(second, set())):
            more = f" and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
            problems.append(f"{first} and {second} share {', '.join(map(repr, shared[:_SHOWN]))}{more}")
    if problems:
        raise ValueError(
            f"{name}: subjects occur in two parts ({'; '.join(problems)}), so that results would not hold for new "
            "people; correct the manifest's split column, or set allow_shared_subjects=true if that is meant"
        )
