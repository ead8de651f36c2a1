"""What a training step and a decoded clip cost on this machine: ``make bench``, or with ``--help`` for more.

Synthetic inputs, medians over repeated steps. Written to stdout as a table and, with ``--out``, as JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from hicmae import __version__
from hicmae.backbone import Backbone
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.synthetic.corpus import CorpusSettings, plan_clips, render_clip, write_mp4
from hicmae.heads import categorical
from hicmae.masking import random_mask, tube_mask
from hicmae.media.batch_transform import BatchTransform
from hicmae.media.decode import decode_clip
from hicmae.pretraining import HiCMAE
from hicmae.recognition import EmotionRecognizer


def seconds(run: Callable[[], object], *, repeats: int, device: torch.device) -> list[float]:
    """Wall seconds of each of ``repeats`` calls, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return times[1:]


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measured FLOP/s of a large matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / min(seconds(lambda: a @ a, repeats=5, device=device))


def bench_decode(spec: InputSpec, decoder: str, *, repeats: int) -> list[float]:
    """Seconds per decoded window of a 224-pixel synthetic clip."""
    import tempfile
    from pathlib import Path

    settings = CorpusSettings(size=224, speakers=3, val_speakers=1, test_speakers=1, unlabelled_speakers=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_mp4(path, *render_clip(plan_clips(settings)[0], settings))
        data = io.BytesIO(path.read_bytes()).getvalue()
    rng = np.random.default_rng(0)

    def one() -> object:
        return decode_clip(data, spec=spec, position=rng.random(), decoder=decoder, name="clip")  # type: ignore[arg-type]

    return seconds(one, repeats=repeats, device=torch.device("cpu"))


def main() -> int:
    """Run the stages and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="small", help="micro, mini, tiny, small, base or large")
    parser.add_argument("--batch", type=int, default=4, help="clips per step")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps; the median is shown")
    parser.add_argument("--out", help="JSON file to write")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config = ModelConfig.preset(args.preset)
    spec, batch = InputSpec.for_model(config), args.batch
    rng = np.random.default_rng(0)

    def masks(draw: Callable[[], np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack([draw() for _ in range(batch)])).to(device)

    video_visible = masks(lambda: tube_mask(rng, config.video_grid, 0.9))
    audio_visible = masks(lambda: random_mask(rng, config.audio_tokens, 0.8))
    side = config.image_size
    frames = torch.randint(0, 256, (batch, 16, side, side, 3), dtype=torch.uint8, device=device)
    waveform = torch.randint(-3000, 3000, (batch, spec.audio_samples), dtype=torch.int16, device=device)
    transform = BatchTransform(spec).to(device)
    video, log_mel = transform(frames, waveform)
    pretraining = HiCMAE(config, spec=spec).to(device)
    recognizer = EmotionRecognizer(Backbone(config), categorical(6)).to(device)

    def pretrain_step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = pretraining(video, log_mel, video_visible, audio_visible).loss
        loss.backward()
        pretraining.zero_grad(set_to_none=True)

    def finetune_step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = recognizer(video, log_mel).logits
        assert logits is not None
        logits.logsumexp(-1).sum().backward()
        recognizer.zero_grad(set_to_none=True)

    stages: dict[str, tuple[list[float], int]] = {
        "decode, PyAV (one core)": (bench_decode(spec, "pyav", repeats=5 * args.repeats), 1),
        "crop, normalise, log-mel": (
            seconds(lambda: transform(frames, waveform), repeats=args.repeats, device=device),
            batch,
        ),
        "pre-training, forward + backward": (seconds(pretrain_step, repeats=args.repeats, device=device), batch),
        "fine-tuning, forward + backward": (seconds(finetune_step, repeats=args.repeats, device=device), batch),
    }
    result = {
        "machine": torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} processor",
        "threads": torch.get_num_threads(), "preset": args.preset, "batch": batch, "dtype": str(dtype),
        "hicmae": __version__, "torch": torch.__version__,
        "matrix_tflops": matrix_peak(device, dtype) / 1e12,
        "clips_per_s": {name: clips / statistics.median(times) for name, (times, clips) in stages.items()},
        "ms_median": {name: 1000 * statistics.median(times) for name, (times, _) in stages.items()},
    }  # fmt: skip
    sys.stdout.write(
        f"{result['machine']}, {result['threads']} threads, {args.preset}, batch {batch}, {dtype}; "
        f"large matrix product {result['matrix_tflops']:.2f} TFLOP/s\n\n"
    )
    for name, (times, clips) in stages.items():
        median = statistics.median(times)
        spread = f"{1000 * min(times):.0f}..{1000 * max(times):.0f}"
        sys.stdout.write(f"{name:<36}{1000 * median:>9.1f} ms ({spread}){clips / median:>10.1f} clips/s\n")
    if args.out:
        with open(args.out, "w") as file:  # noqa: PTH123
            json.dump(result, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
