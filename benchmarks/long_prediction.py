"""Memory and time of ``hicmae predict`` on an hour of 1080p: ``python benchmarks/long_prediction.py``.

Needs the extra ``dev``. Makes the hour in a temporary folder, of a face that moves, by repeating twenty seconds of it
at ``--fps`` frames a second (few, to save time; memory hardly depends on it), with sound. Then predicts it with a micro
model of random weights, in a process of its own, without and with ``--faces``. Prints a line each: memory at its peak,
and seconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.face_clips import Actor, hopper, restless, write_clip
from hicmae.backbone import Backbone
from hicmae.checkpoint import save_export
from hicmae.config import InputSpec, ModelConfig
from hicmae.heads import Targets
from hicmae.recognition import EmotionRecognizer

WIDTH, HEIGHT = 1920, 1080
SHORT_S = 20
RATE_HZ = 16_000


def write_hour(path: Path, seconds: int, fps: int) -> None:
    """Repeat the packets of a short clip under new times, beside a quiet noise."""
    short = path.with_name("short.mp4")
    write_clip(short, [Actor(photo=hopper(), motion=restless(WIDTH, HEIGHT, side=320))],
               seconds=SHORT_S, fps=fps, width=WIDTH, height=HEIGHT, crf=20)  # fmt: skip
    with av.open(str(short)) as source, av.open(str(path), "w") as output:
        picture = source.streams.video[0]
        packets = [packet for packet in source.demux(picture) if packet.dts is not None]
        video = output.add_stream_from_template(picture)
        sound = output.add_stream("aac", rate=RATE_HZ, layout="mono")
        assert picture.time_base is not None
        length = round(SHORT_S / picture.time_base)
        times = [(packet.pts, packet.dts) for packet in packets]
        for turn in range(seconds // SHORT_S):
            for packet, (pts, dts) in zip(packets, times, strict=True):
                packet.pts, packet.dts, packet.stream = pts + turn * length, dts + turn * length, video
                output.mux(packet)
            noise = np.random.default_rng(turn).normal(0, 300, (1, SHORT_S * RATE_HZ)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, turn * SHORT_S * RATE_HZ, Fraction(1, RATE_HZ)
            output.mux(sound.encode(frame))
        output.mux(sound.encode(None))


def measure(command: list[str]) -> tuple[float, float]:
    """Peak memory in GB, of the process and those it starts, and seconds."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return usage.ru_maxrss * 1024 / 1e9, time.monotonic() - begun


def main() -> None:
    """Make the file, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--fps", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = ModelConfig.preset("micro")
        targets = Targets(classes=("angry", "happy", "neutral", "sad"), dimensions=("valence", "arousal"))
        model = EmotionRecognizer(Backbone(config), targets)
        save_export(folder / "micro", model, spec=InputSpec.for_model(config), provenance={})
        write_hour(folder / "hour.mp4", args.minutes * 60, args.fps)
        size = (folder / "hour.mp4").stat().st_size / 1e9
        sys.stdout.write(f"{args.minutes} min of {WIDTH} x {HEIGHT} at {args.fps} fps, {size:.2f} GB\n")
        for options in ([], ["--faces"]):
            command = [sys.executable, "-m", "hicmae", "predict", str(folder / "hour.mp4"), "--model",
                       str(folder / "micro"), "-o", str(folder / "out.csv"), *options]  # fmt: skip
            peak, seconds = measure(command)
            sys.stdout.write(f"{' '.join(options) or 'whole picture':>13}: peak {peak:.2f} GB, {seconds:.0f} s\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
