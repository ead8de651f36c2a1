"""A corpus to be prepared: one of the benchmarks in its native layout, or anybody's manifest; read and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hicmae.benchmarks import card
from hicmae.benchmarks.card import Expected, NativeClip
from hicmae.data.labels import LabelSpec
from hicmae.data.manifest import Clip, read_manifest
from hicmae.data.packed import Reject
from hicmae.prepare.checks import (
    SHARED_MEANS,
    absent_classes,
    check_native,
    missing_media,
    shared_subjects,
    split_order,
)
from hicmae.prepare.folds import make_folds
from hicmae.prepare.report import PrepareReport
from hicmae.prepare.tally import found_labels, tally


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Clips that have passed the checks, and what is to be said of them."""

    name: str
    title: str
    root: Path
    """The native tree, or the folder of the manifest."""
    clips: tuple[NativeClip, ...]
    rejects: tuple[Reject, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    is_benchmark: bool = False
    """Whether there is a card, and with it a configuration, of this name."""
    labels: LabelSpec | None = None
    """What can be learnt; None for a manifest without labels."""
    expected: Expected | None = None
    warnings: tuple[str, ...] = ()
    confirmed: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()

    def report(
        self,
        *,
        usable: Sequence[Clip] | None = None,
        rejects: Sequence[Reject] = (),
        durations_s: Mapping[str, float] | None = None,
        warnings: Sequence[str] = (),
        **more: object,
    ) -> PrepareReport:
        """The corpus in numbers.

        Args:
            usable: clips that are left; None for all, as before any work.
            rejects: of the work, beside those of reading the corpus.
            durations_s: length of clips by id.
            warnings: of the work.
            more: other fields of the report.
        """
        clips = [native.clip for native in self.clips]
        left = clips if usable is None else usable
        warnings = [*self.warnings, *warnings]
        if self.labels is not None:
            # of the splits that the corpus has, also of one whose clips are all gone
            warnings += absent_classes(self.labels, left, split_order(clip.split for clip in clips))
        return PrepareReport(
            name=self.name,
            title=self.title,
            root=str(self.root),
            found=tally(clips, self.labels),
            usable=tally(left, self.labels, durations_s),
            expected=self.expected,
            rejected=(*self.rejects, *rejects),
            left_out=self.left_out,
            warnings=tuple(warnings),
            confirmed=self.confirmed,
            unconfirmed=self.unconfirmed,
            **more,  # type: ignore[arg-type]
        )


def benchmark_corpus(name: str, root: Path, *, allow_shared_subjects: bool = False) -> Corpus:
    """A benchmark in its native layout.

    Args:
        name: of its card.
        root: the folder as it was unpacked.
        allow_shared_subjects: warn of speakers in two splits instead of refusing them, as is done anyway where the card
            says that the corpus's own folds have them.

    Raises:
        FileNotFoundError: the root is not this corpus, or a label file is missing.
        ValueError: no such benchmark, or clips that ``check_native`` refuses.
    """
    known, root = card(name), root.absolute()
    native = known.read(root)
    check_native(known, native.clips, allow_shared_subjects=allow_shared_subjects or known.shared_subjects)
    missing = missing_media(native.clips)
    gone = {reject.clip_id for reject in missing}
    clips = tuple(clip for clip in native.clips if clip.clip.clip_id not in gone)
    if not clips:
        raise ValueError(
            f"{known.title}: none of its {len(gone)} clips has its media: {missing[0].detail}; is the folder complete?"
        )
    return Corpus(
        name=known.name,
        title=known.title,
        root=root,
        clips=clips,
        is_benchmark=True,
        rejects=(*native.rejects, *missing),
        left_out=native.left_out,
        labels=known.labels,
        expected=known.expected,
        warnings=_shared_warning([native.clip for native in clips], own_folds=known.shared_subjects),
        confirmed=known.confirmed,
        unconfirmed=known.unconfirmed,
    )


def manifest_corpus(
    path: Path,
    *,
    folds: int | None = None,
    seed: int = 0,
    stratify: str | None = None,
    frame_rate: float | None = None,
    allow_shared_subjects: bool = False,
) -> Corpus:
    """A manifest, with folds made on request. A ``video`` in it may be a folder of pictures, one a frame.

    Args:
        path: ``.csv`` or ``.parquet``.
        folds: make so many speaker-disjoint folds; None keeps the manifest's splits.
        seed, stratify: of the folds, see ``make_folds``.
        frame_rate: of the folders of pictures, in frames a second; None: they fill the time of their sound.
        allow_shared_subjects: warn of speakers in two splits instead of refusing them.

    Raises:
        FileNotFoundError, ManifestError: as ``read_manifest``.
        ValueError: speakers in two splits, or as ``make_folds``.
    """
    if frame_rate is not None and not 0 < frame_rate < math.inf:
        raise ValueError(f"--frame-rate {frame_rate:g} must be above 0 and finite: frames a second")
    clips = read_manifest(path, frames_folders=True).clips
    if frame_rate is not None and not any(clip.video is not None and clip.video.is_dir() for clip in clips):
        raise ValueError(f"{path}: --frame-rate goes with folders of pictures as video, and there is none")
    warnings: list[str] = []
    if folds is not None:
        folded = make_folds(clips, folds, seed=seed, stratify=stratify)
        clips = folded.clips
        warnings += folded.warnings
    if not allow_shared_subjects and (shared := shared_subjects(clips)):
        raise ValueError(
            f"{path}: {shared}, {SHARED_MEANS}; correct the split column, make folds with --folds K, or accept it with "
            "--allow-shared-subjects"
        )
    warnings += _shared_warning(clips)
    labels = found_labels(clips)
    for column in (*labels.classes, *labels.dimensions) if labels else ():
        if without := sum(column not in clip.labels for clip in clips):
            warnings.append(
                f"{without} of {len(clips)} clips have no {column}; a model that learns it refuses them: leave their "
                "rows out of the manifest for that"
            )
    return Corpus(
        name=path.stem,
        title=f"manifest {path.name}",
        root=path.parent,
        clips=tuple(NativeClip(clip=clip, frame_rate=frame_rate) for clip in clips),
        labels=labels,
        warnings=tuple(warnings),
    )


def _shared_warning(clips: Sequence[Clip], *, own_folds: bool = False) -> tuple[str, ...]:
    if not (shared := shared_subjects(clips)):
        return ()
    remedy = (
        "these are the corpus's own folds, and its configuration allows it"
        if own_folds
        else "training needs data.allow_shared_subjects: true"
    )
    return (f"{shared}, {SHARED_MEANS}; {remedy}",)
