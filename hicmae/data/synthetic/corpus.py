"""Write the corpus: one mp4 file a clip (H.264, AAC) in parallel, then the manifest.

What a clip holds depends on (seed, clip id) alone, so the number of processes does not matter and a run that was
stopped goes on where it was: finished files are kept, and a file appears under its name only when it is whole.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from hicmae.data.manifest import write_manifest
from hicmae.data.processes import obey_signals
from hicmae.data.synthetic.emotions import EMOTIONS
from hicmae.data.synthetic.face import render_frames
from hicmae.data.synthetic.performance import FRAMES_PER_SECOND, Performance, draw_performance
from hicmae.data.synthetic.scene import Scene, draw_scene
from hicmae.data.synthetic.seeding import generator_for
from hicmae.data.synthetic.speaker import Speaker, draw_speaker
from hicmae.data.synthetic.voice import SAMPLE_RATE_HZ, synthesise

RECIPE_VERSION = 2
"""Raised whenever the same settings would make other clips, so that two recipes never share a folder."""
SETTINGS_FILE, MANIFEST_FILE, CLIP_FOLDER = "corpus.json", "manifest.csv", "clips"
MANIFEST_COLUMNS = (
    "clip_id",
    "video",
    "audio",
    "start_s",
    "end_s",
    "subject",
    "split",
    "emotion",
    "valence",
    "arousal",
)
_PART = ".part"


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """Size and contents of a corpus. Speakers are disjoint between the splits."""

    speakers: int = 24
    """Labelled speakers: training, validation and test together."""
    val_speakers: int = 4
    """Of these, for validation."""
    test_speakers: int = 8
    """Of these, for the test."""
    clips_per_speaker: int = 16
    """Clips of each labelled speaker; a multiple of 8 balances the emotions."""
    unlabelled_speakers: int = 24
    """Further speakers for pre-training; their labels are left empty in the manifest."""
    unlabelled_clips_per_speaker: int = 16
    """Clips of each unlabelled speaker."""
    seed: int = 0
    """Everything is drawn from this."""
    size: int = 160
    """Side of the square frames, in pixels; even, as H.264 wants it."""
    min_seconds: float = 2.8
    """Shortest clip."""
    max_seconds: float = 4.0
    """Longest clip."""
    agreement: float = 0.0
    """How far face and voice tell the same, 0..1. At 0 the face mainly shows the valence and the voice the arousal; at
    1 the face shows both in full, and the voice tells the valence by range, brightness and formants."""
    intensity: float = 1.0
    """Factor of how strongly emotion is shown and heard, 0..3; noise stays what it is."""
    framing: float = 1.0
    """Factor of the head's size in the frame, 0.5..1.6; 1.35 is as tight as a face detector's crop."""

    def __post_init__(self) -> None:
        if self.size % 2 or not 48 <= self.size <= 1024:
            even = min(1024, max(48, self.size + self.size % 2))
            raise ValueError(f"size={self.size} must be even and within 48..1024 pixels; try size={even}")
        for name in ("speakers", "clips_per_speaker"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} makes an empty corpus; give at least 1")
        for name in ("val_speakers", "test_speakers", "unlabelled_speakers", "unlabelled_clips_per_speaker"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")
        if self.val_speakers + self.test_speakers >= self.speakers:
            raise ValueError(
                f"val_speakers={self.val_speakers} and test_speakers={self.test_speakers} leave none of the "
                f"speakers={self.speakers} for training; raise speakers to at least "
                f"{self.val_speakers + self.test_speakers + 1}"
            )
        if not 0.5 <= self.min_seconds <= self.max_seconds <= 60:
            raise ValueError(
                f"min_seconds={self.min_seconds} and max_seconds={self.max_seconds} must satisfy "
                "0.5 <= min_seconds <= max_seconds <= 60"
            )
        for name, low, high in (("agreement", 0, 1), ("intensity", 0, 3), ("framing", 0.5, 1.6)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)} must be within {low}..{high}")


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """What a clip is to be, before it is made."""

    clip_id: str
    speaker_id: str
    emotion: str
    split: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipParts:
    """The parameters of a clip."""

    speaker: Speaker
    performance: Performance
    scene: Scene


def plan_clips(settings: CorpusSettings) -> list[ClipPlan]:
    """Every clip of the corpus, in the manifest's order. Each run of 8 clips of a speaker holds all 8 emotions."""
    plans = []
    labelled = ["train"] * (settings.speakers - settings.val_speakers - settings.test_speakers)
    labelled += ["val"] * settings.val_speakers + ["test"] * settings.test_speakers
    groups = [(f"s{number:04d}", split, settings.clips_per_speaker) for number, split in enumerate(labelled)]
    groups += [
        (f"u{number:04d}", "unlabelled", settings.unlabelled_clips_per_speaker)
        for number in range(settings.unlabelled_speakers)
    ]
    names = list(EMOTIONS)
    for speaker_id, split, clips in groups:
        rng = generator_for(settings.seed, "order", speaker_id)
        order = [int(k) for _ in range(-(-clips // len(names))) for k in rng.permutation(len(names))]
        plans += [
            ClipPlan(clip_id=f"{speaker_id}-{number:03d}", speaker_id=speaker_id, emotion=names[kind], split=split)
            for number, kind in enumerate(order[:clips])
        ]
    return plans


def draw_clip(plan: ClipPlan, settings: CorpusSettings) -> ClipParts:
    """The parameters of a clip, a function of the plan, the seed and the range of lengths."""
    speaker = draw_speaker(settings.seed, plan.speaker_id)
    return ClipParts(
        speaker=speaker,
        performance=draw_performance(
            speaker,
            plan.emotion,
            seed=settings.seed,
            clip_id=plan.clip_id,
            seconds=(settings.min_seconds, settings.max_seconds),
            agreement=settings.agreement,
            intensity=settings.intensity,
        ),
        scene=draw_scene(settings.seed, plan.clip_id, framing=settings.framing),
    )


def render_clip(plan: ClipPlan, settings: CorpusSettings) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 RGB (T, size, size, 3) at 25 a second and sound int16 (640 T,) at 16 kHz."""
    parts = draw_clip(plan, settings)
    frames = render_frames(parts.speaker.look, parts.scene, parts.performance, size=settings.size)
    return frames, synthesise(parts.performance, seed=settings.seed, clip_id=plan.clip_id)


def write_corpus(
    folder: Path | str,
    settings: CorpusSettings,
    *,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make the corpus in ``folder`` and return the path of its manifest.

    ``on_progress`` is called with (clips done, clips in all), first with what an earlier run has left. A folder
    that holds another corpus, or other files, raises ``FileExistsError`` before anything is written.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    folder = Path(folder)
    _claim(folder, settings)
    clips = folder / CLIP_FOLDER
    clips.mkdir(exist_ok=True)
    for leftover in clips.glob(f"*{_PART}"):
        leftover.unlink()
    plans = plan_clips(settings)
    present = {path.name for path in clips.glob("*.mp4")}
    missing = [plan for plan in plans if f"{plan.clip_id}.mp4" not in present]
    done = len(plans) - len(missing)
    if on_progress:
        on_progress(done, len(plans))
    tasks = [(plan, settings, clips / f"{plan.clip_id}.mp4") for plan in missing]
    for _ in _run(tasks, min(workers, len(tasks))):
        done += 1
        if on_progress:
            on_progress(done, len(plans))
    return _write_manifest(folder, plans, settings)


def _run(tasks: list[tuple[ClipPlan, CorpusSettings, Path]], workers: int) -> Iterator[None]:
    if workers <= 1:
        yield from map(_make_clip, tasks)
        return
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    with context.Pool(workers, initializer=obey_signals) as pool:
        yield from pool.imap_unordered(_make_clip, tasks, chunksize=min(8, -(-len(tasks) // (4 * workers))))


def _make_clip(task: tuple[ClipPlan, CorpusSettings, Path]) -> None:
    plan, settings, path = task
    frames, sound = render_clip(plan, settings)
    write_mp4(path, frames, sound)


def write_mp4(path: Path, frames: np.ndarray, sound: np.ndarray) -> None:
    """Encode frames uint8 RGB (T, H, W, 3) at 25 a second and sound int16 (samples,) at 16 kHz, atomically."""
    part = path.with_suffix(_PART)
    with av.open(str(part), "w", format="mp4") as container:
        video = container.add_stream(
            "libx264", rate=FRAMES_PER_SECOND, options={"preset": "ultrafast", "crf": "23", "g": "25"}
        )
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        # One thread: the corpus is parallel over clips, and the bytes do not depend on the machine's cores.
        video.codec_context.thread_count = 1
        audio = container.add_stream(
            "aac", rate=SAMPLE_RATE_HZ, layout="mono", options={"b": "48k", "aac_coder": "fast"}
        )
        block = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        block.sample_rate, block.pts, block.time_base = SAMPLE_RATE_HZ, 0, Fraction(1, SAMPLE_RATE_HZ)
        container.mux(audio.encode(block))
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_SECOND)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        container.mux(audio.encode())
    part.replace(path)


def _claim(folder: Path, settings: CorpusSettings) -> None:
    """Mark the folder as this corpus's, or find that it already is."""
    marker = folder / SETTINGS_FILE
    wanted: dict[str, Any] = {"synthetic": True, "recipe_version": RECIPE_VERSION, **asdict(settings)}
    if marker.exists():
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{marker} is not readable JSON ({error}); remove the folder or choose another") from error
        names = ["recipe_version", *(field.name for field in fields(CorpusSettings))]
        defaults = {name: getattr(CorpusSettings, name) for name in ("agreement", "intensity", "framing")}  # came later
        differing = [
            f"{name}: {found.get(name, defaults.get(name))!r} there, {wanted[name]!r} asked for"
            for name in names
            if found.get(name, defaults.get(name)) != wanted[name]
        ]
        if differing:
            raise FileExistsError(
                f"{folder} holds a corpus made with other settings ({'; '.join(differing)}); "
                "choose another folder, or remove this one, or ask for the same settings to continue it"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty and holds no synthetic corpus; choose a new or an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    _replace_text(marker, json.dumps(wanted, indent=2) + "\n")


def _write_manifest(folder: Path, plans: list[ClipPlan], settings: CorpusSettings) -> Path:
    rows: list[dict[str, str | float]] = []
    for plan in plans:
        video = f"{CLIP_FOLDER}/{plan.clip_id}.mp4"  # as a manifest says it: relative to its own folder
        rows.append(dict(clip_id=plan.clip_id, video=video, subject=plan.speaker_id, split=plan.split))
        if plan.split != "unlabelled":
            performance = draw_clip(plan, settings).performance
            valence, arousal = round(performance.valence, 3), round(performance.arousal, 3)
            rows[-1] |= dict(emotion=plan.emotion, valence=valence, arousal=arousal)
    return write_manifest(folder / MANIFEST_FILE, rows)


def _replace_text(path: Path, text: str) -> None:
    part = path.with_suffix(_PART)
    part.write_text(text, encoding="utf-8")
    part.replace(path)
