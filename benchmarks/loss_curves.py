"""Whether the fast ways to train are the same training: 50 steps of pre-training each, on the same clips from the same
weights, in float32 and bfloat16, compiled and not, as one process and two, in parts, with activations computed again.

``python -m benchmarks.loss_curves --out docs/benchmarks``; with two cores to itself it takes minutes, most of them the
compiler's. Hardly two of these add up their numbers in the same order, so curves drift apart however right they are.
How far they may is measured: float32 runs whose clips and first weights are off by as much as the precision rounds. A
curve that leaves ``MARGIN`` times what these do ends the script with status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from hicmae import __version__
from hicmae.accumulation import losses_in_parts
from hicmae.config import ModelConfig
from hicmae.figures.canvas import save_figure
from hicmae.layers import Recompute
from hicmae.masking import random_mask, tube_mask
from hicmae.pretraining import HiCMAE, Objective, PretrainInput, PretrainLosses
from hicmae.speed import Compile, SpeedConfig, accelerate

# As many video as audio tokens, visible and in all, so that both share compiled graphs.
CONFIG = ModelConfig.preset("micro", image_size=32, audio_frames=64, width=48, decoder_width=32, fusion_depth=1)
MASKED = 0.75
# A contrast that is felt, with the joint batch as negatives: so two processes mean the same as one.
OBJECTIVE = Objective(contrastive_weight=0.1, negatives="global")
BATCH, STEPS, WARMUP, PEAK_LR = 8, 50, 10, 1e-3
LOSSES = ("loss", "video_loss", "audio_loss", "contrastive_loss")
ROUNDING = {"float32": 2.0**-23, "bfloat16": 2.0**-8}
"""By how much the next larger number is larger, at most."""
DRAWS = 3
MARGIN = 4.0
"""A run rounds at every operation, a nudged one was rounded once."""

Curves = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to train."""

    name: str
    precision: str = "float32"
    compile: Compile = "off"
    recompute: Recompute = "none"
    processes: int = 1
    part_clips: int | None = None
    nudge: float = 0.0
    """Relative error of clips and first weights, of random sign."""
    draw: int = 0


PLAIN = Way(name="float32")
WAYS = [
    Way(name="float32, two processes", processes=2),
    Way(name="float32, two processes, micro-batches of 3", processes=2, part_clips=3),
    Way(name="float32, micro-batches of 3", part_clips=3),
    Way(name="float32, activations computed again", recompute="blocks"),
    Way(name="float32, blocks compiled", compile="blocks"),
    Way(name="float32, whole parts compiled", compile="whole"),
    Way(name="bfloat16", precision="bfloat16"),
    Way(name="bfloat16, two processes", precision="bfloat16", processes=2),
    Way(name="bfloat16, micro-batches of 3", precision="bfloat16", part_clips=3),
    Way(name="bfloat16, blocks compiled", precision="bfloat16", compile="blocks"),
]
NUDGED = [
    Way(name=f"nudged as {precision} rounds, {draw}", nudge=size, draw=draw)
    for precision, size in ROUNDING.items()
    for draw in range(DRAWS)
]


# ---------------------------------------------------------------- data


def clips_of(step: int) -> PretrainInput:
    """A batch of a step: gratings that drift, and tones whose pitch and beat say how."""
    rng = torch.Generator().manual_seed(1000 + step)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(BATCH, 1, 1, 1, 1, generator=rng)

    waves, slope, speed, pitch = draw(1, 5), draw(-2, 2), draw(-1, 1), draw(10, 118)
    side, frames = CONFIG.image_size, CONFIG.num_frames
    time_ = torch.arange(frames).view(1, 1, frames, 1, 1) / frames
    y, x = torch.linspace(0, 1, side).view(1, 1, 1, side, 1), torch.linspace(0, 1, side).view(1, 1, 1, 1, side)
    colour = torch.tensor([0.0, 0.4, 0.9]).view(1, 3, 1, 1, 1)
    video = torch.sin(6.28 * (waves * x + slope * y + 2 * speed * time_ + colour))
    beat = torch.sin(6.28 * 4 * speed[:, 0] * torch.linspace(0, 1, CONFIG.audio_frames).view(1, 1, -1, 1))
    bins = torch.arange(CONFIG.mel_bins).view(1, 1, 1, -1)
    log_mel = torch.exp(-((bins - pitch[:, 0] - 4 * waves[:, 0] * beat) ** 2) / 50) - 0.5
    masks = np.random.default_rng(step)
    tubes = [torch.from_numpy(tube_mask(masks, CONFIG.video_grid, MASKED)) for _ in range(BATCH)]
    sounds = [torch.from_numpy(random_mask(masks, CONFIG.audio_tokens, MASKED)) for _ in range(BATCH)]
    return PretrainInput(
        video=video + 0.1 * torch.randn(video.shape, generator=rng),
        log_mel=log_mel + 0.1 * torch.randn(log_mel.shape, generator=rng),
        video_visible=torch.stack(tubes),
        audio_visible=torch.stack(sounds),
    )


def nudged(tensor: Tensor, way: Way, rng: torch.Generator) -> Tensor:
    sign = torch.randint(0, 2, tensor.shape, generator=rng) * 2 - 1
    return tensor * (1 + way.nudge * sign)


# ---------------------------------------------------------------- training


class Learner(nn.Module):
    """The model under a way's precision and parts: what data-parallel training wraps."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        self.way = way
        torch.manual_seed(0)
        self.model = HiCMAE(CONFIG, objective=OBJECTIVE)
        if way.nudge:
            rng = torch.Generator().manual_seed(way.draw)
            for parameter in self.model.parameters():
                parameter.data = nudged(parameter.data, way, rng)
        accelerate(self.model, SpeedConfig(compile=way.compile, recompute=way.recompute), "cpu")

    def forward(self, clips: PretrainInput) -> dict[str, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.way.precision == "bfloat16"):
            found: PretrainLosses
            if self.way.part_clips is None:
                found = self.model(**vars(clips))
            else:
                found = losses_in_parts(self.model, clips, self.way.part_clips)
        return {name: getattr(found, name) for name in LOSSES}


def train(way: Way, steps: int, rank: int = 0) -> Curves:
    """The losses of every step."""
    learner: nn.Module = Learner(way)
    if way.processes > 1:
        learner = nn.parallel.DistributedDataParallel(learner)
    learning = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=PEAK_LR, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
    rng = torch.Generator().manual_seed(100 + way.draw)
    curves: Curves = {name: [] for name in LOSSES}
    for step in range(steps):
        clips = clips_of(step).parts(BATCH // way.processes)[rank]
        if way.nudge:
            clips = replace(clips, video=nudged(clips.video, way, rng), log_mel=nudged(clips.log_mel, way, rng))
        losses = learner(clips)
        losses["loss"].backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        values = torch.stack([losses[name].detach() for name in LOSSES])
        if way.processes > 1:
            dist.all_reduce(values)
        for name, value in zip(LOSSES, (values / way.processes).tolist(), strict=True):
            curves[name].append(value)
    return curves


def work(rank: int, way: Way, steps: int, folder: str) -> None:
    """One of several processes."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=way.processes)
    curves = train(way, steps, rank)
    if rank == 0:
        (Path(folder) / "curves.json").write_text(json.dumps(curves))
    dist.barrier()
    dist.destroy_process_group()


def run(way: Way, steps: int) -> Curves:
    """Train in as many processes as the way says."""
    if way.processes == 1:
        return train(way, steps)
    with tempfile.TemporaryDirectory() as folder:
        # Forked, and so before anything is compiled, which starts threads: importing everything anew takes longer.
        mp.start_processes(work, args=(way, steps, folder), nprocs=way.processes, start_method="fork")
        curves: Curves = json.loads((Path(folder) / "curves.json").read_text())
        return curves


# ---------------------------------------------------------------- judgement


def drift(curves: Curves, plain: Curves) -> Curves:
    """Relative difference of every loss at every step."""
    return {
        name: [abs(ours - theirs) / abs(theirs) for ours, theirs in zip(curves[name], plain[name], strict=True)]
        for name in LOSSES
    }


def bounds(drifts: Sequence[Curves]) -> Curves:
    """How far a curve may be at each step: ``MARGIN`` times the farthest that a nudged run has been until then."""
    found: Curves = {}
    for name in LOSSES:
        farthest, so_far = [], ROUNDING["float32"]  # a loss itself is rounded
        for values in zip(*(one[name] for one in drifts), strict=True):
            so_far = max(so_far, *values)
            farthest.append(MARGIN * so_far)
        found[name] = farthest
    return found


def report(curves: dict[str, Curves]) -> tuple[list[dict[str, object]], dict[str, Curves]]:
    """A row for each way: its largest drift, and its drift over its bound where that is largest; and the bounds."""
    plain = curves[PLAIN.name]
    allowed = {
        precision: bounds([drift(curves[way.name], plain) for way in NUDGED if way.nudge == size])
        for precision, size in ROUNDING.items()
    }
    rows = []
    for way in WAYS:
        if way.name not in curves:
            continue
        found, bound = drift(curves[way.name], plain), allowed[way.precision]
        share = {name: max(d / b for d, b in zip(found[name], bound[name], strict=True)) for name in LOSSES}
        largest = {name: max(found[name]) for name in LOSSES}
        rows.append({"way": way.name, "drift": largest, "of_bound": max(share.values())})
    return rows, allowed


def table(rows: Sequence[dict[str, object]], allowed: dict[str, Curves]) -> str:
    """Markdown."""
    lines = [
        "| against float32, one process, nothing compiled | all | video | audio | contrast | of its bound, at most |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        drifts: dict[str, float] = row["drift"]  # type: ignore[assignment]
        cells = " | ".join(f"{drifts[name]:.1e}" for name in LOSSES)
        lines.append(f"| {row['way']} | {cells} | {100 * row['of_bound']:.0f}% |")  # type: ignore[operator]
    for precision, bound in allowed.items():
        cells = " | ".join(f"{bound[name][-1]:.1e}" for name in LOSSES)
        lines.append(f"| bound of {precision} at the last step | {cells} | |")
    return "\n".join(lines) + "\n"


def draw(curves: dict[str, Curves], allowed: dict[str, Curves], path: Path) -> None:
    """The curves, and below them their distance to plain float32 with the bounds."""
    figure, axes = plt.subplots(2, len(LOSSES), figsize=(15, 7), layout="constrained", sharex=True)
    ways = [PLAIN, *(way for way in WAYS if way.name in curves)]
    for column, name in enumerate(LOSSES):
        for number, way in enumerate(ways):
            look = {"lw": 1.3, "ls": "--" if way.precision == "bfloat16" else "-", "color": f"C{number % 10}"}
            steps = range(1, len(curves[way.name][name]) + 1)
            axes[0, column].plot(steps, curves[way.name][name], label=way.name, **look)
            if way is not PLAIN:
                gaps = [max(gap, 1e-9) for gap in drift(curves[way.name], curves[PLAIN.name])[name]]
                axes[1, column].plot(steps, gaps, **look)
        for precision, bound in allowed.items():
            axes[1, column].plot(range(1, len(bound[name]) + 1), bound[name], color="black", lw=1, ls=":")
            axes[1, column].annotate(f"bound, {precision}", (1, bound[name][0]), fontsize=7, va="bottom")
        axes[0, column].set_title(name, fontsize=10)
        axes[1, column].set(yscale="log", xlabel="step")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("relative distance to plain float32\n(1e-9 where there is none)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    save_figure(figure, path)


def main() -> int:
    """Train every way, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for loss_curves.json, .png and the table")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of each way")
    parser.add_argument("--without-compile", action="store_true", help="leave out the ways that are compiled")
    args = parser.parse_args()
    curves: dict[str, Curves] = {}
    for way in sorted([PLAIN, *NUDGED, *WAYS], key=lambda way: -way.processes):
        if args.without_compile and way.compile != "off":
            continue
        started = time.perf_counter()
        curves[way.name] = run(way, args.steps)
        spent = time.perf_counter() - started
        sys.stderr.write(f"{way.name}: {spent:.1f} s, last loss {curves[way.name]['loss'][-1]:.6f}\n")
    rows, allowed = report(curves)
    args.out.mkdir(parents=True, exist_ok=True)
    draw(curves, allowed, args.out / "loss_curves.png")
    result = {
        "machine": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "hicmae": __version__, "torch": torch.__version__, "model": CONFIG.to_dict(),
        "batch": BATCH, "steps": args.steps,
        "margin": MARGIN, "rounding": ROUNDING, "rows": rows,
        "bounds_at_the_end": {p: {name: bound[name][-1] for name in LOSSES} for p, bound in allowed.items()},
        "curves": {name: {k: [float(f"{v:.7g}") for v in vs] for k, vs in one.items()} for name, one in curves.items()},
    }  # fmt: skip
    (args.out / "loss_curves.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(table(rows, allowed))
    outside = [str(row["way"]) for row in rows if not row["of_bound"] <= 1]  # type: ignore[operator]
    if outside:
        sys.stderr.write(f"farther from float32 than rounding explains: {', '.join(outside)}\n")
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
