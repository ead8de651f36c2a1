"""Clips per second and core of the data pipeline, beside the reference's: ``make bench-data``, or with ``--help``.

Every pipeline works through the same clips in one process on one core, in alternating rounds, and is compared with
the reference's in the same round; CPU time is counted, so a busy machine disturbs the ratios little. Writes data.json,
data.md and data.png. Run it with OMP_NUM_THREADS=1, as ``make`` does: libraries read that when they are loaded.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
import torch

from benchmarks.reference_pipeline import SameTensors, draw, reference_clip
from benchmarks.voxceleb_like import SQUARE, Original, make_originals
from hicmae import __version__
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import PretrainingDraws
from hicmae.data.clip_decoder import ClipDecoder
from hicmae.data.manifest import Clip, read_manifest, write_manifest
from hicmae.data.pipeline import BuildTrainingBatches
from hicmae.data.pixels import Pixels
from hicmae.data.plan import PlannedBatch
from hicmae.data.shard_source import ShardSource
from hicmae.data.shard_writer import write_shards
from hicmae.data.storage import StorageFormat

STORAGES = {
    "original": StorageFormat(square=SQUARE),
    "h264 + aac": StorageFormat(video="h264", audio="aac", square=SQUARE),
    "h264 + flac": StorageFormat(video="h264", audio="flac", square=SQUARE),
    "h264 + wav": StorageFormat(video="h264", audio="wav", square=SQUARE),
    "jpeg + flac": StorageFormat(video="jpeg", audio="flac", square=SQUARE),
    "jpeg + wav": StorageFormat(video="jpeg", audio="wav", square=SQUARE),
}
BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one pipeline reached."""

    name: str
    clips_per_s: float
    """Windows per second of CPU time on one core, the median of the rounds."""
    ratio: float
    """Over the reference in the same round, the median of the rounds."""
    ratio_low: float
    ratio_high: float
    stored_bytes: int
    """Bytes a clip, as stored."""
    shipped_bytes: int
    """Bytes a window, as handed to the training process."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Works through all clips once."""

    name: str
    run: Callable[[int], int]
    """Takes the number of the round; returns the bytes of what it would hand to the training process."""
    windows: int
    """Windows that ``run`` makes."""
    stored_bytes: int


def store(originals: list[Original], folder: Path) -> dict[str, ShardSource]:
    """The clips in every format."""
    rows = [Clip(clip_id=clip.video.stem, video=clip.video, start_s=None) for clip in originals]
    manifest = read_manifest(write_manifest(folder / "manifest.csv", rows))
    sources = {}
    for name, storage in STORAGES.items():
        shards = folder / name.replace(" ", "")
        write_shards(manifest, shards, storage=storage)
        sources[name] = ShardSource(shards)
    return sources


def stored_pipeline(name: str, source: ShardSource, *, pixels: Pixels, windows: int = 1) -> Pipeline:
    """What a worker does: read, decode, draw, and fill the batch's memory."""
    model = ModelConfig.preset("base")
    build = BuildTrainingBatches(
        source=source,
        decode=ClipDecoder(spec=InputSpec.for_model(model), pixels=pixels),
        draws=PretrainingDraws(model=model),
        labels=None,
        seed=0,
        windows_per_clip=windows,
    )
    clips = np.arange(len(source) // BATCH * BATCH).reshape(-1, 1, BATCH)

    def run(number: int) -> int:
        plans = [PlannedBatch(epoch=number, batch=i, clips=clips[i, 0], joint=clips) for i in range(len(clips))]
        shipped = 0
        for group in build(plans):
            assert not any(batch.skipped for batch in group), "a clip could not be decoded"
            shipped += sum(batch.video.numel() + 2 * batch.waveform.numel() for batch in group)
        return shipped

    stored = sum(
        len(clip.video or b"") + len(clip.audio or b"") for clip in (source.read(i) for i in range(len(source)))
    )
    return Pipeline(name=name, run=run, windows=clips.size * windows, stored_bytes=stored // len(source))


def tensor_pipelines(originals: list[Original], spec: InputSpec) -> list[Pipeline]:
    """The reference's pipeline and ours with the same tensors; they are compared first."""
    same = SameTensors(spec)
    worst = 0.0
    for clip in originals:
        drawn = draw(np.random.default_rng(0), clip, spec)
        (video, log_mel), (own_video, own_log_mel) = reference_clip(clip, drawn, spec), same(clip, drawn)
        assert torch.equal(video, own_video), f"{clip.video}: the two pipelines give other pictures"
        worst = max(worst, float((log_mel - own_log_mel).abs().max()))
    assert worst <= SameTensors.LOG_MEL_BOUND, f"the spectrograms differ by {worst}"

    def passing(make: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> Callable[[int], int]:
        def run(number: int) -> int:
            rng = np.random.default_rng(number)
            shipped = 0
            for clip in originals:
                shipped += sum(tensor.numel() * 4 for tensor in make(clip, draw(rng, clip, spec)))
            return shipped

        return run

    stored = sum(clip.video.stat().st_size + clip.sound.stat().st_size for clip in originals) // len(originals)
    count = len(originals)
    return [
        Pipeline(name="reference, re-created", run=passing(lambda c, d: reference_clip(c, d, spec)), windows=count,
                 stored_bytes=stored),
        Pipeline(name="original, the same tensors", run=passing(same), windows=count, stored_bytes=stored),
    ]  # fmt: skip


def measure(pipelines: list[Pipeline], rounds: int) -> list[Row]:
    """Alternate the pipelines; the first is the one that the others are compared with."""
    rates: dict[str, list[float]] = {pipeline.name: [] for pipeline in pipelines}
    shipped: dict[str, int] = {}
    for number in range(rounds + 1):  # the first is not counted
        for pipeline in pipelines:
            started = time.process_time()
            shipped[pipeline.name] = pipeline.run(number) // pipeline.windows
            rate = pipeline.windows / (time.process_time() - started)
            if number:
                rates[pipeline.name].append(rate)
        sys.stderr.write(f"round {number} of {rounds}\n")
    base = rates[pipelines[0].name]
    rows = []
    for pipeline in pipelines:
        own = rates[pipeline.name]
        ratios = [rate / reference for rate, reference in zip(own, base, strict=True)]
        rows.append(
            Row(
                name=pipeline.name,
                clips_per_s=statistics.median(own),
                ratio=statistics.median(ratios),
                ratio_low=min(ratios),
                ratio_high=max(ratios),
                stored_bytes=pipeline.stored_bytes,
                shipped_bytes=shipped[pipeline.name],
            )
        )
    return rows


def resident_kib() -> int:
    """Memory of this process, in KiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def soak(shards: str, decodes: int) -> dict[str, float]:
    """Decode again and again; the growth of memory after the first tenth, in KiB."""
    source = ShardSource(shards)
    pipeline = stored_pipeline("soak", source, pixels="auto")
    done, warm, before = 0, decodes // 10, 0
    while done < decodes:
        pipeline.run(done)
        done += pipeline.windows
        if not before and done >= warm:
            before, warm = resident_kib(), done
    growth = resident_kib() - before
    return {"decodes": done - warm, "growth_kib": growth, "bytes_per_decode": 1024 * growth / max(1, done - warm)}


def table(result: dict) -> str:
    """The results in Markdown."""
    lines = [
        "| pipeline | clips/s/core | over the reference (range) | KiB a clip, stored | KiB a window, shipped |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['name']} | {row['clips_per_s']:.0f} | {row['ratio']:.2f} ({row['ratio_low']:.2f} to "
            f"{row['ratio_high']:.2f}) | {row['stored_bytes'] / 1024:.0f} | {row['shipped_bytes'] / 1024:.0f} |"
        )
    if result["memory"]:
        lines += ["", "| format | decodes | growth of memory | bytes a decode |", "|---|---|---|---|"]
        lines += [
            f"| {name} | {m['decodes']:.0f} | {m['growth_kib']:.0f} KiB | {m['bytes_per_decode']:.0f} |"
            for name, m in result["memory"].items()
        ]
    return "\n".join(lines) + "\n"


def page(result: dict) -> str:
    """The results as a page of the documentation."""
    return f"""# Speed of the data pipeline

`{result["command"]}`, {result["date"]}: {result["machine"]} of a shared virtual machine, torch {result["torch"]},
PyAV {result["av"]}. {result["clips"]} synthetic clips of 224x224 pixels, 25 frames a second, 4 to 8 s, H.264 and AAC;
medians of {result["rounds"]} alternating rounds of processor time. The reference is re-created from its description
(`benchmarks/reference_pipeline.py`). "The same tensors" are asserted: pictures to the bit, log-mel to 1e-4. All other
rows leave cropping, colour normalisation and log-mel to the training device. H.264 is shipped as planar YUV unless RGB
is said.

{table(result)}
![Clips per second on one core, and how often the reference's](data.png)
"""


def figure(result: dict, path: Path) -> None:
    """Clips per second of every pipeline as bars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = result["rows"][::-1]
    chart, axes = plt.subplots(figsize=(8, 0.42 * len(rows) + 1.2), layout="constrained")
    colours = ["#9a9a9a" if row["name"].startswith("reference") else "#2a6f97" for row in rows]
    bars = axes.barh([row["name"] for row in rows], [row["clips_per_s"] for row in rows], color=colours)
    axes.bar_label(bars, [f"{row['clips_per_s']:.0f}  ({row['ratio']:.1f}x)" for row in rows], padding=3)
    axes.set_xlabel("clips per second on one core")
    axes.margins(x=0.18)
    axes.spines[["top", "right"]].set_visible(False)
    chart.savefig(path, dpi=150)
    plt.close(chart)


def main() -> int:
    """Make the clips, store them in every format, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=24, help=f"clips to make; at least {BATCH}")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds; medians are shown")
    parser.add_argument("--decodes", type=int, default=0, help="decode so often per format, to see memory grow; 0: not")
    parser.add_argument("--out", type=Path, default=Path("bench-data"), help="folder for data.json, data.md, data.png")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "hicmae-bench-data",
                        help="folder for the clips, which a later run uses again")  # fmt: skip
    parser.add_argument("--soak", nargs=2, metavar=("SHARDS", "DECODES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.soak:
        json.dump(soak(args.soak[0], int(args.soak[1])), sys.stdout)
        return 0
    if args.clips < BATCH or args.rounds < 1:
        parser.error(f"--clips must be at least {BATCH}, --rounds at least 1")
    spec = InputSpec()
    folder = args.cache / f"{args.clips}-clips"
    originals = make_originals(folder / "originals", args.clips)
    sources = store(originals, folder)
    pipelines = tensor_pipelines(originals, spec)
    pipelines.append(stored_pipeline("original, the rest on the device", sources["original"], pixels="rgb"))
    for name in ("h264 + aac", "h264 + flac", "h264 + wav"):
        pipelines += [
            stored_pipeline(f"{name}, RGB", sources[name], pixels="rgb"),
            stored_pipeline(name, sources[name], pixels="yuv"),
        ]
    pipelines += [stored_pipeline(name, sources[name], pixels="auto") for name in ("jpeg + flac", "jpeg + wav")]
    for windows in (2, 4):
        for name in ("original", "h264 + aac", "jpeg + wav"):
            label = f"{name}, {windows} windows a clip"
            pipelines.append(stored_pipeline(label, sources[name], pixels="auto", windows=windows))
    rows = measure(pipelines, args.rounds)
    memory = {}
    if args.decodes:
        for name, source in sources.items():
            shards = str(Path(source.shard_names[0]).parent)
            command = [sys.executable, "-m", "benchmarks.data", "--soak", shards, str(args.decodes)]
            memory[name] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    result = {
        "command": " ".join(["OMP_NUM_THREADS=1 python -m benchmarks.data", *sys.argv[1:]]),
        "machine": f"{platform.machine()} processor, one core", "hicmae": __version__, "torch": torch.__version__,
        "date": datetime.date.today().isoformat(), "av": av.__version__, "clips": args.clips, "rounds": args.rounds,
        "rows": [asdict(row) for row in rows], "memory": memory,
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "data.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / "data.md").write_text(page(result))
    figure(result, args.out / "data.png")
    sys.stdout.write(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
