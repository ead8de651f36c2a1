"""Speaker-disjoint folds for a corpus that has none, balanced in clips and classes as well as its speakers allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from warnings import catch_warnings, simplefilter

import numpy as np
import numpy.typing as npt

from hicmae.data.manifest import Clip

_LEVELS = 5  # of numeric labels, so that each fold gets low and high values


@dataclass(frozen=True, kw_only=True)
class FoldedClips:
    """Clips with their new splits."""

    clips: tuple[Clip, ...]
    stratified_by: str
    """Label column that was balanced; empty for none."""
    warnings: tuple[str, ...]


def make_folds(clips: Sequence[Clip], folds: int, *, seed: int = 0, stratify: str | None = None) -> FoldedClips:
    """Give every clip a split ``fold1`` .. ``foldK``, all clips of a speaker the same one.

    The same speakers, labels and seed give the same folds, in whatever order the clips come.

    Args:
        clips: rows of a manifest; their splits are replaced.
        folds: K, 2 or more.
        seed: of ties and of the order in which speakers are dealt out.
        stratify: label column to balance; None takes ``emotion`` where there is one, else the first text label that
            has several values, else clips alone are balanced.

    Raises:
        ValueError: too few speakers, no such column, or scikit-learn is not installed.
    """
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError as error:
        raise ValueError("--folds needs scikit-learn: pip install scikit-learn, or 'hicmae[train]'") from error
    if folds < 2:
        raise ValueError(f"--folds {folds}: cross-validation takes 2 folds or more")
    column = _column(clips, stratify)
    # a clip without a speaker is a group of its own, under a name that no speaker has
    groups = np.array([clip.subject or f"\0{clip.clip_id}" for clip in clips])
    count = len(set(groups.tolist()))
    if count < folds:
        raise ValueError(f"--folds {folds}: there are {count} speakers, and each fold needs one; make fewer folds")
    strata = _merge_rare(_strata(clips, column), folds)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    split_of: dict[str, str] = {}
    with catch_warnings():
        simplefilter("ignore", UserWarning)  # classes that not every fold can have are named in the report
        for number, (_, test) in enumerate(splitter.split(groups, strata, groups), start=1):
            split_of |= dict.fromkeys(groups[test].tolist(), f"fold{number}")
    alone = sum(not clip.subject for clip in clips)
    warnings = []
    if alone:
        warnings.append(
            f"{alone} of {len(clips)} clips name no speaker and were dealt out one by one: the same person may be in "
            "training and test, and results would look better than they are. Fill in the manifest's subject column"
        )
    if replaced := Counter(clip.split for clip in clips if clip.split):
        shown = ", ".join(f"{name} ({n})" for name, n in replaced.most_common(5))
        warnings.append(f"the manifest's own splits were replaced by folds: {shown}")
    made = tuple(replace(clip, split=split_of[group]) for clip, group in zip(clips, groups.tolist(), strict=True))
    if len({clip.split for clip in made}) < folds:
        raise ValueError(f"--folds {folds}: {count} speakers are too few to fill every fold; make fewer folds")
    return FoldedClips(clips=made, stratified_by=column, warnings=tuple(warnings))


def _column(clips: Sequence[Clip], wanted: str | None) -> str:
    there = {column for clip in clips for column in clip.labels}
    if wanted is not None:
        if wanted not in there:
            raise ValueError(f"--stratify {wanted}: the manifest has no such label; it has {sorted(there) or 'none'}")
        return wanted
    texts = sorted(
        c for c in there if len({clip.labels[c] for clip in clips if isinstance(clip.labels.get(c), str)}) > 1
    )
    return "emotion" if "emotion" in texts else texts[0] if texts else ""


def _strata(clips: Sequence[Clip], column: str) -> npt.NDArray[np.int64]:
    """A number for each clip, int64 (N,), the same for those of one class or of one level; 0 without a value."""
    values = [clip.labels.get(column) for clip in clips]
    if numbers := [value for value in values if isinstance(value, float)]:
        edges = np.quantile(numbers, np.linspace(0, 1, _LEVELS + 1)[1:-1])
        return np.array([0 if v is None else 1 + int(np.searchsorted(edges, float(v), "right")) for v in values])
    names = sorted({value for value in values if isinstance(value, str)})
    number = {name: place for place, name in enumerate(names, start=1)}
    return np.array([number.get(str(value), 0) for value in values])


def _merge_rare(strata: npt.NDArray[np.int64], folds: int) -> npt.NDArray[np.int64]:
    """The same, with all classes that have fewer clips than there are folds taken for one."""
    names, counts = np.unique(strata, return_counts=True)
    return np.where(np.isin(strata, names[counts < folds]), -1, strata)
