"""Media that training cannot read as a corpus has them, made once: frames in folders, face tracks, squares."""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hicmae.benchmarks.card import NativeClip
from hicmae.data.file_lock import remove_drafts
from hicmae.data.manifest import Clip
from hicmae.data.packed import Reject
from hicmae.data.processes import in_processes
from hicmae.data.tar_members import AUDIO_EXTENSIONS
from hicmae.media.clip import DecodeError
from hicmae.media.container import open_media
from hicmae.media.encode import SAMPLE_RATE_HZ, whole_sound
from hicmae.media.probe import probe, read_media_file
from hicmae.media.sound_writer import encode_sound
from hicmae.prepare.frames import make_frames_file
from hicmae.prepare.journal import Journal

if TYPE_CHECKING:
    from hicmae.faces import FaceTracker
    from hicmae.faces.cut import FaceCut

MEDIA, FACES = "media", "faces"
"""Folders of what is made."""


@dataclass(frozen=True, kw_only=True)
class MadeMedia:
    """What became of the clips of a corpus."""

    rows: tuple[Clip, ...]
    """Rows of a manifest, of the clips that can be used."""
    rejected: tuple[Reject, ...] = ()
    cuts: Mapping[str, FaceCut] = field(default_factory=dict)
    """How the face clips came about, by id."""


def make_media(
    clips: Sequence[NativeClip],
    out: Path,
    *,
    faces: FaceTracker | None,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> MadeMedia:
    """Make what has to be made for the clips of a corpus.

    What was made before is taken from the journal in ``out``, if its file is still there and whole.

    Args:
        clips: the corpus; a ``video`` may be a folder of pictures.
        out: where ``media/`` and ``faces/`` go.
        faces: follows faces in films; None leaves films as they are, and cuts the region of a clip that has one.
        workers: processes.
        on_progress: called with (clips done, clips to do) where there is anything to make.

    Raises:
        OSError: the disk is full or gone; nothing half-written keeps a clip's name.
    """
    journal = Journal(out)
    to_make = [native for native in clips if _task(native, faces)]
    missing = [native for native in to_make if not _is_there(journal.lines.get(native.clip.clip_id), out)]
    done = len(to_make) - len(missing)
    for folder in (MEDIA, FACES):
        remove_drafts(out / folder)
    for lines in _run(_units(missing, faces), out, faces, workers):
        for line in lines:
            journal.add(line)
        done += len(lines)
        if on_progress:
            on_progress(done, len(to_make))
    rows: list[Clip] = []
    rejects: list[Reject] = []
    cuts: dict[str, FaceCut] = {}
    makes = {native.clip.clip_id for native in to_make}
    for native in clips:
        line = journal.lines[native.clip.clip_id] if native.clip.clip_id in makes else {}
        if "reject" in line:
            rejects.append(Reject.from_dict(line["reject"]))
        else:
            rows.append(_row(native.clip, line, out))
            if "face" in line:
                cuts[native.clip.clip_id] = _face_cut(line)
    return MadeMedia(rows=tuple(rows), rejected=tuple(rejects), cuts=cuts)


def region_square(region: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int]:
    """The largest square in the middle of a region, as (top, left, side) in pixels.

    Args:
        region: (top, left, bottom, right) as fractions of the displayed picture.
        width, height: of the displayed picture, in pixels.
    """
    top, bottom = round(region[0] * height), round(region[2] * height)
    left, right = round(region[1] * width), round(region[3] * width)
    side = min(bottom - top, right - left)
    return top + (bottom - top - side) // 2, left + (right - left - side) // 2, side


def has_face_search(native: NativeClip, faces: FaceTracker | None) -> bool:
    """Whether a face is looked for in the clip: it has a film, and somebody who looks."""
    return _task(native, faces) == "face"


def _task(native: NativeClip, faces: FaceTracker | None) -> str:
    """What has to be made of a clip; empty for nothing."""
    video = native.clip.video
    if video is None or video.suffix.lower() == ".frames":
        return ""
    if video.is_dir():
        return "frames"
    if faces is not None:
        return "face"
    return "square" if native.region is not None else ""


def _units(clips: Sequence[NativeClip], faces: FaceTracker | None) -> list[tuple[str, list[NativeClip]]]:
    """Work for one process at a time: a clip, or all clips for which the same file is probed."""
    units: list[tuple[str, list[NativeClip]]] = []
    of_file: dict[Path, list[NativeClip]] = defaultdict(list)
    for native in clips:
        task = _task(native, faces)
        if task == "square":
            assert native.clip.video is not None
            of_file[native.clip.video].append(native)
        else:
            units.append((task, [native]))
    return units + [("square", group) for group in of_file.values()]


def _run(
    units: list[tuple[str, list[NativeClip]]], out: Path, faces: FaceTracker | None, workers: int
) -> Iterator[list[dict[str, Any]]]:
    """Lines for the journal, as they come."""
    make = functools.partial(_make, out=out, faces=faces)
    workers = min(workers, len(units))
    if workers <= 1:
        yield from map(make, units)
        return
    begin: Callable[[], None] | None = None
    if faces is not None:
        from hicmae.faces.detector import use_one_thread

        begin = use_one_thread
    for _, lines in in_processes(make, units, workers=workers, begin=begin):
        yield lines


def _make(unit: tuple[str, list[NativeClip]], *, out: Path, faces: FaceTracker | None) -> list[dict[str, Any]]:
    task, clips = unit
    lines = []
    for native in clips:
        clip_id = native.clip.clip_id
        try:
            if task == "frames":
                made = _frames(native, out)
            elif task == "square":
                made = _square(native)
            else:
                assert faces is not None
                made = _face(native, out, faces)
        except ValueError as error:
            reason = getattr(error, "reason", None)
            if reason is None:
                raise
            made = {"reject": Reject(clip_id=clip_id, reason=reason, detail=str(error)).to_dict()}
        except Exception as error:
            error.add_note(f"while making media of clip {clip_id!r} ({native.clip.video})")
            raise
        lines.append({"id": clip_id, **made})
    return lines


def _frames(native: NativeClip, out: Path) -> dict[str, Any]:
    clip = native.clip
    assert clip.video is not None
    end_s, sound = clip.end_s, None
    if clip.audio is not None:
        data = read_media_file(clip.audio, name=str(clip.audio))
        if end_s is None and native.frame_rate is None:
            # of a film from which the frames were taken: the time of its picture
            end_s = probe(data, name=str(clip.audio)).duration_s
        if clip.audio.suffix.lower().removeprefix(".") not in AUDIO_EXTENSIONS:
            sound = _sound_of_film(clip, data, out)
    frames = make_frames_file(
        clip.video, name=clip.clip_id, frame_rate=native.frame_rate, start_s=clip.start_s or 0.0, end_s=end_s
    )
    path = out / MEDIA / f"{clip.clip_id}.frames"
    with _whole(path) as temporary:
        temporary.write_bytes(frames)
    made: dict[str, Any] = {"video": f"{MEDIA}/{path.name}", "bytes": len(frames)}
    return made if sound is None else made | sound


def _sound_of_film(clip: Clip, film: bytes, out: Path) -> dict[str, Any]:
    """A film's sound as a file of its own, on the same clock: what clips take their sound from holds no picture."""
    assert clip.audio is not None
    with open_media(film, str(clip.audio), picture=False) as media:
        waveform = whole_sound(media.sound, 0.0, float("inf"), str(clip.audio)) if media.sound is not None else None
    if waveform is None:
        return {"audio": None}
    data, extension = encode_sound("flac", waveform, SAMPLE_RATE_HZ)
    path = out / MEDIA / f"{clip.clip_id}.{extension}"
    with _whole(path) as temporary:
        temporary.write_bytes(data)
    return {"audio": f"{MEDIA}/{path.name}", "audio_bytes": len(data)}


def _face(native: NativeClip, out: Path, tracker: FaceTracker) -> dict[str, Any]:
    from hicmae.faces.cut import cut_face

    path = out / FACES / f"{native.clip.clip_id}.mp4"
    cut = cut_face(native.clip, path, tracker=tracker, region=native.region)
    return {"video": f"{FACES}/{path.name}", "bytes": cut.bytes, "face": cut.to_dict()}


def _face_cut(line: dict[str, Any]) -> FaceCut:
    from hicmae.faces.cut import FaceCut

    return FaceCut.from_dict(line["face"])


def _square(native: NativeClip) -> dict[str, Any]:
    clip = native.clip
    assert clip.video is not None
    assert native.region is not None
    width, height = _display_size(clip.video)
    top, left, side = region_square(native.region, width, height)
    if side < 1:
        raise DecodeError(clip.clip_id, "square_outside", f"its region {native.region} holds no pixel", "leave it out")
    return {"square": [top, left, side]}


@functools.lru_cache(maxsize=1)
def _display_size(video: Path) -> tuple[int, int]:
    info = probe(video, name=str(video))
    if not info.has_video:
        raise DecodeError(str(video), "no_video_stream", "the file has no picture", "fetch it again")
    return info.width, info.height


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name for a file in the making, which gets its own name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_there(line: dict[str, Any] | None, out: Path) -> bool:
    if line is None:
        return False
    if "video" not in line:
        return True
    made = {line["video"]: line["bytes"]}
    if line.get("audio"):
        made[line["audio"]] = line["audio_bytes"]
    return all((out / name).is_file() and (out / name).stat().st_size == size for name, size in made.items())


def _row(clip: Clip, line: dict[str, Any], out: Path) -> Clip:
    """The manifest's row of a clip for which ``line`` was noted; an empty line: nothing had to be made."""
    if "square" in line:
        top, left, side = line["square"]
        return replace(clip, square=(top, left, side))
    if "video" not in line:
        return clip
    video = out / line["video"]
    if "face" in line:
        from hicmae.faces.face_clip import face_row

        return face_row(clip, video)
    audio = clip.audio if "audio" not in line else None if line["audio"] is None else out / line["audio"]
    return replace(clip, video=video, audio=audio)
