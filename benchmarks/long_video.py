"""Peak memory of ``hicmae embed`` on an hour of 1080p: ``python -m benchmarks.long_video FOLDER``.

The hour is a short clip whose packets are written again and again with later time stamps, so it is made in seconds and
is read like any other. The model is untrained: weights change neither memory nor time.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

FPS, RATE_HZ, CLIP_S = 25, 48_000, 8


def write_short_clip(path: Path, *, width: int = 1920, height: int = 1080, bits_per_s: int = 6_000_000) -> Path:
    """Some seconds of moving noise with two channels of noise."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (height // 8 + 64, width // 8 + 64, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as output:
        picture: Any = output.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        picture.width, picture.height, picture.pix_fmt, picture.bit_rate = width, height, "yuv420p", bits_per_s
        sound: Any = output.add_stream("aac", rate=RATE_HZ, layout="stereo")
        for number in range(FPS * CLIP_S):
            shift = 2 * number
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(texture[shift : shift + height, shift : shift + width]), format="rgb24"
            )
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            output.mux(picture.encode(frame))
        noise = (rng.normal(0, 0.1, (2, RATE_HZ * CLIP_S))).astype(np.float32)
        for begin in range(0, noise.shape[1], 1024):
            part: Any = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(noise[:, begin : begin + 1024]), format="fltp", layout="stereo"
            )
            part.sample_rate, part.pts, part.time_base = RATE_HZ, begin, Fraction(1, RATE_HZ)
            output.mux(sound.encode(part))
        output.mux(picture.encode(None))
        output.mux(sound.encode(None))
    return path


def write_long_video(clip: bytes, path: Path, *, seconds: float, clip_s: float) -> Path:
    """The packets of a clip of ``clip_s`` seconds again and again, until there are ``seconds``."""
    with av.open(io.BytesIO(clip)) as source, av.open(str(path), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        for number in range(int(np.ceil(seconds / clip_s))):
            source.seek(0)
            for packet in source.demux():
                # What sound the encoder adds before the begin and after the end would lie in the next round.
                if packet.pts is None or not 0 <= packet.pts * packet.time_base < clip_s:
                    continue
                shift = round(number * clip_s / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = streams[packet.stream_index]
                output.mux(packet)
    return path


def main() -> int:
    """Make what is missing in the folder, embed it in a process of its own, and print what that took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the video goes; two gigabytes and more")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--preset", default="base", help="size of the model")
    parser.add_argument("--hop-s", type=float, help="seconds between windows; default: side by side")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    video = args.folder / f"{args.minutes:g}_minutes.mp4"
    if not video.exists():
        clip = write_short_clip(args.folder / "clip.mp4").read_bytes()
        draft = write_long_video(clip, args.folder / "draft.mp4", seconds=args.minutes * 60, clip_s=CLIP_S)
        draft.replace(video)
    model = _export(args.folder / args.preset, args.preset)
    out = args.folder / "out.parquet"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "hicmae", "embed", str(video), "--model", str(model), "-o", str(out)]
    began = time.perf_counter()
    done = subprocess.run([*command, *(["--hop-s", str(args.hop_s)] if args.hop_s else [])], check=True,
                          capture_output=True, text=True)  # fmt: skip
    figures = {
        "file_gb": round(video.stat().st_size / 1e9, 2),
        "peak_resident_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6),
        "seconds": round(time.perf_counter() - began),
        "said": done.stdout.strip(),
    }
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return 0


def _export(folder: Path, preset: str) -> Path:
    from hicmae.backbone import Backbone
    from hicmae.checkpoint import save_export
    from hicmae.config import InputSpec, ModelConfig

    config = ModelConfig.preset(preset)
    spec = InputSpec.for_model(config)
    return save_export(folder, Backbone(config), spec=spec, provenance={"job": "none: untrained"})


if __name__ == "__main__":
    sys.exit(main())
