"""What decoding half of the masked tokens and showing a clip in several views save: predicted beside measured.

    OMP_NUM_THREADS=1 python -m benchmarks.less_work --preset small --out docs/benchmarks

The variants take turns in one process, and every ratio is taken within a round. Seconds are processor time where the
model computes on a processor, so that a busy machine disturbs the ratios little. Writes less_work.json and .md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.voxceleb_like import SQUARE, make_originals
from hicmae import __version__
from hicmae.bench.measure import timed
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import PretrainingDraws
from hicmae.data.clip_decoder import ClipDecoder, stack_optional
from hicmae.data.manifest import Clip, read_manifest, write_manifest
from hicmae.data.order import clip_generator
from hicmae.data.pipeline import BuildTrainingBatches
from hicmae.data.plan import PlannedBatch
from hicmae.data.shard_source import ShardSource
from hicmae.data.shard_writer import write_shards
from hicmae.data.storage import StorageFormat
from hicmae.flops import pretraining_macs
from hicmae.pretraining import HiCMAE

RATIOS = (1.0, 0.5)
VIEWS = (1, 2, 4)
STORAGES = {
    "h264 + aac": StorageFormat(video="h264", audio="aac", square=SQUARE),
    "jpeg + wav": StorageFormat(video="jpeg", audio="wav", square=SQUARE),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant."""

    name: str
    clips_per_s: float
    """Clips, or views, per second: the median of the rounds."""
    predicted: float
    """Seconds as a share of those of the first variant, from counts."""
    measured: float
    """The same, measured: the median of the rounds' ratios."""
    low: float
    high: float
    shipped_bytes: int = 0
    """Bytes a view, as handed to the training process."""


def alternate(
    steps: Mapping[str, Callable[[], object]], *, rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each step in each round: of the clock on a GPU, of the processor elsewhere."""
    spent: dict[str, list[float]] = {name: [] for name in steps}

    def metered(name: str) -> Callable[[], None]:
        def run() -> None:
            started = time.process_time()
            steps[name]()
            spent[name].append(time.process_time() - started)

        return run

    on_clock = timed({name: metered(name) for name in steps}, rounds=rounds, device=device)
    return on_clock if device.type == "cuda" else {name: seconds[-rounds:] for name, seconds in spent.items()}


def rows_of(spent: dict[str, list[float]], predicted: list[float], items: int, shipped: list[int]) -> list[Row]:
    """Each variant against the first one of its round."""
    first = next(iter(spent.values()))
    rows = []
    for (name, own), share, size in zip(spent.items(), predicted, shipped, strict=True):
        ratios = [mine / other for mine, other in zip(own, first, strict=True)]
        rows.append(
            Row(
                name=name, clips_per_s=items / statistics.median(own), predicted=share, shipped_bytes=size,
                measured=statistics.median(ratios), low=min(ratios), high=max(ratios),
            )
        )  # fmt: skip
    return rows


def masks(config: ModelConfig, ratio: float, batch: int) -> dict[str, Tensor | None]:
    """The masks of a batch as the model takes them, with this share of the masked tokens decoded."""
    draws = PretrainingDraws(model=config, video_decode_ratio=ratio, audio_decode_ratio=ratio)
    drawn = [draws(clip_generator(0, 0, f"clip{i}")) for i in range(batch)]
    names = ("video_visible", "audio_visible", "video_decoded", "audio_decoded")
    return {name: stack_optional([getattr(draw, name) for draw in drawn]) for name in names}


def macs(config: ModelConfig, ratio: float) -> int:
    """Multiply-adds of a clip with this share of the masked tokens decoded."""
    found = masks(config, ratio, 1)
    return pretraining_macs(config, **{name: None if x is None else x.shape[1] for name, x in found.items()})  # type: ignore[arg-type]


def predicted_share(config: ModelConfig) -> float:
    """Multiply-adds with half of the masked tokens decoded, as a share of those with all."""
    return macs(config, 0.5) / macs(config, 1.0)


def decode_ratios(config: ModelConfig, *, batch: int, rounds: int, device: torch.device) -> list[Row]:
    """The model's step, forward and backward, with all and with half of the masked tokens decoded."""
    model = HiCMAE(config).to(device)
    side = config.image_size
    video = torch.randn(batch, 3, config.num_frames, side, side, device=device)
    log_mel = torch.randn(batch, 1, config.audio_frames, config.mel_bins, device=device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    steps: dict[str, Callable[[], object]] = {}

    def step(names: dict[str, Tensor | None]) -> Callable[[], object]:
        def run() -> None:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = model(video, log_mel, **names).loss
            loss.backward()
            model.zero_grad(set_to_none=True)

        return run

    for ratio in RATIOS:
        found = {name: None if x is None else x.to(device) for name, x in masks(config, ratio, batch).items()}
        steps[f"{ratio:g} of the masked tokens"] = step(found)
    predicted = [macs(config, ratio) / macs(config, 1.0) for ratio in RATIOS]
    spent = alternate(steps, rounds=rounds, device=device)
    return rows_of(spent, predicted, batch, [0] * len(steps))


class Worker:
    """What a decoding process does for a batch of so many views as the source has clips, ``count`` of each clip."""

    def __init__(self, source: ShardSource, count: int) -> None:
        model = ModelConfig.preset("base")
        self._build = BuildTrainingBatches(
            source=source, decode=ClipDecoder(spec=InputSpec.for_model(model)), draws=PretrainingDraws(model=model),
            labels=None, seed=0, views_per_clip=count,
        )  # fmt: skip
        self._parts = np.arange(len(source)).reshape(-1, count).T[:, None]  # every count-th clip; in turn, all
        self._epoch = 0
        self.shipped = 0
        """Bytes a view, as handed to the training process."""

    def __call__(self) -> None:
        part = self._epoch % len(self._parts)
        plan = PlannedBatch(epoch=self._epoch, batch=part, clips=self._parts[part, 0], joint=self._parts)
        ((batch,),) = self._build([plan])
        tensors = [value for value in vars(batch).values() if isinstance(value, Tensor)]
        self.shipped = sum(tensor.nbytes for tensor in tensors) // len(batch.gain)
        self._epoch += 1


def seconds_of_draws(times: int = 300) -> float:
    """Processor time of all that is drawn for one view."""
    draws = PretrainingDraws(model=ModelConfig.preset("base"))
    started = time.process_time()
    for number in range(times):
        draws(clip_generator(0, 0, f"clip{number}"))
    return (time.process_time() - started) / times


def views(source: ShardSource, *, rounds: int) -> list[Row]:
    """Batches of as many views, from clips in one, two and four of them."""
    workers = {f"{count} view{'s' * (count > 1)} a clip": Worker(source, count) for count in VIEWS}
    spent = alternate(workers, rounds=rounds, device=torch.device("cpu"))
    drawing = len(source) * seconds_of_draws() / statistics.median(next(iter(spent.values())))
    predicted = [(1 - drawing) / count + drawing for count in VIEWS]
    return rows_of(spent, predicted, len(source), [worker.shipped for worker in workers.values()])


def store(folder: Path, clips: int) -> dict[str, ShardSource]:
    """The clips in every storage; they stay in ``folder`` for a later run."""
    originals = make_originals(folder / "originals", clips)
    rows = [Clip(clip_id=clip.video.stem, video=clip.video) for clip in originals]
    manifest = read_manifest(write_manifest(folder / "manifest.csv", rows))
    for name, storage in STORAGES.items():
        write_shards(manifest, folder / name.replace(" ", ""), storage=storage)
    return {name: ShardSource(folder / name.replace(" ", "")) for name in STORAGES}


def table(rows: list[dict[str, Any]], what: str) -> str:
    """One part of the result in Markdown."""
    sizes = any(row["shipped_bytes"] for row in rows)
    lines = [
        f"| {what} | {'views' if sizes else 'clips'}/s | seconds, predicted | measured (range) |"
        + (" KiB a view, shipped |" if sizes else ""),
        "|---|---|---|---|" + ("---|" if sizes else ""),
    ]
    for row in rows:
        lines.append(
            f"| {row['name']} | {row['clips_per_s']:.2f} | {row['predicted']:.2f} | {row['measured']:.2f} "
            f"({row['low']:.2f} to {row['high']:.2f}) |" + (f" {row['shipped_bytes'] / 1024:.0f} |" if sizes else "")
        )
    return "\n".join(lines) + "\n"


def page(result: dict[str, Any]) -> str:
    """The result as a page of the documentation."""
    parts = "\n".join(table(rows, f"stored as {name}") for name, rows in result["views"].items())
    sizes = ", ".join(f"{share:.2f} for {name}" for name, share in result["predicted_shares"].items())
    return f"""# Less work: fewer tokens decoded, several views of a clip

    {result["command"]}

{result["date"]}: {result["machine"]}, torch {result["torch"]}. Medians of {result["rounds"]} alternating rounds (four
times as many for the loader); seconds are shares of the first row's in the same round. The settings are described in
[Data](../data.md#several-views-of-a-window).

## `video_decode_ratio` and `audio_decode_ratio`

The {result["preset"]} model's step, forward and backward, batch {result["batch"]}. Predicted from the multiply-adds of
the forward pass (`hicmae.flops`), of which the decoders' alone become fewer: {sizes}.

{table(result["decode_ratios"], "decoded")}
## `views_per_clip`

What a worker does, on one core, for {result["clips"]} views of clips like VoxCeleb2's, stored at 160 x 160 pixels.
Predicted from the time of the draws (crop, gain, masks), which are made for every view; all else is done once a clip.
Shipped are pixels and sound once a clip, and what was drawn. The device makes crops, colours and log-mel for each view
as it does for each clip.

{parts}"""


def main() -> int:
    """Measure both, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small", help="size of the model whose step is timed")
    parser.add_argument("--batch", type=int, default=2, help="clips a step")
    parser.add_argument("--clips", type=int, default=8, help="clips to make; a multiple of 4")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds; medians are shown")
    parser.add_argument("--out", type=Path, default=Path("bench-less-work"), help="folder for the two files")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "hicmae-bench-data",
                        help="folder for the clips, which a later run uses again")  # fmt: skip
    args = parser.parse_args()
    if args.clips % max(VIEWS) or args.clips < 1 or args.rounds < 1:
        parser.error(f"--clips must be a multiple of {max(VIEWS)}, --rounds at least 1")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = decode_ratios(ModelConfig.preset(args.preset), batch=args.batch, rounds=args.rounds, device=device)
    sources = store(args.cache / f"{args.clips}-clips-views", args.clips)
    loaders = {name: views(source, rounds=4 * args.rounds) for name, source in sources.items()}
    result: dict[str, Any] = {
        "command": " ".join(["OMP_NUM_THREADS=1 python -m benchmarks.less_work", *sys.argv[1:]]),
        "machine": torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} processor, 1 core",
        "date": datetime.date.today().isoformat(), "hicmae": __version__, "torch": torch.__version__,
        "preset": args.preset, "batch": args.batch, "clips": args.clips, "rounds": args.rounds,
        "predicted_shares": {name: predicted_share(ModelConfig.preset(name)) for name in ("tiny", "small", "base")},
        "decode_ratios": [asdict(row) for row in rows],
        "views": {name: [asdict(row) for row in found] for name, found in loaders.items()},
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "less_work.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / "less_work.md").write_text(page(result))
    sys.stdout.write(page(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
