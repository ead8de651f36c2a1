"""Training, validation and test clips of a corpus, with no speaker in two of them.

The test clips are those that the manifest calls ``test``, or one of its folds, the splits ``fold1``, ``fold2``, ...,
of which the others are then for training. Where there is no ``val`` split, a validation part is carved out of the
training clips by speaker: what is chosen on the test clips, or on speakers heard in training, is not a result.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from hicmae.data.few_labels import share_of_clips
from hicmae.data.labels import LabelSpec
from hicmae.data.order import generator
from hicmae.data.source import ClipInfo, ClipSource, SubsetSource, digest_of, select_split

logger = logging.getLogger(__name__)

TRAIN, VAL, TEST = "train", "val", "test"
_FOLD = re.compile(r"fold([1-9][0-9]*)")
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
    val_is_test: bool
    """The paper's protocol: the validation part is the test part, and what is chosen on it is no result for new
    people."""
    labelled_clips: int
    """Training clips before ``label_fraction`` left any out."""

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
    test_fold: int | None = None,
    paper_protocol: bool = False,
    val_fraction: float = 0.2,
    seed: int = 0,
    max_train_subjects: int | None = None,
    allow_shared_subjects: bool = False,
    together: str | None = None,
    label_fraction: float = 1.0,
    label_columns: Sequence[str] = (),
) -> Splits:
    """Divide a source by its clips' ``split``: train, val (or a carved one) and test (where there is one).

    Args:
        source: clips of all splits; other splits than folds and these three are left out.
        test_fold: number of the fold that is the test; all other folds are for training. Needed where there are folds.
        paper_protocol: validate on the test clips, and train on all others; nothing is carved.
        val_fraction: share of the training speakers that become validation, if no clip has split ``val``. Clips
            without a speaker are carved clip by clip, with a warning.
        seed: of the choice of speakers.
        max_train_subjects: train on this many speakers alone, chosen by ``seed`` after validation is taken out, so
            that validation stays the same; a smaller choice is a part of every larger one.
        allow_shared_subjects: accept speakers that occur in two parts.
        together: label column whose clips, where they have no speaker, are not torn apart by carving.
        label_fraction: share of the training clips that is kept, of each class by itself, chosen by ``seed`` after all
            else; see ``share_of_clips``.
        label_columns: columns whose values are the classes for that.

    Raises:
        ValueError: no training clips, no such fold, speakers in two parts, too few speakers for what is asked.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction={val_fraction} must lie between 0 and 1")
    clips = [source.info(number) for number in range(len(source))]
    parts = _parts(source, clips, test_fold)
    train: ClipSource = parts[TRAIN]
    own_val, test = parts.get(VAL), parts.get(TEST)
    if not allow_shared_subjects:
        # Before anything is chosen: whether a corpus is sound does not depend on how much of it is used.
        _refuse_shared(source.name, parts)
    if paper_protocol:
        if test is None:
            raise ValueError(
                f"{source.name}: paper_protocol=true validates on the test clips, and no clip has the split 'test'; "
                "give some clips that split, or leave paper_protocol out"
            )
        if own_val is not None:
            train = SubsetSource(source, _numbers_of(clips, (TRAIN, VAL)), "splits train and val")
        val: ClipSource = test
    elif own_val is not None:
        val = own_val
    else:
        splits = {train.info(number).split for number in range(len(train))}
        train, val = _carve(source, _numbers_of(clips, splits), val_fraction, seed, together)
    if max_train_subjects is not None:
        train = _some_subjects(train, max_train_subjects, seed)
    return Splits(
        train=share_of_clips(train, label_fraction, columns=label_columns, seed=seed),
        val=val,
        test=test,
        val_is_carved=own_val is None and not paper_protocol,
        val_is_test=paper_protocol,
        labelled_clips=len(train),
    )


def part_for_test(source: ClipSource, test_fold: int | None = None) -> ClipSource:
    """The test clips alone, for a test of a model that was trained elsewhere.

    Raises:
        ValueError: there are none, or no such fold.
    """
    clips = [source.info(number) for number in range(len(source))]
    if test_fold is None and not folds_of(source):
        return select_split(source, TEST)
    return _parts(source, clips, test_fold)[TEST]


def folds_of(source: ClipSource) -> tuple[int, ...]:
    """Numbers of the folds that the clips are divided into, ascending; empty for a corpus without folds.

    Raises:
        ValueError: one fold alone, or a number left out: a part of the corpus is missing.
    """
    splits = {source.info(number).split for number in range(len(source))}
    folds = sorted(int(match[1]) for split in splits if (match := _FOLD.fullmatch(split)))
    if folds and (len(folds) < 2 or folds != list(range(1, len(folds) + 1))):
        raise ValueError(
            f"{source.name}: the folds there are have the numbers {_listed(folds)}; expected at least two, numbered "
            "from 1 without a gap: is a part of the corpus missing? Otherwise renumber the split column"
        )
    return tuple(folds)


def refuse_shared_folds(source: ClipSource) -> None:
    """Raise ``ValueError`` where a speaker is in two folds, which only some of the trainings would come upon."""
    _refuse_shared(source.name, {f"fold{fold}": select_split(source, f"fold{fold}") for fold in folds_of(source)})


def content_digest(source: ClipSource) -> str:
    """A short name for what a corpus holds, wherever it is stored: clips, speakers, splits and labels."""
    infos = sorted((source.info(number) for number in range(len(source))), key=lambda info: info.clip_id)
    rows = ([info.clip_id, info.subject, info.split, dict(info.labels)] for info in infos)
    return digest_of(json.dumps(row, sort_keys=True) for row in rows)


def keep_classes(source: ClipSource, labels: LabelSpec) -> tuple[ClipSource, dict[str, dict[str, int]]]:
    """The clips whose classes are all among those of ``labels``, and how many of each other class were left out.

    Clips without a label are kept: that they lack it is an error to be shown, not another class.

    Raises:
        ValueError: no clip is left.
    """
    kept: list[int] = []
    dropped: dict[str, Counter[str]] = {column: Counter() for column in labels.classes}
    for number in range(len(source)):
        found = source.info(number).labels
        others = [
            (column, str(found[column]))
            for column, names in labels.classes.items()
            if column in found and str(found[column]) not in names
        ]
        for column, value in others:
            dropped[column][value] += 1
        if not others:
            kept.append(number)
    counts = {column: dict(sorted(values.items())) for column, values in dropped.items() if values}
    if not counts:
        return source, {}
    for column, values in counts.items():
        shown = ", ".join(f"{value} {count}" for value, count in values.items())
        if not kept:
            raise ValueError(
                f"{source.name}: no clip has one of the classes {list(labels.classes[column])} in its label "
                f"{column!r}; there are: {shown}"
            )
        logger.warning("%s: left out clips of other classes of %s: %s", source.name, column, shown)
    return SubsetSource(source, kept, "the chosen classes"), counts


def subjects_of(source: ClipSource) -> set[str]:
    """The speakers of a source; clips without one count for nothing."""
    return {source.info(number).subject for number in range(len(source))} - {""}


def _parts(source: ClipSource, clips: Sequence[ClipInfo], test_fold: int | None) -> dict[str, ClipSource]:
    """The clips of train, val and test, as far as the source has them; train it must have."""
    folds = folds_of(source)
    there = {clip.split for clip in clips}
    fixed = [split for split in (TRAIN, VAL, TEST) if split in there]
    if folds and fixed:
        raise ValueError(
            f"{source.name}: clips have the splits {', '.join(fixed)} and folds ({_listed(folds)}) as well; which is "
            "the test is not clear. Keep one kind, in the manifest's split column"
        )
    if not folds and test_fold is not None:
        raise ValueError(
            f"{source.name}: test_fold={test_fold}, but no clip has a split fold1, fold2, ...; splits there are: "
            f"{', '.join(sorted(map(repr, there)))}. Leave test_fold out to use train, val and test"
        )
    if not folds:  # asking for train, there or not: without it, the error lists the splits there are
        return {part: select_split(source, part) for part in (TRAIN, *fixed)}
    if test_fold is None:
        raise ValueError(
            f"{source.name} is divided into the folds {_listed(folds)}: say which is the test with data.test_fold, or "
            "run all of them with python -m finetune folds"
        )
    if test_fold not in folds:
        raise ValueError(f"{source.name}: there is no fold {test_fold}; the folds are {_listed(folds)}")
    others = {f"fold{fold}" for fold in folds if fold != test_fold}
    train = SubsetSource(source, _numbers_of(clips, others), f"all folds but {test_fold}")
    return {TRAIN: train, TEST: select_split(source, f"fold{test_fold}")}


def _numbers_of(clips: Sequence[ClipInfo], splits: Collection[str]) -> list[int]:
    return [number for number, clip in enumerate(clips) if clip.split in splits]


def _carve(
    source: ClipSource, numbers: Sequence[int], fraction: float, seed: int, together: str | None
) -> tuple[SubsetSource, SubsetSource]:
    """Divide these clips of a source into training and validation."""
    clips = {number: source.info(number) for number in numbers}
    subjects = {clip.subject for clip in clips.values()} - {""}
    alone = {_unit(clip, together) for clip in clips.values() if not clip.subject}
    if alone:
        logger.warning(
            "%s: %d of %d training clips have no subject; they are divided %s, so the same person may be in "
            "training and validation. Fill in the manifest's subject column",
            source.name, sum(not clip.subject for clip in clips.values()), len(clips),
            f"by {together}" if together else "clip by clip",
        )  # fmt: skip
    taken_subjects = _choose(subjects, fraction, seed, "subjects") if subjects else set()
    # Beside speakers, so few clips may be without one that none of them is taken.
    taken_alone = _choose(alone, fraction, seed, "clips") if len(alone) > 1 or not subjects else set()
    val = [
        number
        for number, clip in clips.items()
        if (clip.subject in taken_subjects if clip.subject else _unit(clip, together) in taken_alone)
    ]
    rest = sorted(set(clips) - set(val))
    logger.info(
        "%s: no split 'val'; %d of %d training clips (%d of %d subjects) become validation",
        source.name, len(val), len(clips), len(taken_subjects), len(subjects),
    )  # fmt: skip
    # Numbered as in the source itself: a run that was begun by an earlier version can go on.
    return SubsetSource(source, rest, "train without validation"), SubsetSource(
        source, val, "validation carved from train"
    )


def _unit(clip: ClipInfo, together: str | None) -> str:
    """What of the clips without a speaker is carved as one."""
    return str(clip.labels.get(together, clip.clip_id)) if together else clip.clip_id


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
    for first, second in combinations(parts, 2):
        if shared := sorted(subjects[first] & subjects[second]):
            more = f" and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
            problems.append(f"{first} and {second} share {', '.join(map(repr, shared[:_SHOWN]))}{more}")
    if problems:
        raise ValueError(
            f"{name}: subjects occur in two parts ({'; '.join(problems)}), so that results would not hold for new "
            "people; correct the manifest's split column, or set allow_shared_subjects=true if that is meant"
        )


def _listed(folds: Collection[int]) -> str:
    return ", ".join(map(str, folds))
