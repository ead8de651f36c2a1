"""Exported formats and int8: size, speed on the processor, and what int8 costs in accuracy.

``python -m benchmarks.formats --recognizer FOLDER --manifest FILE`` takes an exported recogniser and labelled clips
that it was not trained on. It measures eager PyTorch, torch.compile, ONNX and ONNX int8 in alternating rounds, on the
recogniser and on a base backbone of random weights (speed and size do not depend on them), then other choices of what
int8 touches. Writes formats.json, formats.md and formats.png.

On one thread processor time is counted, so a busy machine disturbs it little. On more, time goes by the clock, and the
machine must be idle: threads that wait for one another while other work holds the cores measure that work.
Run it with OMP_NUM_THREADS=1: libraries read that when they are loaded.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from hicmae.backbone import MODALITIES, Backbone
from hicmae.checkpoint import load_recognizer
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.manifest import read_manifest, select
from hicmae.inference.items import find_items
from hicmae.metrics import categorical_scores, dimensional_scores
from hicmae.portable.checking import run_eager
from hicmae.portable.clips import random_clips, read_clips
from hicmae.portable.formats import Arrays, Runner, open_onnx, write_onnx, write_program
from hicmae.portable.graphs import BackboneGraph, Graph, RecognizerGraph, TransformGraph
from hicmae.portable.quantizing import cosines, quantize_onnx
from hicmae.recognition import EmotionRecognizer

BATCHES = (1, 8)
BASE_ROUNDS = 2
"""Counted rounds for the base model, whose batch of 8 takes seconds."""
EAGER, COMPILED, PROGRAM, ONNX, INT8 = "eager PyTorch", "torch.compile", "torch-export", "ONNX", "ONNX int8"
# What else int8 could touch: name -> (words in the path of a layer that stays float32, arguments of quantize_dynamic).
CHOICES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "as exported: int8, a scale per output": ((), {}),
    "one scale per tensor": ((), {"per_channel": False}),
    "unsigned weights": ((), {"weight_type": "QUInt8"}),
    "layers of attention float32": (("attn:",), {}),
    "MLPs float32": ((".mlp:",), {}),
    "patch embeddings float32": ((".embed:",), {}),
    "fusion float32": ((".fusion",), {}),
}


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One format on one model, batch and number of threads."""

    model: str
    format: str
    threads: int
    batch: int
    clips_per_s: float
    """Median of the rounds."""
    ratio: float
    """Over eager PyTorch in the same round, the median of the rounds."""
    ratio_low: float
    ratio_high: float


def speeds(
    model: str, runners: dict[str, Runner], inputs: dict[int, Arrays], *, threads: int, rounds: int
) -> Iterator[Speed]:
    """Every format once a round, the order turned from round to round; the first round warms up and is not counted."""
    clock: Callable[[], float] = time.process_time if threads == 1 else time.perf_counter
    for batch, arrays in inputs.items():
        seconds: dict[str, list[float]] = {name: [] for name in runners}
        for number in range(rounds + 1):
            names = list(runners)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                began = clock()
                runners[name](arrays)
                seconds[name].append(clock() - began)
        for name, times in seconds.items():
            ratios = [eager / own for eager, own in zip(seconds[EAGER][1:], times[1:], strict=True)]
            yield Speed(
                model=model, format=name, threads=threads, batch=batch,
                clips_per_s=batch / statistics.median(times[1:]), ratio=statistics.median(ratios),
                ratio_low=min(ratios), ratio_high=max(ratios),
            )  # fmt: skip


def write_files(graph: Graph, folder: Path) -> dict[str, Path]:
    """The graph in every format."""
    folder.mkdir()
    files = {PROGRAM: folder / "model.pt2", ONNX: folder / "model.onnx", INT8: folder / "int8.onnx"}
    write_program(graph, files[PROGRAM])
    write_onnx(graph, files[ONNX])
    quantize_onnx(files[ONNX], files[INT8])
    return files


def compiled_runner(graph: Graph) -> Runner:
    """The graph through torch.compile, for any batch."""
    torch._dynamo.reset()
    module = torch.compile(graph, dynamic=True)

    def run(arrays: Any) -> Arrays:
        with torch.no_grad():
            outputs = module(**{name: torch.from_numpy(value) for name, value in arrays.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return run


def all_speeds(
    model: str, graph: Graph, files: dict[str, Path], inputs: dict[int, Arrays], *, threads_of: list[int], rounds: int
) -> Iterator[Speed]:
    """Every format, batch and number of threads."""
    for threads in threads_of:
        torch.set_num_threads(threads)
        runners: dict[str, Runner] = {
            EAGER: lambda arrays: run_eager(graph, arrays),
            COMPILED: compiled_runner(graph),
            ONNX: open_onnx(files[ONNX], threads=threads),
            INT8: open_onnx(files[INT8], threads=threads),
        }
        yield from speeds(model, runners, inputs, threads=threads, rounds=rounds)
    torch.set_num_threads(1)


def quantize_with(source: Path, target: Path, kept: tuple[str, ...], arguments: dict[str, Any]) -> None:
    """``source`` in eight bits, except layers whose path holds one of the words ``kept``."""
    import onnx
    from onnxruntime.quantization import QuantType

    excluded = []
    for node in onnx.load(source).graph.node:
        place = next((entry.value for entry in node.metadata_props if entry.key == "namespace"), "")
        if node.op_type == "MatMul" and any(word in place for word in kept):
            excluded.append(node.name)
    if kept and not excluded:
        raise RuntimeError(f"no layer of {source} lies below {kept}: the exporter names them otherwise now")
    given = {name: QuantType[value] if name == "weight_type" else value for name, value in arguments.items()}
    quantize_onnx(source, target, nodes_to_exclude=excluded, **given)


def run_all(runner: Runner, batches: list[Arrays]) -> Arrays:
    """Outputs of all clips."""
    parts = [runner(batch) for batch in batches]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def read_labelled(
    args: argparse.Namespace, model: EmotionRecognizer, spec: InputSpec
) -> tuple[list[Arrays], dict[str, np.ndarray]]:
    """Model inputs in batches of 16, and labels by column: class numbers, or values of a dimension."""
    transform = TransformGraph(spec, model.modalities)
    columns = [*([args.label] if model.targets.classes else []), *model.targets.dimensions]
    rows = select(read_manifest(args.manifest), args.split).clips
    clips = {clip.clip_id: clip for clip in rows if all(name in clip.labels for name in columns)}
    items = [item for item in find_items([args.manifest]) if item.name in clips]
    batches = []
    for start in range(0, len(items), 16):
        some = read_clips(items[start : start + 16], spec, model.modalities)
        decoded = next(some.batches(len(some.frames)))
        batches.append(run_eager(transform, {x.name: decoded[x.name] for x in transform.inputs}))
    labels = {
        name: np.array([float(clips[item.name].labels[name]) for item in items]) for name in model.targets.dimensions
    }
    if model.targets.classes:
        labels[args.label] = np.array(
            [model.targets.classes.index(str(clips[item.name].labels[args.label])) for item in items]
        )
    return batches, labels


def scores(
    outputs: Arrays, exact: Arrays, labels: dict[str, np.ndarray], model: EmotionRecognizer, label: str
) -> dict[str, float]:
    """Accuracy on labelled clips, and distance from eager PyTorch."""
    similar = cosines(exact["features"], outputs["features"])
    found = {"cosine_mean": float(similar.mean()), "cosine_least": float(similar.min())}
    if model.targets.classes:
        said = outputs["probabilities"].argmax(axis=1)
        rated = categorical_scores(labels[label], said, model.targets.classes)
        found |= {"uar": rated.uar, "war": rated.war}
        found["decisions_changed"] = int((said != exact["probabilities"].argmax(axis=1)).sum())
        found["probability_difference"] = float(np.abs(outputs["probabilities"] - exact["probabilities"]).max())
    for number, name in enumerate(model.targets.dimensions):
        found[f"ccc_{name}"] = dimensional_scores(labels[name], outputs["values"][:, number]).ccc
    return found


def choices(
    name: str, files: dict[str, Path], inputs: Arrays, rate: Callable[[Runner], dict[str, float]],
    rounds: int, folder: Path,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """What int8 could touch instead: size, time over float32 ONNX, and ``rate`` of each."""
    for number, (choice, (kept, arguments)) in enumerate(CHOICES.items()):
        path = folder / f"{name}-{number}.onnx"
        quantize_with(files[ONNX], path, kept, arguments)
        runners = {EAGER: open_onnx(files[ONNX], threads=1), choice: open_onnx(path, threads=1)}
        *_, speed = speeds(name, runners, {1: inputs}, threads=1, rounds=rounds)
        yield {
            "model": name, "choice": choice, "megabytes": path.stat().st_size / 1e6, "speed_over_onnx": speed.ratio,
            **rate(runners[choice]),
        }  # fmt: skip
        path.unlink()


def page(result: dict[str, Any]) -> str:
    """formats.md."""
    lines = [
        "# Exported formats: size, speed, and the cost of int8", "",
        f"`{result['command']}`, {result['date']}: {result['processor']},",
        f"torch {result['torch']}, onnxruntime {result['onnxruntime']}; {result['rounds']} counted rounds, "
        f"{result['base_rounds']} of the base model.", "",
        "## Accuracy", "",
        f"{result['recognizer']}: {result['clips']} labelled clips ({result['split']}), the window in the "
        "middle of each, in batches of 16. Features and probabilities are compared with eager PyTorch.", "",
        *_table(result["accuracy"], "format"), "",
        "## Size", "", *_table(result["sizes"], "format"), "",
        "The base model has random weights: size and speed do not depend on them, accuracy would.", "",
        "## Speed", "",
        "Clips (windows of 2.56 s) a second and, in brackets, how often eager PyTorch's in the same round: median,",
        "least, most. One thread by processor time, more by the clock.", "",
        *_speed_table(result["speeds"]), "", "![Clips per second by format](formats.png)", "",
        "## What int8 touches", "",
        "Only linear layers over tokens have fixed weights to store in eight bits; products of attention, softmax,",
        "GELU, LayerNorm and the head stay float32. `speed over onnx` is on one thread, one clip.", "",
        *_table(result["choices"], "choice"), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]], first: str) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    names.remove(first)
    names.insert(0, first)
    lines = [f"| {' | '.join(name.replace('_', ' ') for name in names)} |", "|---" * len(names) + "|"]
    return lines + [f"| {' | '.join(_show(name, row.get(name)) for name in names)} |" for row in rows]


def _show(name: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if name == "probability_difference":
        return f"{value:.1e}"
    if name.startswith("cosine"):
        return f"{value:.6f}"
    return f"{value:.2f}" if "megabytes" in name or "speed" in name else f"{value:.4f}"


def _speed_table(rows: list[dict[str, Any]]) -> list[str]:
    settings = list(dict.fromkeys((row["threads"], row["batch"]) for row in rows))
    heads = [f"{threads} thread{'s' * (threads > 1)}, batch {batch}" for threads, batch in settings]
    lines = [f"| model | format | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for model, name in dict.fromkeys((row["model"], row["format"]) for row in rows):
        cells = [
            f"{row['clips_per_s']:.3g} ({row['ratio']:.2f}, {row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
            for row in rows
            if (row["model"], row["format"]) == (model, name)
        ]
        lines.append(f"| {model} | {name} | {' | '.join(cells)} |")
    return lines


def figure(result: dict[str, Any], path: Path) -> None:
    """Clips per second of every format, a panel a model and number of threads, one clip at a time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in result["speeds"] if row["batch"] == 1]
    models = list(dict.fromkeys(row["model"] for row in rows))
    numbers = list(dict.fromkeys(row["threads"] for row in rows))
    size = (5.5 * len(numbers) + 1.5, 2.2 * len(models) + 0.6)
    chart, grid = plt.subplots(len(models), len(numbers), figsize=size, layout="constrained", squeeze=False)
    for model, line in zip(models, grid, strict=True):
        for threads, axes in zip(numbers, line, strict=True):
            shown = [row for row in rows if (row["model"], row["threads"]) == (model, threads)][::-1]
            colours = ["#9a9a9a" if row["format"] == EAGER else "#2a6f97" for row in shown]
            bars = axes.barh([row["format"] for row in shown], [row["clips_per_s"] for row in shown], color=colours)
            axes.bar_label(bars, [f"{row['clips_per_s']:.3g}  ({row['ratio']:.2f}x)" for row in shown], padding=3)
            axes.set_title(f"{model}, {threads} thread{'s' * (threads > 1)}, one clip at a time", fontsize=10)
            axes.margins(x=0.28)
            axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("clips per second")
    chart.savefig(path, dpi=150)
    plt.close(chart)


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recognizer", type=Path, required=True, help="exported folder of a fine-tuned model")
    parser.add_argument("--manifest", type=Path, required=True, help="labelled clips")
    parser.add_argument("--split", default="test", help="split of the manifest to score")
    parser.add_argument("--label", default="emotion", help="label column of the classes")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="more than one tells something on an idle machine only"
    )
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds")
    parser.add_argument("--out", type=Path, default=Path("bench-formats"), help="folder for formats.{json,md,png}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recognizer, clip_transform = load_recognizer(args.recognizer)
    spec = clip_transform.spec
    batches, labels = read_labelled(args, recognizer, spec)
    torch.manual_seed(0)
    base = ModelConfig.preset("base")
    graphs: dict[str, Graph] = {
        "recogniser": RecognizerGraph(recognizer, spec),
        "base backbone": BackboneGraph(Backbone(base), InputSpec.for_model(base), MODALITIES),
    }
    measured: list[Speed] = []
    sizes: list[dict[str, Any]] = [{"format": name} for name in (EAGER, PROGRAM, ONNX, INT8)]
    chosen: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, graph in graphs.items():
            own = spec if name == "recogniser" else InputSpec.for_model(base)
            files = write_files(graph, Path(folder) / name.replace(" ", "-"))
            for row in sizes:
                path = files.get(row["format"])
                weights = sum(p.numel() * p.element_size() for p in graph.parameters())
                row[f"megabytes, {name}"] = (path.stat().st_size if path else weights) / 1e6
            transform = TransformGraph(own, recognizer.modalities if name == "recogniser" else MODALITIES)
            inputs = {}
            for size in BATCHES:
                decoded = next(random_clips(own).batches(size))
                inputs[size] = run_eager(transform, {x.name: decoded[x.name] for x in transform.inputs})
            rounds = args.rounds if name == "recogniser" else BASE_ROUNDS
            for speed in all_speeds(name, graph, files, inputs, threads_of=args.threads, rounds=rounds):
                measured.append(speed)
                sys.stderr.write(f"{speed}\n")
            exact = (
                run_all(lambda arrays, graph=graph: run_eager(graph, arrays), batches) if name == "recogniser" else {}
            )

            def rate(runner: Runner, exact: Arrays = exact) -> dict[str, float]:
                return scores(run_all(runner, batches), exact, labels, recognizer, args.label) if exact else {}

            if exact:
                accuracy = [
                    {"format": EAGER, **scores(exact, exact, labels, recognizer, args.label)},
                    *({"format": kind, **rate(open_onnx(files[kind], threads=1))} for kind in (ONNX, INT8)),
                ]
            for choice in choices(name, files, inputs[1], rate, rounds, Path(folder)):
                chosen.append(choice)
                sys.stderr.write(f"{choice}\n")
    result = {
        "command": "OMP_NUM_THREADS=1 python -m benchmarks.formats --recognizer FOLDER --manifest FILE "
        f"--threads {' '.join(map(str, args.threads))}",
        "date": datetime.date.today().isoformat(), "processor": processor(), "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__, "rounds": args.rounds, "base_rounds": BASE_ROUNDS,
        "clips": sum(map(len_of, batches)),
        "split": f"split {args.split}",
        "recognizer": f"Recogniser of width {recognizer.backbone.config.width}, "
        f"{sum(p.numel() for p in recognizer.parameters()) / 1e6:.2f} M parameters",
        "accuracy": accuracy, "sizes": sizes, "speeds": [asdict(speed) for speed in measured], "choices": chosen,
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "formats.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / "formats.md").write_text(page(result))
    figure(result, args.out / "formats.png")
    sys.stdout.write(page(result))
    return 0


def len_of(batch: Arrays) -> int:
    """Clips in a batch."""
    return len(next(iter(batch.values())))


def processor() -> str:
    """The machine, and whether it multiplies eight-bit integers in hardware, which decides what int8 gains."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.is_file() else ""
    have = [name for name in ("avx2", "avx512_vnni", "amx_int8") if name in flags]
    return f"{os.cpu_count()} cores, {platform.machine()} with {', '.join(have) or 'no int8 instructions known'}"


if __name__ == "__main__":
    sys.exit(main())
