"""Cross-validation as a corpus ships it: for each fold a list of its training clips and one of its test clips."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hicmae.data.packed import Reject


@dataclass(frozen=True, kw_only=True)
class FoldClip:
    """A clip of the lists."""

    name: str
    label: str
    fold: int
    """The fold that tests it, from 1."""


def read_folds(
    lists: Sequence[tuple[Path, Path]], read: Callable[[Path], list[tuple[str, str]]]
) -> tuple[list[FoldClip], list[Reject]]:
    """The clips of the folds, and those that the lists contradict themselves about.

    A manifest names one fold a clip: the one that tests it; in every other it trains. So a clip is used if it occurs
    once in the test list of one fold and once in the training list of each other, with one label.

    Args:
        lists: (training list, test list) by fold.
        read: (name of the clip, label) of each line of a list.

    Raises:
        FileNotFoundError: a list is missing.
    """
    for number, pair in enumerate(lists, start=1):
        if missing := [path for path in pair if not path.is_file()]:
            raise FileNotFoundError(f"{missing[0]}: the list of fold {number} is missing; unpack the lists again")
    tested: defaultdict[str, Counter[int]] = defaultdict(Counter)
    trained: defaultdict[str, Counter[int]] = defaultdict(Counter)
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for number, (train, test) in enumerate(lists, start=1):
        for path, occurrences in ((train, trained), (test, tested)):
            for name, label in read(path):
                occurrences[name][number] += 1
                labels[name].add(label)
    clips, rejects = [], []
    for name in sorted(labels):
        problem = _problem(tested[name], trained[name], labels[name], len(lists))
        if problem is None:
            clips.append(FoldClip(name=name, label=next(iter(labels[name])), fold=next(iter(tested[name]))))
        else:
            rejects.append(Reject(clip_id=name, reason=problem[0], detail=problem[1]))
    return clips, rejects


def _problem(tested: Counter[int], trained: Counter[int], labels: set[str], folds: int) -> tuple[str, str] | None:
    """(reason, detail) why a clip of the lists cannot be used."""
    if len(labels) > 1:
        return "conflicting_labels", f"the lists call it {', '.join(sorted(labels))}"
    for what, counts in (("test", tested), ("training", trained)):
        if twice := sorted(number for number, count in counts.items() if count > 1):
            return "duplicate_clip", f"the {what} list of fold {_numbers(twice)} names it more than once"
    if not tested:
        return "no_test_fold", f"no test list names it; training lists of fold {_numbers(trained)} do"
    if len(tested) > 1:
        return "two_test_folds", f"the test lists of fold {_numbers(tested)} name it"
    if both := set(tested) & set(trained):
        return "in_training_and_test", f"both lists of fold {_numbers(both)} name it"
    if absent := set(range(1, folds + 1)) - set(tested) - set(trained):
        return "not_in_training", f"neither list of fold {_numbers(absent)} names it"
    return None


def _numbers(numbers: Counter[int] | set[int] | list[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
