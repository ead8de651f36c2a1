"""How pre-training scales, on paper: ``python -m benchmarks.scaling``, or ``--help`` for more.

An estimate, not a measurement. What is sent in a step is exact: it follows from the model, and a run of two processes
counts it to the byte. How long a step takes on one GPU, how fast the links are, and how much of the sending hides
behind arithmetic are parameters, shown beside every result. Writes ``scaling.json``, ``scaling.md``, ``scaling.png``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.communication import RANKS, WAYS, Way, counted, expected
from hicmae import __version__
from hicmae.config import ModelConfig
from hicmae.flops import pretraining_macs
from hicmae.masking import visible_count
from hicmae.pretraining import HiCMAE

GPUS = (1, 2, 4, 8, 16, 32, 64)
_FORMATS = ("h264 + aac", "h264 + wav", "jpeg + wav", "h264 + aac, 2 windows a clip", "jpeg + wav, 2 windows a clip")


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What the estimate takes for given."""

    peak_tflops: float
    """Of one GPU, in bfloat16."""
    peak_share: float
    """How much of it a step reaches, 0 to 1."""
    gpus_per_machine: int
    inside_gb_s: float
    """Bytes that a GPU sends to another of its machine, 10^9 a second."""
    overlap: float
    """Share of the arithmetic behind which sending hides: of the backward pass for DDP, of both passes if sharded."""
    call_us: float
    """Microseconds that a collective costs before it sends."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """The links from machine to machine."""

    name: str
    machine_gb_s: float
    """Bytes that a machine sends, over all its links, 10^9 a second."""


def forward_macs(config: ModelConfig, *, video_mask: float = 0.9, audio_mask: float = 0.8) -> int:
    """Multiply-adds of a clip's forward pass with the paper's masks."""
    time, rows, columns = config.video_grid
    return pretraining_macs(
        config,
        video_visible=time * visible_count(rows * columns, video_mask),
        audio_visible=visible_count(config.audio_tokens, audio_mask),
    )


def sending_s(model: HiCMAE, way: Way, given: Assumptions, network: Network, *, gpus: int, batch: int) -> list[float]:
    """Seconds that weights and gradients take to send, and features: a ring's slowest link decides."""
    link = given.inside_gb_s if gpus <= given.gpus_per_machine else min(given.inside_gb_s, network.machine_gb_s)
    times = {"hidden": 0.0, "features": 0.0}
    for one in expected(model, way, ranks=gpus, batch=batch) if gpus > 1 else []:
        where = "features" if one.what == "features" else "hidden"
        times[where] += one.sent(gpus) / (link * 1e9) + one.calls * given.call_us * 1e-6
    return list(times.values())


def efficiency(
    model: HiCMAE, way: Way, given: Assumptions, network: Network, *, gpus: int, batch: int, step_s: float
) -> float:
    """Step time of one GPU over that of ``gpus``, each with ``batch`` clips."""
    hidden, features = sending_s(model, way, given, network, gpus=gpus, batch=batch)
    behind = given.overlap * step_s * (2 / 3 if way.startswith("ddp") else 1)
    return step_s / (step_s + max(0.0, hidden - behind) + features)


def estimate(args: argparse.Namespace, given: Assumptions, networks: list[Network]) -> list[dict[str, Any]]:
    """A row for each preset, batch and way."""
    rows = []
    for preset in args.presets:
        config = ModelConfig.preset(preset)
        with torch.device("meta"):
            model = HiCMAE(config)
        macs = forward_macs(config)
        parameters = sum(p.numel() for p in model.parameters())
        for batch in args.batches:
            step_s = batch * 6 * macs / (given.peak_share * given.peak_tflops * 1e12)
            if preset in args.clips_per_s:
                step_s = batch / args.clips_per_s[preset]
            for way in args.ways:
                settings = {"batch": batch, "step_s": step_s}
                rows.append({
                    "preset": preset, "parameters": parameters, "macs": macs, "way": way, "batch": batch,
                    "step_ms": 1000 * step_s, "clips_per_s": batch / step_s,
                    "sent_mb": sent_mb(model, way, batch),
                    "efficiency": {
                        network.name: {n: efficiency(model, way, given, network, gpus=n, **settings) for n in GPUS}
                        for network in networks
                    },
                })  # fmt: skip
    return rows


def sent_mb(model: HiCMAE, way: Way, batch: int) -> dict[str, float]:
    """What each of the most GPUs sends in a step, 10^6 bytes, by what it is."""
    sums: dict[str, float] = {}
    for one in expected(model, way, ranks=GPUS[-1], batch=batch):
        sums[one.what] = sums.get(one.what, 0.0) + one.sent(GPUS[-1]) / 1e6
    return sums


def data_rows(args: argparse.Namespace, rows: list[dict[str, Any]], given: Assumptions) -> list[dict[str, Any]]:
    """Cores and bytes a second that feed a machine, by storage format: from the data benchmark's rates."""
    measured = {row["name"]: row for row in json.loads(args.data.read_text())["rows"]}
    found = []
    for preset in args.presets:
        rate = next(row["clips_per_s"] for row in rows if row["preset"] == preset)
        for name in _FORMATS:
            clips_per_s = measured[name]["clips_per_s"]
            # Data-wait is the share of the demand that the workers cannot meet.
            cores = (1 - args.data_wait) * rate / clips_per_s * args.headroom
            windows = 2 if "2 windows" in name else 1
            found.append({
                "preset": preset, "format": name, "clips_per_s": rate, "core_clips_per_s": clips_per_s,
                "cores_per_gpu": math.ceil(cores),
                "machine_mb_s": rate * given.gpus_per_machine * measured[name]["stored_bytes"] / windows / 1e6,
            })  # fmt: skip
    return found


def check(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Formulas against what two processes send."""
    rows = []
    for preset in args.counted:
        config, batch = ModelConfig.preset(preset), 2
        with torch.device("meta"):
            model = HiCMAE(config)
        for way, found in counted(config, list(WAYS), batch=batch).items():
            formula = expected(model, way, ranks=RANKS, batch=batch)
            for one in formula:
                same = [other for other in found if (other.kind, other.what) == (one.kind, one.what)]
                rows.append({"preset": preset, "way": way, "formula": asdict(one),
                             "counted": asdict(same[0]) if same else None})  # fmt: skip
            if len(found) != len(formula):
                raise AssertionError(f"{preset}, {way}: sent {found}, expected {formula}")
    return rows


def main() -> int:
    """Estimate, check, write."""
    from benchmarks.scaling_page import figure, page  # matplotlib takes longer than all else

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["base", "large"])
    parser.add_argument("--batches", nargs="+", type=int, default=[40, 160], help="clips a GPU and step")
    parser.add_argument("--ways", nargs="+", default=["ddp", "ddp_bf16", "sharded_bf16", "sharded_bf16_kept"],
                        choices=list(WAYS))  # fmt: skip
    parser.add_argument("--peak-tflops", type=float, default=790.0, help="of one GPU: an assumption")
    parser.add_argument("--peak-share", type=float, default=0.4, help="that a step reaches: an assumption")
    parser.add_argument("--clips-per-s", nargs="*", default=[], metavar="PRESET=RATE",
                        help="measured on one GPU, in place of peak and share")  # fmt: skip
    parser.add_argument("--gpus-per-machine", type=int, default=8)
    parser.add_argument("--inside-gb-s", type=float, default=300.0, help="from GPU to GPU within a machine")
    parser.add_argument("--networks", nargs="+", default=["1 x 100 Gb/s=12.5", "1 x 200 Gb/s=25", "1 x 400 Gb/s=50",
                        "8 x 400 Gb/s=400"], metavar="NAME=GB_S", help="what a machine sends")  # fmt: skip
    parser.add_argument("--overlap", type=float, default=0.8, help="share of arithmetic that hides sending")
    parser.add_argument("--call-us", type=float, default=20.0, help="cost of a collective before it sends")
    parser.add_argument("--counted", nargs="*", default=["micro"], help="presets to run in two processes")
    parser.add_argument("--data", type=Path, default=Path("docs/benchmarks/data.json"), help="of make bench-data")
    parser.add_argument("--data-wait", type=float, default=0.02, help="largest share of time without data")
    parser.add_argument("--headroom", type=float, default=1.1, help="factor of the cores, for uneven clips")
    parser.add_argument("--out", type=Path, default=Path("bench-scaling"))
    args = parser.parse_args()
    args.clips_per_s = {name: float(rate) for name, rate in (one.split("=") for one in args.clips_per_s)}
    given = Assumptions(
        peak_tflops=args.peak_tflops, peak_share=args.peak_share, gpus_per_machine=args.gpus_per_machine,
        inside_gb_s=args.inside_gb_s, overlap=args.overlap, call_us=args.call_us,
    )  # fmt: skip
    networks = [
        Network(name=name, machine_gb_s=float(rate)) for name, rate in (n.rsplit("=", 1) for n in args.networks)
    ]
    rows = estimate(args, given, networks)
    result = {
        "command": " ".join(["python -m benchmarks.scaling", *sys.argv[1:]]), "hicmae": __version__,
        "torch": str(torch.__version__), "date": datetime.date.today().isoformat(), "assumptions": asdict(given),
        "networks": [asdict(one) for one in networks], "measured_clips_per_s": args.clips_per_s, "rows": rows,
        "data": data_rows(args, rows, given), "data_wait": args.data_wait, "headroom": args.headroom,
        "check": check(args),
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "scaling.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / "scaling.md").write_text(page(result))
    figure(result, args.out / "scaling.png")
    sys.stdout.write(page(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
