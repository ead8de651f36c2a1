"""What each optimisation of the training step gives, predicted and measured: ``python -m benchmarks.optimisations``.

The library's step takes turns with steps that lack one optimisation each, or have one that was tried and not kept
(``benchmarks/plain.py``), on the same weights and the same synthetic batch: ratios are taken within a round. Prints a
table; writes ``optimisations.json``, ``.md`` and ``.png`` into ``--out``.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import datetime
import gc
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.plain import Cost, Variant, variants
from hicmae import __version__
from hicmae.bench.batch import SyntheticBatch
from hicmae.bench.measure import Spread, matrix_peak, synchronize, timed
from hicmae.bench.settings import BenchSettings, one_device
from hicmae.bench.steps import TrainingSteps, finetuning_steps, pretraining_steps

LIBRARY = "the library's step"
STAGES: dict[str, tuple[str, Callable[..., TrainingSteps]]] = {
    "pretrain": ("Pre-training", pretraining_steps),
    "finetune": ("Fine-tuning", finetuning_steps),
}
SMALL = 0.01
"""Changes of a step's time below this are called none."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A step."""

    name: str
    kind: str
    """``library``, or as ``Variant.kind``."""
    ms: float
    """Median."""
    clips_per_s: float
    ratio: float
    """Time over that of the library's step in the same round: median, least, greatest."""
    ratio_low: float
    ratio_high: float
    predicted_ratio: float | None
    kept_bytes: int | None
    """From the forward pass for the backward pass, parameters aside; ``None`` where it was not counted."""
    predicted_kept_bytes: float | None
    peak_bytes: int | None
    """Most memory allocated on a GPU; ``None`` on a processor, whose process keeps what it was once given."""


class Peak:
    """A step that notes by how much memory rises within it: the least of all calls, which other allocations do not
    raise."""

    def __init__(self, step: Callable[[], object], device: torch.device) -> None:
        self._step, self._device = step, device
        self.bytes: int | None = None

    def __call__(self) -> None:
        if self._device.type != "cuda":
            self._step()
            return
        torch.cuda.reset_peak_memory_stats(self._device)
        self._step()
        most = torch.cuda.max_memory_allocated(self._device)
        self.bytes = most if self.bytes is None else min(self.bytes, most)


def kept_bytes(steps: TrainingSteps) -> int:
    """What a step keeps from the forward pass for the backward pass, parameters aside."""
    weights = {p.untyped_storage().data_ptr() for p in steps.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        steps.forward_backward()
    return sum(kept.values())


def bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of copies into new memory, as most operators between products write."""
    x = torch.ones(2**25 if device.type == "cpu" else 2**28, device=device)
    return 2 * x.nbytes / min(timed({"": x.clone}, rounds=5, device=device)[""])


def measure(stage: str, settings: BenchSettings, *, flops: float, bytes_per_s: float) -> list[Row]:
    """The library's step and all variants, in turns."""
    device = settings.torch_device
    batch = SyntheticBatch.make(settings.config, settings.batch, device)
    steps = STAGES[stage][1](settings, batch)
    chosen: list[Variant] = variants(stage, on_gpu=settings.on_gpu)  # type: ignore[arg-type]

    def with_variant(variant: Variant) -> Callable[[], object]:
        def step() -> None:
            with variant.applied(steps, batch):
                steps.whole()
                synchronize(device)

        return step

    runs = {LIBRARY: Peak(steps.whole, device)}
    runs |= {variant.name: Peak(with_variant(variant), device) for variant in chosen}
    steps.whole()
    kept = {LIBRARY: kept_bytes(steps)}
    for variant in chosen:
        with variant.applied(steps, batch):
            kept[variant.name] = kept_bytes(steps)
    taken = timed(
        runs, rounds=settings.rounds, device=device, seconds=settings.seconds, warmup=2 * settings.on_gpu,
        # Other processes do not count, where one thread does all the work.
        clock=time.process_time if settings.one_thread else time.perf_counter,
    )  # fmt: skip
    costs = {variant.name: variant.cost(settings.config, batch) for variant in chosen}
    kinds = {variant.name: variant.kind for variant in chosen}
    return rows(
        taken, batch=settings.batch, kinds=kinds, costs=costs, kept=kept, flops=flops, bytes_per_s=bytes_per_s,
        peaks={name: run.bytes for name, run in runs.items()},
    )  # fmt: skip


def rows(
    taken: Mapping[str, Sequence[float]],
    *,
    batch: int,
    kinds: Mapping[str, str],
    costs: Mapping[str, Cost] | None = None,
    kept: Mapping[str, int] | None = None,
    peaks: Mapping[str, int | None] | None = None,
    flops: float = 1.0,
    bytes_per_s: float = 1.0,
) -> list[Row]:
    """Rows of a table from seconds of each round."""
    costs, kept, peaks = costs or {}, kept or {}, peaks or {}
    result = []
    library = Spread.of(taken[LIBRARY]).median
    for name, seconds in taken.items():
        ratio = Spread.of([a / b for a, b in zip(seconds, taken[LIBRARY], strict=True)])
        cost, median = costs.get(name), Spread.of(seconds).median
        more = None if cost is None or cost == Cost() else 2 * cost.macs / flops + cost.bytes / bytes_per_s
        result.append(
            Row(
                name=name, kind=kinds.get(name, "library"), ms=1000 * median, clips_per_s=batch / median,
                ratio=ratio.median, ratio_low=ratio.low, ratio_high=ratio.high,
                predicted_ratio=None if more is None else 1 + more / library,
                kept_bytes=kept.get(name), peak_bytes=peaks.get(name),
                predicted_kept_bytes=None if cost is None or not cost.kept else kept[LIBRARY] + cost.kept,
            )
        )  # fmt: skip
    return result


def measure_compiled(stage: str, settings: BenchSettings) -> list[Row]:
    """Compiled steps in turns with the library's, which is not: minutes of compilation come first."""
    batch = SyntheticBatch.make(settings.config, settings.batch, settings.torch_device)
    make = STAGES[stage][1]
    runs = {LIBRARY: make(dataclasses.replace(settings, compile="off"), batch).whole}
    runs |= {
        f"compiled: {how}": make(dataclasses.replace(settings, compile=how), batch).whole for how in ("blocks", "whole")
    }
    taken = timed(runs, rounds=settings.rounds, device=settings.torch_device, seconds=settings.seconds, warmup=3)
    return rows(taken, batch=settings.batch, kinds=dict.fromkeys(runs, "option") | {LIBRARY: "library"})[1:]


def measure_allocator(stage: str, settings: BenchSettings) -> list[Row]:
    """glibc told never to give memory back to the system, in another process: it cannot be untold."""
    if settings.on_gpu or not hasattr(ctypes.CDLL(None), "mallopt"):
        return []
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_with_tuned_allocator, (stage, settings))


def _with_tuned_allocator(stage: str, settings: BenchSettings) -> list[Row]:
    torch.set_num_threads(settings.threads)
    tune = ctypes.CDLL(None).mallopt
    batch = SyntheticBatch.make(settings.config, settings.batch, settings.torch_device)
    steps, name = STAGES[stage][1](settings, batch), "memory never given back (mallopt)"
    taken = timed({LIBRARY: steps.whole}, rounds=settings.rounds, device=settings.torch_device)
    trim_threshold, most_mapped = -1, -4  # names of malloc.h
    tune(trim_threshold, 2**31 - 1)
    tune(most_mapped, 0)
    taken[name] = timed({name: steps.whole}, rounds=settings.rounds, device=settings.torch_device)[name]
    return rows(taken, batch=settings.batch, kinds={name: "tried"})[1:]


# ---------------------------------------------------------------- what comes out


def _mb(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:,.0f}"


def table(stage: Mapping[str, Any]) -> str:
    """The steps of a stage in Markdown."""
    said = {"library": "", "without": "not optimised: ", "option": "on request: ", "tried": "tried: "}
    lines = [
        "| step | clips/s | time over the library's (range) | predicted | kept, MB | predicted | peak, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in stage["rows"]:
        cells = (
            said[row["kind"]] + row["name"],
            f"{row['clips_per_s']:.2f}",
            f"{row['ratio']:.3f} ({row['ratio_low']:.3f} to {row['ratio_high']:.3f})",
            "" if row["predicted_ratio"] is None else f"{row['predicted_ratio']:.3f}",
            *(_mb(row[name]) for name in ("kept_bytes", "predicted_kept_bytes", "peak_bytes")),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def verdict(stage: Mapping[str, Any]) -> str:
    """In words: what made no difference, and what that was tried made the step slower."""
    others = [row for row in stage["rows"] if row["kind"] != "library"]
    none = [row["name"] for row in others if abs(row["ratio"] - 1) < SMALL]
    slower = [row["name"] for row in others if row["kind"] == "tried" and row["ratio"] >= 1 + SMALL]
    faster = [row["name"] for row in others if row["kind"] == "tried" and row["ratio"] <= 1 - SMALL]
    sentences = [f"Within {SMALL:.0%} of the library's step: {'; '.join(none) or 'none'}."]
    sentences += [f"Tried, and slower: {'; '.join(slower)}."] if slower else []
    sentences += [f"Tried, and faster here: {'; '.join(faster)}."] if faster else []
    return " ".join(sentences)


def page(result: Mapping[str, Any]) -> str:
    """The results as a page of the documentation."""
    sections = "\n".join(
        f"## {STAGES[name][0]}, batch {stage['batch']}\n\n{table(stage)}\n{verdict(stage)}\n"
        for name, stage in result["stages"].items()
    )
    return f"""# What each optimisation gives

`{result["command"]}`, {result["date"]}: {result["machine"]}, {result["threads"]} threads, torch {result["torch"]},
HiCMAE {result["hicmae"]}, preset {result["preset"]}, {result["precision"]}. A large matrix product runs at
{result["matrix_gflops"]:,.0f} GFLOP/s and a copy at {result["copy_gb_per_s"]:.1f} GB/s here; load average at the start
{result["load_average"]:.1f}.

The library's step takes turns with steps that lack one optimisation each, on the same weights and batch; every step is
the whole one: forward, loss, backward, AdamW. A figure above 1 is how many times longer a step takes without the
optimisation. All steps have the same losses and gradients, which a test holds them to. Predictions come from what a
variant has more in multiply-adds and in bytes beside matrix products, at the two speeds above
(`benchmarks/plain.py`); what a step keeps from its forward for its backward pass is counted, not estimated.

{sections}
"Last decoder layer for all tokens": nobody reads the visible tokens after a decoder's last block. "Mask tokens' q, k, v
computed once": before any attention a mask token is the same in all clips, so the decoder's first projection of it
could be shared; for that, its results have to be looked up and joined. "Memory never given back" is measured after the
others, not in turns, and in a process of its own.

![Time of each step, and what it keeps for the backward pass, over that of the library's step](optimisations.png)
"""


def figure(result: Mapping[str, Any], path: Path) -> None:
    """Bars of time and of what is kept, over the library's step; rings where they were predicted."""
    from hicmae.figures.canvas import plt, save_figure

    stages = result["stages"]
    heights = [len(stage["rows"]) for stage in stages.values()]
    chart, axes = plt.subplots(
        len(stages), 2, figsize=(11, 0.4 * sum(heights) + 1.2), layout="constrained", squeeze=False,
        height_ratios=heights, sharex="col",
    )  # fmt: skip
    colours = {"library": "#9a9a9a", "without": "#2a6f97", "option": "#228833", "tried": "#ccaa44"}
    for (name, stage), (of_time, of_kept) in zip(stages.items(), axes, strict=True):
        listed = stage["rows"][::-1]
        labels = [row["name"] for row in listed]
        library = next(row for row in listed if row["kind"] == "library")
        for side, values, predictions in (
            (of_time, [row["ratio"] for row in listed], [row["predicted_ratio"] for row in listed]),
            (
                of_kept,
                [_over(row["kept_bytes"], library["kept_bytes"]) for row in listed],
                [_over(row["predicted_kept_bytes"], library["kept_bytes"]) for row in listed],
            ),
        ):
            side.barh(labels, [v or 0 for v in values], color=[colours[row["kind"]] for row in listed])
            for y, (value, predicted) in enumerate(zip(values, predictions, strict=True)):
                if value is not None:
                    end = max(value, predicted or 0, listed[y]["ratio_high"] if side is of_time else 0)
                    side.annotate(f"{value:.2f}", (end, y), (6, 0), textcoords="offset points", va="center", fontsize=8)
            places = [(p, y) for y, p in enumerate(predictions) if p is not None]
            if places:
                side.scatter(*zip(*places, strict=True), s=30, facecolors="white", edgecolors="0.2", zorder=3)
            side.axvline(1, color="0.5", lw=0.8, zorder=0)
            side.spines[["top", "right"]].set_visible(False)
            side.tick_params(labelsize=8)
            side.margins(x=0.15)
        of_time.errorbar(
            [row["ratio"] for row in listed], range(len(listed)), fmt="none", ecolor="0.2", lw=1,
            xerr=[[r["ratio"] - r["ratio_low"] for r in listed], [r["ratio_high"] - r["ratio"] for r in listed]],
        )  # fmt: skip
        of_kept.set_yticks([])
        of_time.set_title(
            f"{STAGES[name][0]}, batch {stage['batch']}: {library['clips_per_s']:.2f} clips/s", fontsize=9
        )
        of_kept.set_title(f"the library's step keeps {library['kept_bytes'] / 1e6:,.0f} MB", fontsize=9)
    axes[-1][0].set_xlabel("time over the library's step (line: range)", fontsize=8)
    axes[-1][1].set_xlabel("kept for the backward pass over the library's step", fontsize=8)
    chart.suptitle(
        f"{result['preset']}, {result['precision']}, {result['machine']}. Blue: without an optimisation. Green: on "
        "request. Yellow: tried. Rings: predicted.",
        fontsize=9,
    )
    save_figure(chart, path)


def _over(value: float | None, reference: float) -> float | None:
    return None if value is None else value / reference


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", help="size of the model (base)")
    parser.add_argument("--batch", type=int, help="clips a step of pre-training (4; fine-tuning takes half as many)")
    parser.add_argument("--rounds", type=int, help="counted rounds, at least (3)")
    parser.add_argument("--seconds", type=float, help="further rounds until a stage has taken so long (40)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of a processor")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:1")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="of the products (bf16 on a GPU, else fp32)")
    parser.add_argument("--compile", action="store_true", help="compiled steps, too: minutes more")
    parser.add_argument("--quick", action="store_true", help="small model, two clips, one round: seconds")
    parser.add_argument("--out", type=Path, default=Path("bench-optimisations"), help="folder for the three files")
    words = sys.argv[1:] if arguments is None else arguments
    args = parser.parse_args(words)
    defaults = ("small", 2, 1, 0.0) if args.quick else ("base", 4, 3, 40.0)
    preset, batch, rounds, seconds = (
        default if value is None else value
        for value, default in zip((args.preset, args.batch, args.rounds, args.seconds), defaults, strict=True)
    )
    device = one_device(args.device)
    precision = args.precision or ("bf16" if device.startswith("cuda") else "fp32")
    load_average = os.getloadavg()[0]
    torch.set_num_threads(args.threads)
    settings = BenchSettings(
        preset=preset, batch=batch, rounds=rounds, seconds=seconds, device=device, precision=precision, compile="off",
        recompute="none", threads=args.threads,
    )  # fmt: skip
    flops = matrix_peak(settings.torch_device, settings.dtype)
    bytes_per_s = bandwidth(settings.torch_device)
    stages: dict[str, dict[str, Any]] = {}
    for stage in STAGES:
        own = settings if stage == "pretrain" else dataclasses.replace(settings, batch=max(1, batch // 2))
        found = measure(stage, own, flops=flops, bytes_per_s=bytes_per_s)
        gc.collect()
        if args.compile:
            found += measure_compiled(stage, own)
            gc.collect()
        stages[stage] = {"batch": own.batch, "rows": found}
    stages["pretrain"]["rows"] += measure_allocator("pretrain", settings)
    result: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.optimisations", *words]),
        "date": datetime.date.today().isoformat(), "hicmae": __version__, "torch": torch.__version__,
        "machine": torch.cuda.get_device_name(device) if settings.on_gpu else f"{platform.machine()} processor",
        "threads": args.threads, "preset": preset, "precision": precision, "load_average": load_average,
        "matrix_gflops": flops / 1e9, "copy_gb_per_s": bytes_per_s / 1e9,
        "stages": {
            name: {"batch": stage["batch"], "rows": [dataclasses.asdict(row) for row in stage["rows"]]}
            for name, stage in stages.items()
        },
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "optimisations.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / "optimisations.md").write_text(page(result))
    figure(result, args.out / "optimisations.png")
    for name, stage in result["stages"].items():
        sys.stdout.write(f"{STAGES[name][0]}\n\n{table(stage)}\n{verdict(stage)}\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
