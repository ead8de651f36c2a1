"""The work: media made, manifest written, shards packed, report written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hicmae.data.file_lock import hold_folder, remove_drafts
from hicmae.data.manifest import Manifest, write_manifest
from hicmae.data.shard_writer import write_shards
from hicmae.data.storage import StorageFormat
from hicmae.prepare.corpus import Corpus
from hicmae.prepare.journal import claim, fingerprints, options_there
from hicmae.prepare.made_media import FACES, MadeMedia, has_face_search, make_media
from hicmae.prepare.report import PrepareReport

if TYPE_CHECKING:
    from hicmae.faces import FaceTracker

MANIFEST_NAME, SHARDS_NAME = "manifest.csv", "shards"
FACES_SHEET = f"{FACES}/sheet.png"
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
            "faces": "none" if self.faces is None else self.faces.settings(),
            "storage": None if self.storage is None else self.storage.to_dict(),
            "shard_mb": None if self.storage is None else self.shard_mb,
        }


def stores_whole_files(corpus: Corpus, faces: FaceTracker | None) -> bool:
    """Whether format ``original`` would store a long file once for each of the clips that are parts of it."""
    return any(native.clip.span_s is not None and not has_face_search(native, faces) for native in corpus.clips)


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
        ValueError, FileExistsError: ``out`` is for something else, or another process is at it.
        OSError: the disk is full or gone.
    """
    claim(out, *_plan(corpus, settings))
    with hold_folder(out):
        remove_drafts(out)
        return _prepare(corpus, out, settings, on_progress)


def write_first_report(corpus: Corpus, out: Path, settings: PrepareSettings) -> None:
    """Write what is known before any work. The report of work that was done before stays.

    Raises:
        ValueError, FileExistsError: ``out`` is for something else.
    """
    options_there(out, *_plan(corpus, settings))
    if not (out / MANIFEST_NAME).exists():
        corpus.report().write(out)


def _plan(corpus: Corpus, settings: PrepareSettings) -> tuple[dict[str, Any], dict[str, str]]:
    """What decides the result: options, and the clips by their fingerprints."""
    return {"corpus": corpus.name, **settings.to_dict()}, fingerprints(corpus.clips, corpus.root)


def _prepare(
    corpus: Corpus, out: Path, settings: PrepareSettings, on_progress: Callable[[Stage, int, int], None] | None
) -> PrepareReport:
    def progress(stage: Stage) -> Callable[[int, int], None]:
        return lambda done, total: on_progress(stage, done, total) if on_progress else None

    made = make_media(
        corpus.clips, out, faces=settings.faces, workers=settings.workers, on_progress=progress("making media")
    )
    warnings = _of_faces(corpus, made, out, settings.faces)
    usable, rejects = made.rows, made.rejected
    durations: dict[str, float] = {}
    stored: dict[str, Any] = {}
    manifest = Manifest(path=out / MANIFEST_NAME, clips=usable)
    if usable and settings.storage is not None:
        packed = write_shards(
            manifest, out / SHARDS_NAME, storage=settings.storage, shard_mb=settings.shard_mb,
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
        usable = tuple(row for row in usable if row.clip_id not in gone)
    # Without what was found to be damaged: whoever trains from the files themselves needs that too.
    write_manifest(manifest.path, usable)
    report = corpus.report(
        usable=usable, rejects=rejects, durations_s=durations, warnings=warnings, stored=stored, finished=True
    )
    report.write(out)
    return report


def _of_faces(corpus: Corpus, made: MadeMedia, out: Path, faces: FaceTracker | None) -> tuple[str, ...]:
    """The sheet of face clips, and what is doubtful about them."""
    if faces is None:
        return ()
    from hicmae.faces.cut import doubts
    from hicmae.faces.sheet import SheetRow, draw_sheet

    films = {native.clip.clip_id: native.clip.video for native in corpus.clips}
    faces_of = {row.clip_id: row.video for row in made.rows}
    rows = [
        SheetRow(clip_id=name, video=film, face_clip=face_clip, cut=cut)
        for name, cut in made.cuts.items()
        if (film := films[name]) and (face_clip := faces_of[name])
    ]
    if rows:
        draw_sheet(rows, out / FACES_SHEET)
    others = sum(not has_face_search(native, faces) for native in corpus.clips)
    kept = f"{others} clips have no film in which to look for a face, and are taken as they are"
    return (*([kept] if others else []), *doubts(made.cuts))
