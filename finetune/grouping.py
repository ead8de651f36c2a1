"""One prediction for several clips: the mean over those that share the value of a label column.

AVCAffe, for instance, has one rating for a task of minutes, which is cut into clips of seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hicmae.data.labels import LabelSpec
from hicmae.data.source import ClipInfo, ClipSource
from hicmae.predictions import ClipOutputs

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Grouped:
    """Predictions of groups of clips, in the order in which their first clips come."""

    infos: list[ClipInfo]
    """``clip_id`` is the value that a group's clips share; subject and labels are those of its clips."""
    outputs: NDArray[np.float64]
    """(G, K), the mean over a group's clips."""
    segments: NDArray[np.int64]
    """(G,), how many segments went into it."""
    clips: NDArray[np.int64]
    """(G,), how many clips."""


def group_outputs(result: ClipOutputs, infos: list[ClipInfo], column: str) -> Grouped:
    """Average the outputs of clips, (N, K), over those that share the value of ``column``; each clip weighs the same.

    Args:
        result: outputs of clips.
        infos: of the same clips, in the same order; ``check_groups`` has approved of them.
        column: label column, for instance ``label:task``.
    """
    names = [str(info.labels[column]) for info in infos]
    first = {name: number for number, name in reversed(list(enumerate(names)))}
    order = sorted(first, key=first.__getitem__)
    place = {name: number for number, name in enumerate(order)}
    group = np.array([place[name] for name in names], dtype=np.int64)
    clips = np.bincount(group, minlength=len(order))
    sums = np.zeros((len(order), result.outputs.shape[1]))
    np.add.at(sums, group, result.outputs)
    segments = np.zeros(len(order), dtype=np.int64)
    np.add.at(segments, group, result.segments)
    shown = [infos[first[name]] for name in order]
    return Grouped(
        infos=[
            ClipInfo(clip_id=name, subject=info.subject, split=info.split, labels=info.labels)
            for name, info in zip(order, shown, strict=True)
        ],
        outputs=sums / clips[:, None],
        segments=segments,
        clips=clips,
    )


def check_groups(source: ClipSource, labels: LabelSpec, column: str) -> int:
    """How many groups there are; every clip must be in one, and the clips of a group agree on speaker and labels.

    Raises:
        ValueError: names the groups in which clips differ, or the clips that are in none.
    """
    learnt = [*labels.classes, *labels.dimensions]
    seen: dict[str, ClipInfo] = {}
    problems: list[str] = []
    without: list[str] = []
    for number in range(len(source)):
        info = source.info(number)
        if column not in info.labels:
            without.append(info.clip_id)
            continue
        name = str(info.labels[column])
        other = seen.setdefault(name, info)
        facts = {"subject": (other.subject, info.subject)} | {
            own: (other.labels.get(own), info.labels.get(own)) for own in learnt
        }
        problems += [
            f"{column} {name!r}: {fact} is {theirs!r} of clip {other.clip_id} and {ours!r} of clip {info.clip_id}"
            for fact, (theirs, ours) in facts.items()
            if theirs != ours
        ]
    if without:
        there = sorted({name for number in range(len(source)) for name in source.info(number).labels})
        raise ValueError(
            f"{source.name}: average_over={column}, but {len(without)} of {len(source)} clips have no such label "
            f"({', '.join(without[:_SHOWN])}); label columns there are: {', '.join(there)}"
        )
    if problems:
        more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise ValueError(
            f"{source.name}: clips that share one prediction (average_over={column}) must have the same labels\n  "
            + "\n  ".join(problems[:_SHOWN] + more)
        )
    return len(seen)


def refuse_shared_groups(parts: Mapping[str, ClipSource], column: str) -> None:
    """Raise ``ValueError`` where clips that share one prediction are in two of the parts."""
    groups = {
        part: {str(clips.info(i).labels[column]) for i in range(len(clips)) if column in clips.info(i).labels}
        for part, clips in parts.items()
    }
    for first, second in combinations(parts, 2):
        if shared := sorted(groups[first] & groups[second]):
            more = f" and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
            raise ValueError(
                f"{parts[second].name}: clips of one group (average_over={column}) are in {first} and in {second}: "
                f"{', '.join(map(repr, shared[:_SHOWN]))}{more}; give each group a value of its own, or one split"
            )
