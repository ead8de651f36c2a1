"""Clips as VoxCeleb2 has them: 224 x 224, 25 fps, H.264 with B-frames and long groups of pictures, AAC at 16 kHz.

Synthetic talking faces of 4 to 8 s at about 250 kbit/s. Beside each film lies its sound as a WAV file, which is what
the reference reads.
"""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from hicmae.config import InputSpec
from hicmae.data.synthetic.corpus import CorpusSettings, plan_clips, render_clip
from hicmae.media.decode import decode_clip, probe

FRAMES_PER_SECOND, SAMPLE_RATE_HZ = 25, 16_000
SQUARE = (0, 32, 160)
"""What the reference cuts from VoxCeleb2's frames: rows 0 to 160, columns 32 to 192."""


@dataclass(frozen=True, kw_only=True)
class Original:
    """A clip of the benchmark."""

    video: Path
    sound: Path
    frames: int


def make_originals(folder: Path, count: int) -> list[Original]:
    """``count`` clips in ``folder``; those that lie there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = CorpusSettings(
        speakers=count, val_speakers=0, test_speakers=0, unlabelled_speakers=0, clips_per_speaker=1, size=224,
        min_seconds=4.0, max_seconds=8.0,
    )  # fmt: skip
    originals = []
    for plan in plan_clips(settings):
        video, sound = folder / f"{plan.clip_id}.mp4", folder / f"{plan.clip_id}.wav"
        if not sound.exists():
            video.write_bytes(_film(*render_clip(plan, settings)))
            _extract_sound(video, sound)
        frames = round(probe(video, name=video.name).duration_s * FRAMES_PER_SECOND)
        originals.append(Original(video=video, sound=sound, frames=frames))
    return originals


def _film(frames: np.ndarray, sound: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        picture = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"preset": "medium", "b": "200k"})
        picture.height, picture.width = frames.shape[1:3]
        picture.pix_fmt = "yuv420p"
        picture.codec_context.thread_count = 1
        voice = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono", options={"b": "48k"})
        block = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        block.sample_rate, block.pts, block.time_base = SAMPLE_RATE_HZ, 0, Fraction(1, SAMPLE_RATE_HZ)
        packets = [*voice.encode(block), *voice.encode(None)]
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_SECOND)
            packets += picture.encode(frame)
        packets += picture.encode(None)
        for packet in sorted(packets, key=lambda p: float(p.dts * p.time_base)):
            container.mux(packet)
    return buffer.getvalue()


def _extract_sound(video: Path, sound: Path) -> None:
    """The film's own sound, decoded, as VoxCeleb2's users extract it."""
    data = video.read_bytes()
    seconds = probe(video, name=video.name).duration_s
    clip = decode_clip(data, spec=InputSpec(image_size=16, audio_seconds=seconds), position=0.0, name=video.name)
    part = sound.with_suffix(".part")
    with wave.open(str(part), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        file.writeframes(clip.waveform.tobytes())
    part.replace(sound)
