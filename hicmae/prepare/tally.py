"""Counts of a corpus by split, class and speaker, and how they differ from those that are expected."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hicmae.benchmarks.card import Expected
from hicmae.data.labels import LabelSpec
from hicmae.data.manifest import Clip
from hicmae.prepare.checks import split_order


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What a set of clips is made of; splits, classes and columns without a clip are there with zeros."""

    clips: int
    subjects: int
    """Speakers; clips that name none count for nothing."""
    splits: Mapping[str, Mapping[str, int]]
    """``clips`` and ``subjects`` by split."""
    classes: Mapping[str, Mapping[str, Mapping[str, int]]]
    """Clips by label column, class and split."""
    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    """``clips``, ``mean``, ``min`` and ``max`` of each numeric column by split."""
    unlabelled: Mapping[str, int]
    """Clips without a value, by label column; columns that all clips have are not there."""
    durations_s: Mapping[str, float]
    """``clips`` measured, ``total``, ``min``, ``median`` and ``max`` in seconds; empty where none was measured."""

    def of_class(self, column: str, name: str) -> int:
        """Clips of a class over all splits."""
        return sum(self.classes[column][name].values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "clips": self.clips,
            "subjects": self.subjects,
            "splits": {name: dict(counts) for name, counts in self.splits.items()},
            "classes": {c: {name: dict(n) for name, n in names.items()} for c, names in self.classes.items()},
            "values": {c: {name: dict(v) for name, v in splits.items()} for c, splits in self.values.items()},
            "unlabelled": dict(self.unlabelled),
            "durations_s": dict(self.durations_s),
        }


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A count that is not what was expected."""

    what: str
    """For instance ``clips``, ``fold2`` or ``emotion angry``."""
    expected: int
    found: int

    def __str__(self) -> str:
        return f"{self.what}: {self.found}, expected {self.expected} ({self.found - self.expected:+d})"


def tally(
    clips: Iterable[Clip], labels: LabelSpec | None, durations_s: Mapping[str, float] | None = None
) -> Tally:  # fmt: skip
    """Count.

    Args:
        clips: rows of a manifest.
        labels: classes and numeric columns to count; None for none.
        durations_s: length of clips by id, in seconds; of others it is taken from their span where that is closed.
    """
    clips = list(clips)
    order = split_order(clip.split for clip in clips)
    by_split = {split: [clip for clip in clips if clip.split == split] for split in order}
    classes = labels.classes if labels else {}
    dimensions = labels.dimensions if labels else {}
    lengths = [s for clip in clips if (s := _seconds(clip, durations_s or {})) is not None]
    unlabelled = {c: sum(c not in clip.labels for clip in clips) for c in (*classes, *dimensions)}
    return Tally(
        clips=len(clips),
        subjects=_subjects(clips),
        splits={s: {"clips": len(own), "subjects": _subjects(own)} for s, own in by_split.items()},
        classes={
            column: {
                name: {s: sum(clip.labels.get(column) == name for clip in own) for s, own in by_split.items()}
                for name in names
            }
            for column, names in classes.items()
        },
        values={c: {s: found for s, own in by_split.items() if (found := _range(own, c))} for c in dimensions},
        unlabelled={column: count for column, count in unlabelled.items() if count},
        durations_s=_spread(lengths),
    )


def differences(expected: Expected | None, found: Tally) -> list[Difference]:
    """What was counted against what was expected; nothing where nothing is known."""
    if expected is None:
        return []
    pairs: list[tuple[str, int, int]] = []
    if expected.clips is not None:
        pairs.append(("clips", expected.clips, found.clips))
    if expected.subjects is not None:
        pairs.append(("subjects", expected.subjects, found.subjects))
    splits = {name: counts["clips"] for name, counts in found.splits.items()}
    pairs += [(split, count, splits.get(split, 0)) for split, count in expected.splits.items()]
    for column, names in expected.classes.items():
        pairs += [(f"{column} {name}", count, found.of_class(column, name)) for name, count in names.items()]
    return [Difference(what=what, expected=want, found=there) for what, want, there in pairs if want != there]


def found_labels(clips: Iterable[Clip]) -> LabelSpec | None:
    """Classes (in the order of their names) and numeric columns that occur in a manifest; None without any.

    Text columns with one value alone are no task and are left out; the range of a numeric column is that of its values.
    """
    texts: dict[str, Counter[str]] = defaultdict(Counter)
    numbers: dict[str, list[float]] = defaultdict(list)
    for clip in clips:
        for column, value in clip.labels.items():
            if isinstance(value, str):
                texts[column][value] += 1
            else:
                numbers[column].append(value)
    classes = {column: sorted(counts) for column, counts in sorted(texts.items()) if len(counts) > 1}
    ranges = {c: (min(values), max(values)) for c, values in sorted(numbers.items()) if min(values) < max(values)}
    return LabelSpec(classes=classes, dimensions=ranges) if classes or ranges else None


def _subjects(clips: Iterable[Clip]) -> int:
    return len({clip.subject for clip in clips} - {""})


def _seconds(clip: Clip, measured: Mapping[str, float]) -> float | None:
    if clip.clip_id in measured:
        return measured[clip.clip_id]
    return None if clip.end_s is None else clip.end_s - (clip.start_s or 0.0)


def _range(clips: Iterable[Clip], column: str) -> dict[str, float]:
    values = [float(clip.labels[column]) for clip in clips if column in clip.labels]
    if not values:
        return {}
    return {"clips": len(values), "mean": statistics.fmean(values), "min": min(values), "max": max(values)}


def _spread(lengths: list[float]) -> dict[str, float]:
    if not lengths:
        return {}
    return {
        "clips": len(lengths),
        "total": round(sum(lengths), 3),
        "min": min(lengths),
        "median": round(statistics.median(lengths), 3),
        "max": max(lengths),
    }
