"""All clips of a manifest to face clips, in several processes, which may be killed and started again at any time.

The folder holds ``faces.json`` (the settings), ``faces/ID.mp4``, ``parts/ID.json`` (what became of each clip) and, once
all clips are done, ``manifest.csv``, ``rejects.csv`` and ``sheet.png``.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from hicmae.data.manifest import Clip, Manifest, write_manifest
from hicmae.data.packed import Reject
from hicmae.data.processes import end_with_parent, obey_signals, worker_context
from hicmae.data.shard_index import REJECTS_NAME, write_json
from hicmae.faces.detector import make_detector, need
from hicmae.faces.face_clip import FACE_SIZE
from hicmae.faces.look import Region
from hicmae.faces.part import FacePart, FaceTask, make_face_clip
from hicmae.faces.sheet import SheetRow, draw_sheet
from hicmae.faces.tracker import FaceTracker, check_region

SETTINGS_NAME, MANIFEST_NAME, SHEET_NAME = "faces.json", "manifest.csv", "sheet.png"
_SHEET_CLIPS = 12


@dataclass(frozen=True, kw_only=True)
class FacesReport:
    """What ``write_faces`` did."""

    clips: tuple[Clip, ...]
    """Rows of the manifest that was written."""
    rejected: tuple[Reject, ...]
    already_done: int
    """Clips that an earlier run had finished."""
    contested: tuple[str, ...]
    """Ids of clips in which another face was about as large and as central at the same time."""
    jumping: tuple[str, ...]
    """Ids of clips whose square jumps: another shot, or the face found elsewhere."""


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
        ValueError: the folder was made with other settings, an option is out of range, or the extra is missing.
    """
    tracker = tracker or FaceTracker()
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    if size < 16 or size % 2:
        raise ValueError(f"size={size} must be even and at least 16 pixels, as H.264 wants it")
    check_region(region, None, str(manifest.path))
    _claim(folder, _settings(tracker, size, region))
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
    done = _in_processes(to_do, min(workers, len(to_do))) if workers > 1 and len(to_do) > 1 else _here(to_do)
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
    model = hashlib.sha256(Path(tracker.model).read_bytes()).hexdigest() if tracker.model else None
    return {
        "detector": tracker.detector,
        "model_sha256": model,
        "margin": tracker.margin,
        "every": tracker.every,
        "min_share": tracker.min_share,
        "smooth_s": tracker.smooth_s,
        "size": size,
        "region": list(region) if region else None,
    }


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Say how the clips of the folder are made, or refuse one whose clips were made otherwise."""
    file = folder / SETTINGS_NAME
    if file.exists():
        try:
            there = json.loads(file.read_text(encoding="utf-8"))
            differing = {name: there.get(name) for name in settings if there.get(name) != settings[name]}
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{file}: damaged ({error}); remove {folder} and write again") from error
        if differing:
            what = ", ".join(f"{name}: {old!r} there, {settings[name]!r} now" for name, old in differing.items())
            raise ValueError(
                f"{folder} holds face clips made with other settings ({what}); write to another folder, or remove it"
            )
        return
    if (folder / MANIFEST_NAME).exists():
        raise ValueError(f"{folder} holds a {MANIFEST_NAME} that this command did not write; choose another folder")
    for name in ("faces", "parts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_json(file, settings)


def _here(tasks: Sequence[FaceTask]) -> Iterator[tuple[FaceTask, FacePart]]:
    for task in tasks:
        yield task, make_face_clip(task)


def _in_processes(tasks: Sequence[FaceTask], workers: int) -> Iterator[tuple[FaceTask, FacePart]]:
    waiting = iter(tasks)
    with ProcessPoolExecutor(workers, mp_context=worker_context(), initializer=_begin) as pool:
        # A million futures at once would take more memory than the clips.
        running: dict[Future[FacePart], FaceTask] = {
            pool.submit(make_face_clip, task): task for task in islice(waiting, 2 * workers)
        }
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    for another in islice(waiting, 1):
                        running[pool.submit(make_face_clip, another)] = another
                    yield task, future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin() -> None:
    end_with_parent()
    obey_signals()
    need("cv2").setNumThreads(1)  # clips are worked on side by side


def _finish(folder: Path, tasks: Sequence[FaceTask], parts: dict[str, FacePart], already_done: int) -> FacesReport:
    """Manifest, rejects and sheet from the parts."""
    kept = [task for task in tasks if not parts[task.clip.clip_id].rejected]
    clips = tuple(
        replace(task.clip, video=task.out, audio=None, start_s=None, end_s=None, square=None) for task in kept
    )  # fmt: skip
    rejected = tuple(reject for task in tasks if (reject := parts[task.clip.clip_id].rejected))
    _write_rejects(folder / REJECTS_NAME, rejected)
    if clips:
        write_manifest(folder / MANIFEST_NAME, clips)
        draw_sheet([_sheet_row(task, parts[task.clip.clip_id]) for task in _on_sheet(kept, parts)], folder / SHEET_NAME)
    else:
        for name in (MANIFEST_NAME, SHEET_NAME):
            (folder / name).unlink(missing_ok=True)
    return FacesReport(
        clips=clips,
        rejected=rejected,
        already_done=already_done,
        contested=tuple(task.clip.clip_id for task in kept if parts[task.clip.clip_id].contested),
        jumping=tuple(task.clip.clip_id for task in kept if parts[task.clip.clip_id].pieces > 1),
    )


def _on_sheet(kept: Sequence[FaceTask], parts: dict[str, FacePart]) -> list[FaceTask]:
    """From the clip in which the face was found least often to that in which it was found most."""
    ranked = sorted(kept, key=lambda task: parts[task.clip.clip_id].share)
    count = min(_SHEET_CLIPS, len(ranked))
    return [ranked[round(step * (len(ranked) - 1) / max(1, count - 1))] for step in range(count)]


def _sheet_row(task: FaceTask, part: FacePart) -> SheetRow:
    assert task.clip.video is not None
    remarks = ["another face as large"] * part.contested + [f"{part.pieces} pieces"] * (part.pieces > 1)
    return SheetRow(
        title=", ".join([f"{task.clip.clip_id}: found in {part.share:.0%}", *remarks]),
        video=task.clip.video,
        face_clip=task.out,
        shown=part.shown,
    )


def _write_rejects(file: Path, rejected: Sequence[Reject]) -> None:
    file.unlink(missing_ok=True)
    if not rejected:
        return
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with draft.open("w", newline="", encoding="utf-8", errors="backslashreplace") as out:
        writer = csv.DictWriter(out, list(rejected[0].to_dict()), lineterminator="\n")
        writer.writeheader()
        writer.writerows(reject.to_dict() for reject in rejected)
    draft.replace(file)
