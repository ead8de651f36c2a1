"""Long synthetic videos of talking faces whose valence and arousal change by known curves, laid out as Aff-Wild2:
``python -m hicmae.continuous.synthetic FOLDER``.

The face shows the valence and, less, the arousal; the voice shows the arousal. Both start from the speaker's own rest
and carry noise, as in the synthetic clips of ``hicmae demo-data``.

Shapes: T frames at 25 a second, N control points of the voice.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hicmae.data.synthetic.corpus import write_mp4
from hicmae.data.synthetic.emotions import EMOTIONS, FACE_CUES
from hicmae.data.synthetic.face import render_frames
from hicmae.data.synthetic.performance import FRAMES_PER_SECOND, Performance, draw_performance
from hicmae.data.synthetic.scene import draw_scene
from hicmae.data.synthetic.seeding import generator_for
from hicmae.data.synthetic.speaker import Speaker, draw_speaker
from hicmae.data.synthetic.speech import CONTROL_HZ
from hicmae.data.synthetic.voice import synthesise

ANNOTATIONS, VIDEOS = "VA_Set", "videos"
_COLUMNS = (("sad", "angry"), ("disgust", "fearful"), ("neutral", "surprised"), ("calm", "happy"))
"""Quiet and aroused emotions of the same valence, by ascending valence."""
_NOISE = 0.12
"""Spread of the slow noise in every cue of the face."""


@dataclass(frozen=True, kw_only=True)
class LongClipSettings:
    """Size and contents of the videos; every speaker has one."""

    speakers: int = 12
    """Speakers of train and val together; every fourth is val."""
    test_speakers: int = 3
    """Speakers of the split test."""
    seconds: float = 40.0
    """Length of a video."""
    size: int = 96
    """Side of the square frames, in pixels."""
    seed: int = 0
    """Everything is drawn from this."""
    unlabelled_share: float = 0.05
    """Share of the frames that have no label (-5), in one stretch."""

    def __post_init__(self) -> None:
        if self.speakers < 0 or self.test_speakers < 0 or self.speakers + self.test_speakers < 1:
            raise ValueError(f"speakers={self.speakers}, test_speakers={self.test_speakers}: give at least one in all")
        if self.seconds < 1:
            raise ValueError(f"seconds={self.seconds} must be at least 1")
        if self.size < 16 or self.size % 2:
            raise ValueError(f"size={self.size} must be an even number of pixels, at least 16")


def emotion_curve(rng: np.random.Generator, frames: int, *, fastest_hz: float = 0.12) -> NDArray[np.float64]:
    """A smooth random curve between about -0.9 and 0.9, float64 (T,): sines of random frequency and phase."""
    times = np.arange(frames)[:, None] / FRAMES_PER_SECOND
    frequency, phase = rng.uniform(0.02, fastest_hz, 4), rng.uniform(0, 2 * np.pi, 4)
    curve: NDArray[np.float64] = 0.9 * np.tanh(0.8 * np.sin(2 * np.pi * frequency * times + phase).sum(axis=1))
    return curve


def perform(
    speaker: Speaker, valence: NDArray[np.float64], arousal: NDArray[np.float64], *, seed: int, clip_id: str
) -> Performance:
    """A performance that follows two curves, float64 (T,) each: speech, blinks and head of a neutral clip, with the
    face and the voice moved frame by frame."""
    frames = len(valence)
    seconds = frames / FRAMES_PER_SECOND
    base = draw_performance(speaker, "neutral", seed=seed, clip_id=clip_id, seconds=(seconds, seconds))
    rng = generator_for(seed, "long face", clip_id)
    at = [float(np.mean([EMOTIONS[name].valence for name in pair])) for pair in _COLUMNS]
    quiet, aroused = (np.stack([EMOTIONS[pair[k]].expression() for pair in _COLUMNS]) for k in (0, 1))
    share = np.clip(0.5 + 0.35 * arousal, 0, 1)[:, None]
    shown = np.stack(
        [
            (1 - share[:, 0]) * np.interp(valence, at, quiet[:, cue])
            + share[:, 0] * np.interp(valence, at, aroused[:, cue])
            for cue in range(len(FACE_CUES))
        ],
        axis=1,
    )
    noise = np.stack([emotion_curve(rng, frames, fastest_hz=0.5) for _ in FACE_CUES], axis=1)
    face = np.asarray(speaker.look.rest) + speaker.look.expressivity * shown + _NOISE * noise
    heard = np.interp(np.arange(len(base.pitch_hz)) * FRAMES_PER_SECOND / CONTROL_HZ, np.arange(frames), arousal)
    gain = speaker.voice.expressivity
    return replace(
        base,
        valence=float(valence.mean()),
        arousal=float(arousal.mean()),
        face=face,
        pitch_hz=base.pitch_hz * 2 ** (3.6 * gain * heard / 12),
        gain=base.gain * 10 ** (6.0 * gain * heard / 20),
        tilt_db_per_octave=base.tilt_db_per_octave + 2.4 * gain * heard,
        face_cues=face.mean(axis=0),
    )


def write_long_clips(folder: Path, settings: LongClipSettings) -> Path:
    """Make the videos with an annotation each, and ``test_names.txt``. Returns the folder of the annotations.

    The test videos have annotations too, in ``Test_Set``, as their truth is known here. Videos that are there are
    kept.

    Raises:
        FileExistsError: the folder holds videos of other settings, whose labels would be others.
    """
    annotations = folder / ANNOTATIONS
    made_by, text = folder / "settings.json", json.dumps(asdict(settings), indent=2) + "\n"
    if made_by.is_file() and made_by.read_text() != text:
        raise FileExistsError(
            f"{folder} holds videos of other settings ({made_by}); choose another folder, or remove it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    made_by.write_text(text)
    (folder / VIDEOS).mkdir(parents=True, exist_ok=True)
    total = settings.speakers + settings.test_speakers
    for number in range(total):
        test = number >= settings.speakers
        part = "Test_Set" if test else "Validation_Set" if number % 4 == 3 else "Train_Set"
        name = f"{number + 1}-{FRAMES_PER_SECOND}-{settings.size}x{settings.size}"
        frames = round(settings.seconds * FRAMES_PER_SECOND)
        rng = generator_for(settings.seed, "long clip", name)
        valence, arousal = emotion_curve(rng, frames), emotion_curve(rng, frames)
        labels = np.stack([valence, arousal], axis=1)
        hidden = round(settings.unlabelled_share * frames)
        if hidden:
            first = int(rng.integers(frames - hidden))
            labels[first : first + hidden] = -5
        path = annotations / part / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("valence,arousal\n" + "".join(f"{v:.4g},{a:.4g}\n" for v, a in labels))
        video = folder / VIDEOS / f"{name}.mp4"
        if video.is_file():
            continue
        speaker = draw_speaker(settings.seed, f"long{number:03d}")
        performance = perform(speaker, valence, arousal, seed=settings.seed, clip_id=name)
        pictures = render_frames(speaker.look, draw_scene(settings.seed, name), performance, size=settings.size)
        write_mp4(video, pictures, synthesise(performance, seed=settings.seed, clip_id=name))
    return annotations


def main(argv: Sequence[str] | None = None) -> int:
    """Make the videos; returns the exit status."""
    default = LongClipSettings()
    parser = argparse.ArgumentParser(
        prog="python -m hicmae.continuous.synthetic",
        description="Long synthetic videos with known valence and arousal, laid out as Aff-Wild2.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where to write them")
    parser.add_argument(
        "--speakers", type=int, default=default.speakers, help="speakers of train and val, one video each"
    )
    parser.add_argument("--test-speakers", type=int, default=default.test_speakers, help="speakers of the test")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="length of a video")
    parser.add_argument("--size", type=int, default=default.size, help="side of the frames in pixels")
    parser.add_argument("--seed", type=int, default=default.seed, help="everything is drawn from this")
    args = vars(parser.parse_args(argv))
    folder = args.pop("folder")
    try:
        write_long_clips(folder, LongClipSettings(**args))
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))
    sys.stdout.write(f"{folder / ANNOTATIONS} and {folder / VIDEOS}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
