"""The work: media made, manifest written, shards packed, report written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hicmae.data.manifest import read_manifest, write_manifest
from hicmae.data.shard_writer import write_shards
from hicmae.data.storage import StorageFormat
from hicmae.prepare.corpus import Corpus
from hicmae.prepare.journal import claim, fingerprints
from hicmae.prepare.made_media import make_media
from hicmae.prepare.report import PrepareReport

if TYPE_CHECKING:
    from hicmae.faces import FaceTracker

MANIFEST_NAME, SHARDS_NAME = "manifest.csv", "shards"
Stage = Literal["making media", "packing"]


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """What is made of a corpus."""

    faces: FaceTracker | None = None
    """Cut films to the speaker's face; None leaves them as they are."""
    storage: StorageFormat | None = None
    """How clips are packed into shards; None: no shards."""
    shard_mb: float = 256.0
    workers: int = 1

    def to_dict(self) -> dict[str, Any]:
        """What decides the result, as plain values; None for what may be decided later."""
        return {
            "faces": "none" if self.faces is None else str(self.faces),
            "storage": None if self.storage is None else self.storage.to_dict(),
            "shard_mb": None if self.storage is None else self.shard_mb,
        }


def stores_whole_files(corpus: Corpus, faces: FaceTracker | None) -> bool:
    """Whether format ``original`` would store a long file once for each of the clips that are parts of it."""
    return any(
        native.clip.span_s is not None and (faces is None or native.clip.video is None) for native in corpus.clips
    )


def prepare(
    corpus: Corpus,
    out: Path,
    settings: PrepareSettings,
    *,
    on_progress: Callable[[Stage, int, int], None] | None = None,
) -> PrepareReport:
    """Prepare a corpus that has passed its checks. May be killed and started again at any time.

    Args:
        corpus: the clips.
        out: gets ``manifest.csv``, ``media/``, ``faces/``, ``shards/`` and the report.
        settings: what is made.
        on_progress: called with (stage, clips done, clips to do).

    Raises:
        ValueError, FileExistsError: ``out`` is for something else.
        OSError: the disk is full or gone.
    """
    claim(out, {"corpus": corpus.name, **settings.to_dict()}, fingerprints(corpus.clips, corpus.root))

    def progress(stage: Stage) -> Callable[[int, int], None]:
        return lambda done, total: on_progress(stage, done, total) if on_progress else None

    rows, rejects = make_media(
        corpus.clips, out, faces=settings.faces, workers=settings.workers, on_progress=progress("making media")
    )
    usable = rows
    durations: dict[str, float] = {}
    stored: dict[str, Any] = {}
    if rows:
        path = write_manifest(out / MANIFEST_NAME, rows)
        if settings.storage is not None:
            packed = write_shards(
                read_manifest(path), out / SHARDS_NAME, storage=settings.storage, shard_mb=settings.shard_mb,
                workers=settings.workers, on_progress=progress("packing"),
            )  # fmt: skip
            assert packed.index is not None, "all parts are this one"
            table = packed.index.clips
            lengths = zip(table.values("clip_id"), table.values("duration_s"), strict=True)
            durations = {name: seconds for name, seconds in lengths if seconds is not None}
            totals = packed.index.totals()
            stored = {"stored as": str(packed.index.storage), **totals, "quality": packed.index.quality}
            rejects += packed.rejected
            gone = {reject.clip_id for reject in packed.rejected}
            usable = tuple(row for row in rows if row.clip_id not in gone)
    # Written again without what was found to be damaged: whoever trains from the files themselves needs that too.
    write_manifest(out / MANIFEST_NAME, usable)
    report = corpus.report(usable=usable, rejects=rejects, durations_s=durations, stored=stored, finished=True)
    report.write(out)
    return report
