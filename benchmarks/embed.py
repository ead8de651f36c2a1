"""What ``hicmae embed`` makes of a machine: ``python -m benchmarks.embed FOLDER``, two minutes with the base size.

Run it with OMP_NUM_THREADS=1. On a processor, seconds are those of processor time, so that a busy machine disturbs them
little; on a GPU, and of whole commands, they are those of the clock. The model is untrained: weights do not change its
time.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.long_video import export_untrained
from benchmarks.voxceleb_like import make_originals
from hicmae.bench.measure import MatrixProduct, timed
from hicmae.flops import recognition_macs
from hicmae.inference.batches import batches_of, model_inputs
from hicmae.inference.embedder import Embedder
from hicmae.inference.items import find_items
from hicmae.inference.windows import ClipWindow, read_windows

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
BATCHES = (1, 2, 8)
GPU_BATCHES = (1, 2, 8, 32, 128)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of processor time, or of the clock on a GPU."""
    if device.type == "cpu":
        began = time.process_time()
        run()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def before_the_model(embedder: Embedder, clips: str) -> tuple[dict[str, float], list[ClipWindow]]:
    """Seconds a window of finding and decoding, and of the model's input; and the windows."""
    windows: list[ClipWindow] = []
    began = time.process_time()
    for item in find_items([clips]):
        with read_windows(item, embedder.spec) as found:
            windows += list(found)
    decoding = time.process_time() - began
    batches = list(batches_of(windows, embedder.settings.batch_size))
    preparing = seconds(lambda: [model_inputs(batch, embedder._transform) for batch in batches], embedder.device)
    return {"decoding_s": decoding / len(windows), "inputs_s": preparing / len(windows)}, windows


def model_rows(embedder: Embedder, windows: list[ClipWindow], rounds: int) -> dict[str, Any]:
    """Seconds a window of the model alone by batch size and precision, in turn with a large matrix product."""
    device = embedder.device
    sizes = BATCHES if device.type == "cpu" else GPU_BATCHES
    full = [windows[place % len(windows)] for place in range(max(sizes))]
    inputs = {size: model_inputs(full[:size], embedder._transform) for size in sizes}
    macs = recognition_macs(embedder.backbone.config)
    features: dict[str, torch.Tensor] = {}

    def run(precision: str, size: int) -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            features[precision] = embedder.backbone(**inputs[size]).pooled.float()

    products = {precision: MatrixProduct(device, dtype) for precision, dtype in PRECISIONS.items()}
    models = {(precision, size): functools.partial(run, precision, size) for precision in PRECISIONS for size in sizes}
    steps = {**products, **{f"{precision} {size}": step for (precision, size), step in models.items()}}
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    # The least of the rounds: whatever else the machine does only adds.
    least = {name: min(taken) for name, taken in timed(steps, rounds=rounds, device=device, clock=clock).items()}
    peaks = {precision: product.flops / least[precision] for precision, product in products.items()}
    rows = []
    for precision, size in models:
        each = least[f"{precision} {size}"] / size
        share = 2 * macs / each / peaks[precision]
        rows.append({"precision": precision, "batch": size, "seconds": each, "share_of_peak": share})
    difference = (features["bf16"] - features["fp32"]).abs().max() / features["fp32"].abs().max()
    cosine = torch.nn.functional.cosine_similarity(features["bf16"], features["fp32"]).min()
    return {
        "gmacs": macs / 1e9,
        "peak_gflops": {precision: peak / 1e9 for precision, peak in peaks.items()},
        "model": rows,
        "bf16_difference": float(difference),
        "bf16_cosine": float(cosine),
    }


def command_rows(clips: str, model: Path, out: Path, device: torch.device, count: int) -> list[dict[str, Any]]:
    """Windows a second of the whole command by the clock, its start included, by workers and precision."""
    command = [sys.executable, "-m", "hicmae", "embed", clips, "--model", str(model), "-o", str(out)]
    rows = []
    for workers in (1, 2) if device.type == "cpu" else (1, 2, 4, 8):
        for precision in PRECISIONS:
            more = ["--device", str(device), "--workers", str(workers), *(["--bf16"] if precision == "bf16" else [])]
            out.unlink(missing_ok=True)
            started = time.perf_counter()
            subprocess.run([*command, *more], check=True, capture_output=True)
            took = time.perf_counter() - started
            rows.append({"workers": workers, "precision": precision, "seconds": took, "windows_per_s": count / took})
    return rows


def page(result: dict[str, Any]) -> str:
    """The same as Markdown."""
    clock = "processor time" if result["device"] == "cpu" else "the clock"
    model = "\n".join(
        f"| {row['precision']} | {row['batch']} | {row['seconds']:.4f} | {row['share_of_peak']:.0%} of "
        f"{result['peak_gflops'][row['precision']]:.0f} GFLOP/s |"
        for row in result["model"]
    )
    commands = "\n".join(
        f"| {row['precision']} | {row['workers']} | {row['seconds']:.1f} | {row['windows_per_s']:.2f} |"
        for row in result["commands"]
    )
    whole = f"""
| the whole command, by the clock, its start included | workers | seconds | windows a second |
|---|---|---|---|
{commands}
"""
    return f"""# Speed of embedding

`{result["command"]}`, {result["date"]}: {result["machine"]}, torch {result["torch"]}, a load of
{result["load_average"]:.1f} at the end. The size {result["preset"]}, {result["gmacs"]:.1f} GMAC a window;
{result["windows"]} windows of {result["clips"]} clips. Seconds are of {clock}, and of the fastest round.

Before the model: {result["decoding_s"]:.4f} s a window for finding and decoding it, {result["inputs_s"]:.4f} s for the
model's input.

| the model alone | batch | seconds a window | share of the measured matrix peak |
|---|---|---|---|
{model}

bfloat16 moves pooled features by {result["bf16_difference"]:.4f} of the largest at most, and their cosine to those of
float32 is at least {result["bf16_cosine"]:.6f}; the model is untrained.
{whole if commands else ""}"""


def main() -> int:
    """Print the page; with ``--out``, write it and its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("folder", type=Path, help="where clips and model go")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--preset", default="base", help="size of the model")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=2, help="counted rounds of the model alone; the fastest is shown")
    parser.add_argument("--no-commands", action="store_true", help="leave out whole commands, on a busy machine")
    parser.add_argument("--out", type=Path, help="folder for embed.json and embed.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(args.device)
    make_originals(args.folder / "clips", args.clips)
    clips = f"{args.folder}/clips/*.mp4"
    model = export_untrained(args.folder / args.preset, args.preset)
    embedder = Embedder.load(model, device=args.device)
    before, windows = before_the_model(embedder, clips)
    result = {
        "command": f"python -m benchmarks.embed FOLDER {' '.join(sys.argv[2:])}".split(" --out")[0].strip(),
        "date": str(date.today()),
        "machine": torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"one core of {os.cpu_count()}, {platform.machine()}",
        "device": device.type,
        "torch": torch.__version__,
        "preset": args.preset,
        "clips": args.clips,
        "windows": len(windows),
        **before,
        **model_rows(embedder, windows, args.rounds),
        "commands": []
        if args.no_commands
        else command_rows(clips, model, args.folder / "embed.parquet", device, len(windows)),
        "load_average": os.getloadavg()[0],
    }
    sys.stdout.write(page(result))
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "embed.json").write_text(json.dumps(result, indent=2) + "\n")
        (args.out / "embed.md").write_text(page(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
