"""Where the time of ``hicmae embed`` goes, beside the model alone: ``python -m benchmarks.embed FOLDER``.

Run it with OMP_NUM_THREADS=1. Processor time is counted, so a busy machine disturbs the figures little. The model is
untrained: weights do not change its time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.long_video import export_untrained
from benchmarks.voxceleb_like import make_originals
from hicmae.inference.batches import batches_of, model_inputs
from hicmae.inference.embedder import Embedder
from hicmae.inference.items import find_items
from hicmae.inference.windows import read_windows
from hicmae.media.batch_transform import BatchTransform


def main() -> int:
    """Print, as JSON, windows and seconds of processor time a window."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("folder", type=Path, help="where clips and model go")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--preset", default="base", help="size of the model")
    args = parser.parse_args()
    torch.set_num_threads(1)
    make_originals(args.folder / "clips", args.clips)
    clips = f"{args.folder}/clips/*.mp4"
    model = export_untrained(args.folder / args.preset, args.preset)
    out = args.folder / "embed.parquet"

    embedder = Embedder.load(model)
    transform = BatchTransform(embedder.spec)
    items = find_items([clips])
    began = time.process_time()
    batches = []
    for item in items:
        with read_windows(item, embedder.spec) as windows:
            batches += list(batches_of(windows, embedder.settings.batch_size))
    count = sum(map(len, batches))
    decoding = (time.process_time() - began) / count
    began = time.process_time()
    inputs = [model_inputs(batch, transform) for batch in batches]
    preparing = (time.process_time() - began) / count
    began = time.process_time()
    with torch.inference_mode():
        for batch in inputs:
            embedder.backbone(**batch)
    alone = (time.process_time() - began) / count

    command = [sys.executable, "-m", "hicmae", "embed", clips, "--model", str(model), "-o", str(out), "--workers"]
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), {}
    for workers in (1, 2):
        out.unlink(missing_ok=True)
        started = time.perf_counter()
        subprocess.run([*command, str(workers)], check=True, capture_output=True)
        wall[workers] = time.perf_counter() - started
        if workers == 1:  # it does all the work itself
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / count
    figures = {
        "windows": count,
        "decoding_s": decoding,
        "inputs_s": preparing,
        "model_alone_s": alone,
        "command_s": total,
        "windows_per_s_of_1_process": count / wall[1],
        "windows_per_s_of_2_processes": count / wall[2],
        "load_average": os.getloadavg()[0],
    }
    sys.stdout.write(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
