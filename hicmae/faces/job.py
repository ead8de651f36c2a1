"""All clips of a manifest to face clips, in several processes, which may be killed and started again at any time.

The folder holds ``faces.json`` (the settings), ``faces/ID.mp4``, ``parts/ID.json`` (what became of each clip) and, once
all clips are done, ``manifest.csv``, ``rejects.csv`` and ``sheet.png``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hicmae.data.file_lock import hold_folder, remove_drafts
from hicmae.data.manifest import Clip, Manifest, write_manifest
from hicmae.data.packed import Reject, write_rejects
from hicmae.data.processes import in_processes
from hicmae.data.remembered import differences
from hicmae.data.shard_index import REJECTS_NAME, write_json
from hicmae.faces.cut import FaceCut, doubts
from hicmae.faces.detector import make_detector, use_one_thread
from hicmae.faces.face_clip import FACE_SIZE, face_row
from hicmae.faces.look import Region
from hicmae.faces.part import FacePart, FaceTask, make_face_clip
from hicmae.faces.sheet import SHEET_NAME, SheetRow, draw_sheet
from hicmae.faces.tracker import FaceTracker, check_region

SETTINGS_NAME, MANIFEST_NAME = "faces.json", "manifest.csv"


@dataclass(frozen=True, kw_only=True)
class FacesReport:
    """What ``write_faces`` did."""

    clips: tuple[Clip, ...]
    """Rows of the manifest that was written."""
    rejected: tuple[Reject, ...]
    already_done: int
    """Clips that an earlier run had finished."""
    doubts: tuple[str, ...]
    """Sentences about clips of which the face may be another's."""


def write_faces(
    manifest: Manifest,
    folder: Path,
    *,
    tracker: FaceTracker | None = None,
    size: int = FACE_SIZE,
    region: Region | None = None,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> FacesReport:
    """Write the face clip of each clip, and the manifest of those that have a face.

    Args:
        manifest: the clips. A clip's ``square`` is where its face is looked for.
        folder: where all goes; made when missing.
        tracker: how faces are followed; its detector is given by name. None for the defaults.
        size: side of the pictures in pixels, even.
        region: look in this part alone, of all clips: (top, left, bottom, right) as fractions.
        workers: processes.
        on_progress: called with (clips done, clips in all).

    Raises:
        ValueError: the folder was made with other settings, or another process is at it; an option is out of range, or
            the extra is missing.
    """
    tracker = tracker or FaceTracker()
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    if size < 16 or size % 2:
        raise ValueError(f"size={size} must be even and at least 16 pixels, as H.264 wants it")
    check_region(region, None, str(manifest.path))
    settings = _settings(tracker, size, region)
    _claim(folder, settings)
    with hold_folder(folder):
        for place in (folder, folder / "faces", folder / "parts"):
            remove_drafts(place)
        tasks = [
            FaceTask(clip=clip, out=folder / "faces" / f"{clip.clip_id}.mp4", tracker=tracker, size=size, region=region,
                     part=folder / "parts" / f"{clip.clip_id}.json")
            for clip in manifest.clips
        ]  # fmt: skip
        parts = {task.clip.clip_id: part for task in tasks if (part := task.finished()) is not None}
        already_done = len(parts)
        to_do = [task for task in tasks if task.clip.clip_id not in parts]

        def progress() -> None:
            if on_progress:
                on_progress(len(parts), len(tasks))

        progress()
        workers = min(workers, len(to_do))
        if workers > 1:
            done = in_processes(make_face_clip, to_do, workers=workers, begin=use_one_thread)
        else:
            done = ((task, make_face_clip(task)) for task in to_do)
        for task, part in done:
            parts[task.clip.clip_id] = part
            progress()
        return _finish(folder, tasks, parts, already_done)


def _settings(tracker: FaceTracker, size: int, region: Region | None) -> dict[str, Any]:
    if not isinstance(tracker.detector, str):
        raise ValueError(
            "a job over many clips needs a detector given by name, so that its folder can say which it was"
        )
    make_detector(tracker.detector, tracker.model)  # an error now, and not one for each clip
    return {**tracker.settings(), "size": size, "region": list(region) if region else None}


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Say how the clips of the folder are made, or refuse one whose clips were made otherwise."""
    file = folder / SETTINGS_NAME
    if file.exists():
        if what := differences(file, settings):
            raise ValueError(
                f"{folder} holds face clips made with other settings ({what}); write to another folder, or remove it"
            )
        return
    if (folder / MANIFEST_NAME).exists():
        raise ValueError(f"{folder} holds a {MANIFEST_NAME} that this command did not write; choose another folder")
    for name in ("faces", "parts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_json(file, settings)


def _finish(folder: Path, tasks: Sequence[FaceTask], parts: dict[str, FacePart], already_done: int) -> FacesReport:
    """Manifest, rejects and sheet from the parts."""
    cuts = {task.clip.clip_id: cut for task in tasks if (cut := parts[task.clip.clip_id].cut)}
    kept = [task for task in tasks if task.clip.clip_id in cuts]
    clips = tuple(face_row(task.clip, task.out) for task in kept)
    rejected = tuple(reject for task in tasks if (reject := parts[task.clip.clip_id].rejected))
    write_rejects(folder / REJECTS_NAME, rejected)
    if clips:
        write_manifest(folder / MANIFEST_NAME, clips)
        draw_sheet([_sheet_row(task, cuts[task.clip.clip_id]) for task in kept], folder / SHEET_NAME)
    else:
        for name in (MANIFEST_NAME, SHEET_NAME):
            (folder / name).unlink(missing_ok=True)
    return FacesReport(clips=clips, rejected=rejected, already_done=already_done, doubts=doubts(cuts))


def _sheet_row(task: FaceTask, cut: FaceCut) -> SheetRow:
    assert task.clip.video is not None
    return SheetRow(clip_id=task.clip.clip_id, video=task.clip.video, face_clip=task.out, cut=cut)
