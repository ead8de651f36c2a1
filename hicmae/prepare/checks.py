"""What must hold for the clips of a corpus before anything is encoded, and what a user should be told."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hicmae.benchmarks.card import Card, NativeClip
from hicmae.data.labels import LabelSpec
from hicmae.data.manifest import Clip, id_problem
from hicmae.data.packed import Reject
from hicmae.prepare.frames import natural_key

FIXED_SPLITS = ("train", "val", "test")
SHARED_MEANS = "so that results would not hold for new people"
_SHOWN = 10


def check_native(card: Card, clips: Sequence[NativeClip], *, allow_shared_subjects: bool = False) -> None:
    """Refuse clips of which a result would not mean what it says.

    Raises:
        ValueError: no clips; ids used twice (with both files) or unusable; splits or labels that the card does not
            know; speakers in two splits, unless they are allowed. All problems at once.
    """
    if not clips:
        raise ValueError(f"{card.title}: not one clip was found; is the folder complete? Its layout is\n{card.layout}")
    rows = [native.clip for native in clips]
    problems = _id_problems(rows) + _split_problems(card, rows) + _label_problems(card.labels, rows)
    if not allow_shared_subjects and (shared := shared_subjects(rows)):
        problems.append(f"{shared}, {SHARED_MEANS}; accept it with --allow-shared-subjects")
    if problems:
        raise ValueError("\n  ".join([f"{card.title}: the clips cannot be used as they are", *_first(problems)]))


def shared_subjects(clips: Iterable[Clip]) -> str:
    """Which speakers are in two splits, as a part of a sentence; empty when none is. A clip without a speaker, or
    without a split, counts for nothing."""
    splits: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        if clip.subject and clip.split:
            splits[clip.subject].add(clip.split)
    shared = [f"{name} ({', '.join(sorted(where))})" for name, where in sorted(splits.items()) if len(where) > 1]
    if not shared:
        return ""
    return f"{len(shared)} of {len(splits)} speakers occur in two splits: {_some(shared)}"


def missing_media(clips: Sequence[NativeClip]) -> list[Reject]:
    """Clips whose files are missing or empty."""
    paths = list({path for native in clips for path in (native.clip.video, native.clip.audio) if path is not None})
    # the files of a corpus may lie behind a network, where each question takes its time
    with ThreadPoolExecutor(max_workers=16) as pool:
        problem = dict(zip(paths, pool.map(_media_problem, paths, chunksize=64), strict=True))
    rejects = []
    for native in clips:
        for path in (native.clip.video, native.clip.audio):
            if path is not None and (found := problem[path]) is not None:
                reason, detail = found
                rejects.append(Reject(clip_id=native.clip.clip_id, reason=reason, detail=f"{path} {detail}"))
                break
    return rejects


def absent_classes(labels: LabelSpec, clips: Iterable[Clip], splits: Sequence[str]) -> list[str]:
    """One warning for each split and label column in which classes have no clip."""
    there: dict[tuple[str, str], set[str]] = defaultdict(set)
    for clip in clips:
        for column in labels.classes:
            if column in clip.labels:
                there[clip.split, column].add(str(clip.labels[column]))
    warnings = []
    for column, names in labels.classes.items():
        for split in splits:
            absent = [name for name in names if name not in there[split, column]]
            if absent:
                warnings.append(
                    f"{split or 'the clips'} has no clip of {len(absent)} of {len(names)} classes of {column} "
                    f"({_some(absent)}); scores of a class without clips are left out of means there"
                )
    return warnings


def whole_files_warning(clips: Sequence[Clip]) -> str:
    """What storing the original files costs where clips are parts of them; empty when they are not."""
    parts = [clip for clip in clips if clip.span_s is not None]
    if not parts:
        return ""
    sizes: dict[Path, int] = {}
    total = 0
    for clip in parts:
        for path in (clip.video, clip.audio):
            if path is not None:
                total += sizes.setdefault(path, path.stat().st_size)
    return (
        f"{len(parts)} clips are parts of longer files, and format 'original' stores the whole file for each of them: "
        f"{total / 1e9:.1f} GB in all; --format h264 stores the parts alone"
    )


def _id_problems(clips: Sequence[Clip]) -> list[str]:
    first: dict[str, Clip] = {}
    problems = []
    for clip in clips:
        if problem := id_problem(clip.clip_id):
            problems.append(f"{problem} ({clip.video or clip.audio})")
        other = first.setdefault(clip.clip_id, clip)
        if other is not clip:
            problems.append(
                f"clip {clip.clip_id!r} is there twice: {other.video or other.audio} and {clip.video or clip.audio}; "
                "remove one of them"
            )
    return problems


def _split_problems(card: Card, clips: Sequence[Clip]) -> list[str]:
    known = set(split_names(card.folds))
    unknown = Counter(clip.split for clip in clips if clip.split not in known)
    return [
        f"{count} clips have the split {split!r}; {card.title} has {', '.join(split_names(card.folds))}"
        for split, count in unknown.items()
    ]


def split_names(folds: int) -> tuple[str, ...]:
    """The splits of a corpus with so many folds."""
    return tuple(f"fold{number}" for number in range(1, folds + 1)) if folds else FIXED_SPLITS


def split_order(splits: Iterable[str]) -> list[str]:
    """Names of splits as people look for them: train, val, test, then others, fold2 before fold10."""
    names = set(splits)
    fixed = [name for name in FIXED_SPLITS if name in names]
    return fixed + sorted(names - set(fixed), key=natural_key)


def _label_problems(labels: LabelSpec, clips: Sequence[Clip]) -> list[str]:
    problems = []
    for clip in clips:
        known = [column for column in (*labels.classes, *labels.dimensions) if column in clip.labels]
        if not known:
            problems.append(f"clip {clip.clip_id!r} has none of the labels {', '.join(_columns(labels))}")
            continue
        try:
            _part_of(labels, known).encode(clip.labels, clip_id=clip.clip_id)
        except ValueError as error:
            problems.append(str(error))
    return problems


def _columns(labels: LabelSpec) -> list[str]:
    return [*labels.classes, *labels.dimensions]


def _part_of(labels: LabelSpec, columns: Sequence[str]) -> LabelSpec:
    """Of several columns a clip may have some: each is a task of its own."""

    def of(values: Mapping[str, object]) -> dict[str, object]:
        return {name: value for name, value in values.items() if name in columns}

    return LabelSpec(classes=of(labels.classes), dimensions=of(labels.dimensions))  # type: ignore[arg-type]


def _media_problem(path: Path) -> tuple[str, str] | None:
    try:
        if path.is_dir():
            return None  # of frames, which are looked at one by one when they are packed
        size = path.stat().st_size
    except FileNotFoundError:
        return "missing_file", "does not exist"
    except OSError as error:
        return "missing_file", f"cannot be read ({error.strerror})"
    return None if size else ("empty_file", "has zero length")


def _first(problems: Sequence[str]) -> list[str]:
    more = len(problems) - _SHOWN
    return [*problems[:_SHOWN], *([f"... and {more} more"] if more > 0 else [])]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
