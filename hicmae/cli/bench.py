"""``hicmae bench``: what each stage of training costs on this machine, and beside the authors' code."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hicmae.bench.result import BenchResult
    from hicmae.bench.settings import BenchSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--stages", metavar="NAMES", default=argparse.SUPPRESS,
                        help="with commas between: decode, loader, transform, pretrain, finetune, embed, end-to-end "
                        "(default: all; with --against none but the comparison)")  # fmt: skip
    parser.add_argument("--preset", default="base", help="size of the model")
    parser.add_argument("--batch", default="4", metavar="N", help="clips a step; best: on a GPU, the fastest that fits")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default=argparse.SUPPRESS,
                        help="of the matrix products (default: bf16 on a GPU, fp32 elsewhere)")  # fmt: skip
    parser.add_argument("--compile", default="auto", choices=("auto", "off", "blocks", "whole"),
                        help="as --model.speed.compile of the jobs")  # fmt: skip
    parser.add_argument(
        "--recompute",
        choices=("none", "pointwise", "blocks"),
        help="as --model.speed.recompute of the jobs; default: what each job does by default",
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="timed rounds of each stage, at least")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S",
                        help="further rounds until a stage has taken so long")  # fmt: skip
    parser.add_argument("--threads", type=int, metavar="N", default=argparse.SUPPRESS,
                        help="of the processor (default: one a core)")  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="N", default=argparse.SUPPRESS,
                        help="decoding processes (default: one a core, at most 8)")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=argparse.SUPPRESS,
                        help="write bench.json, bench.md and bench.png there")  # fmt: skip
    parser.add_argument("--baseline", type=Path, metavar="FILE", default=argparse.SUPPRESS,
                        help="an earlier bench.json of this machine: ends with 1 if a stage became slower")  # fmt: skip
    parser.add_argument("--against", metavar="PATH", default=argparse.SUPPRESS,
                        help="checkout of the authors' code, whose steps take turns with ours")  # fmt: skip
    parser.add_argument("--trace", type=Path, metavar="FILE", default=argparse.SUPPRESS,
                        help="profile of the first training step among the stages, for chrome://tracing")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Measure, print, write. Returns 1 if a stage is slower than in the baseline, else 0."""
    import torch

    from hicmae.bench.compare import check_comparable, check_stages
    from hicmae.bench.result import BenchResult
    from hicmae.bench.run import measure
    from hicmae.bench.settings import STAGES, known_stages
    from hicmae.bench.table import as_text
    from hicmae.bench.versus import TRAINING, check_reference, versus

    given: dict[str, Any] = vars(args)
    against: str | None = given.get("against")
    named: str | None = given.get("stages")
    settings = _settings(args)
    stages = known_stages(named) if named else () if against else STAGES
    beside = [stage for stage in TRAINING if not named or stage in stages] if against else []
    if against:
        if not beside:
            raise ValueError(f"--against compares {' and '.join(TRAINING)}; --stages {named} has neither")
        check_reference(against, settings)
    baseline = BenchResult.read(given["baseline"]) if "baseline" in given else None
    best = args.batch == "best"
    if baseline is not None:
        check_stages(baseline, stages)
        if not best:
            check_comparable(baseline, settings)
    settings, rows = measure(settings, stages, best=best, say=_say)
    pairs = []
    if against:
        for stage in beside:
            _say(f"{stage} beside the reference")
            try:
                pairs += versus(against, stage, settings)
            except torch.OutOfMemoryError:
                raise ValueError(
                    f"--batch {settings.batch} does not fit into the GPU's memory with both models ({stage}): give "
                    "fewer clips"
                ) from None
    result = BenchResult.now(settings, shlex.join(["hicmae", *sys.argv[1:]]), rows, pairs)
    sys.stdout.write(as_text(result))
    if "trace" in given:
        _trace(given["trace"], stages, settings)
    if "out" in given:
        _write(result, given["out"])
    return 0 if baseline is None else _compare(baseline, result)


def _settings(args: argparse.Namespace) -> BenchSettings:
    from hicmae.bench.settings import BenchSettings, one_device

    given, cores = vars(args).get, len(os.sched_getaffinity(0))
    device = one_device(args.device)
    if args.batch != "best" and not args.batch.isdecimal():
        raise ValueError(f"--batch {args.batch} must be a number of clips, or best")
    settings = BenchSettings(
        preset=args.preset,
        batch=4 if args.batch == "best" else int(args.batch),
        device=device,
        precision=given("precision") or ("bf16" if device.startswith("cuda") else "fp32"),
        compile=args.compile,
        recompute=args.recompute,
        threads=given("threads", cores),
        workers=given("workers", min(8, cores)),
        rounds=args.rounds,
        seconds=args.seconds,
    )
    settings.check_device()
    return settings


def _trace(path: Path, stages: tuple[str, ...], settings: BenchSettings) -> None:
    from hicmae.bench.batch import SyntheticBatch
    from hicmae.bench.steps import stage_step
    from hicmae.bench.trace import describe, trace

    stage = next((stage for stage in stages if stage in ("pretrain", "finetune", "embed")), "pretrain")
    device = settings.torch_device
    step = stage_step(stage, settings, SyntheticBatch.make(settings.config, settings.batch, device))
    report = trace(step, path, device=device)
    sys.stdout.write(f"\n{stage}, {describe(report, path, on_gpu=settings.on_gpu)}")


def _write(result: BenchResult, folder: Path) -> None:
    from hicmae.bench.table import as_markdown, summary
    from hicmae.figures.bench import draw_bench

    result.write(folder / "bench.json")
    (folder / "bench.md").write_text(as_markdown(result), encoding="utf-8")
    if result.rows:
        spreads = {row.name: row.clips_per_s for row in result.rows}
        shares = {row.name: row.share_of_peak for row in result.rows if row.share_of_peak is not None}
        draw_bench(
            {name: (s.median, s.low, s.high) for name, s in spreads.items()},
            {name: (s.median, s.low, s.high) for name, s in shares.items()},
            folder / "bench.png",
            title=summary(result),
        )


def _compare(baseline: BenchResult, result: BenchResult) -> int:
    from hicmae.bench.compare import changes, check_comparable

    check_comparable(baseline, result.settings)
    found = changes(baseline, result.rows)
    slower = [change for change in found if change.slower]
    for change in slower:
        sys.stdout.write(f"slower: {change}\n")
    if not slower:
        sys.stdout.write(f"no stage is slower than on {baseline.date}: {', '.join(change.name for change in found)}\n")
    return 1 if slower else 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text} ...\n")
