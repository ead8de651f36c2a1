"""What is known of a corpus: classes, folds, scores to report, published results, where to get it, how to read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hicmae.data.labels import LabelSpec
from hicmae.data.manifest import Clip
from hicmae.data.packed import Reject

_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class NativeClip:
    """A clip as the corpus has it."""

    clip: Clip
    """Row of the manifest. ``video`` may be a folder of face frames (jpg, png or bmp, in the order of their names, in
    which numbers count as numbers: ``1_2.jpg`` before ``1_10.jpg``) instead of a file; ``audio`` may then be a video
    file, of which the sound is meant. ``split`` is ``foldN`` (from 1), the fold in which it is tested, or train, val or
    test where the corpus has one fixed division."""
    region: tuple[float, float, float, float] | None = None
    """Part of the picture in which the speaker is to be seen: (top, left, bottom, right) as fractions of the displayed
    picture's height and width; None is all of it."""
    frame_rate: float | None = None
    """Frames a second of a folder of frames; None: as many as fill the time of the clip's sound."""


@dataclass(frozen=True, kw_only=True)
class Native:
    """What a corpus on disk holds."""

    clips: tuple[NativeClip, ...]
    rejects: tuple[Reject, ...] = ()
    """Clips that should be there or be usable and are not: a missing file, an unknown label."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Clips that the benchmark does not use, by reason: ``{"label frustrated": 1849}``."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Counts to hold a corpus on disk against; what is not known is left empty."""

    source: str
    """Who counted."""
    clips: int | None = None
    subjects: int | None = None
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Clips by label column and class."""
    splits: Mapping[str, int] = field(default_factory=dict)
    """Clips by split: fold1, fold2, ... or train, test."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """Results that somebody has published; nothing of it was measured by this project."""

    method: str
    """For instance 'HiCMAE-B'."""
    source: str
    """Paper and table."""
    protocol: str
    """How the reported checkpoint was chosen, in words."""
    scores: Mapping[str, float]
    """By name as in ``metrics.json`` (uar, war, weighted_f1, ccc_valence ...), fractions of 1."""
    column: str = ""
    """Label column that the scores are of, where a corpus has several tasks."""
    modalities: tuple[str, ...] = ("video", "audio")


@dataclass(frozen=True, kw_only=True)
class Card:
    """One benchmark."""

    name: str
    """As in ``hicmae prepare NAME``."""
    title: str
    labels: LabelSpec
    """Classes in the order of a model's outputs, and ranges of continuous targets. Of several categorical columns each
    is a task of its own."""
    folds: int
    """Cross-validation folds, the splits fold1, fold2, ...; 0: the corpus has one fixed division."""
    fold_rule: str
    """How clips come to their folds, in words."""
    metrics: tuple[str, ...]
    """Scores that papers report, the main one first; names as in ``metrics.json``."""
    obtain: str
    """Where the corpus comes from, and on what terms."""
    layout: str
    """The native tree, as a few lines that can be shown to somebody whose folder is another one."""
    confirmed: tuple[str, ...]
    """What of layout, labels and folds was checked, and against which public source."""
    unconfirmed: tuple[str, ...]
    """What could not be checked without the corpus, and is an assumption."""
    read: Callable[[Path], Native]
    """The parser: the root of the native tree -> its clips. Raises ``FileNotFoundError`` or ``ValueError`` for a root
    that is not this corpus or a label file that cannot be used."""
    expected: Expected | None = None
    published: tuple[Published, ...] = ()
    shared_subjects: bool = False
    """The corpus's own folds have subjects in common, so that its published results do not hold for new people."""
    average_over: str | None = None
    """Label column whose clips share one prediction (the mean of their probabilities); None: each clip has its own."""
    frame_interval_s: float = 0.16
    """Time between two frames that the model sees, in seconds."""


def not_this_corpus(root: Path, title: str, looked_for: Sequence[str]) -> FileNotFoundError:
    """The error for a root that is not the corpus: what was looked for, and what is there instead."""
    if not root.is_dir():
        return FileNotFoundError(f"{root}: no such folder; --root takes the folder of {title} as it was unpacked")
    names = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return FileNotFoundError(
        f"{root} is not {title}: looked for {'; '.join(looked_for)}; found {', '.join(names[:_SHOWN]) or 'nothing'}"
        f"{more}. Give the folder that holds them as --root"
    )
