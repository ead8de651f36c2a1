"""``hicmae embed``: features of video files, window by window, with an exported model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hicmae.inference.embedding_job import EmbedReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("paths", nargs="+", help="media files, folders, quoted patterns, manifests, or shards")
    parser.add_argument("--model", required=True, type=Path, help="exported folder")
    parser.add_argument("-o", "--out", type=Path, default=Path("embeddings.parquet"),
                        help="table to write, .parquet or .npz")  # fmt: skip
    parser.add_argument("--features", default="pooled", metavar="KINDS",
                        help="pooled (all in one vector), video, audio, fused, with commas between")  # fmt: skip
    parser.add_argument("--layers", default="", metavar="N,N,...",
                        help="also the mean over tokens after these encoder layers, from 0; or all")  # fmt: skip
    windows = parser.add_mutually_exclusive_group()
    windows.add_argument("--hop-s", type=float, metavar="SECONDS",
                         help="from one window to the next (default: side by side)")  # fmt: skip
    windows.add_argument("--middle", action="store_true", help="only the window in the middle of each file")
    parser.add_argument("--workers", type=int, metavar="N",
                        help="processes (default: one a core, at most 8, and 4 a CUDA device)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, metavar="N",
                        help="of each process, on processors; more serve few, long files")  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=8, metavar="N",
                        help="windows of a file that go through the model together")  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (all of them), cuda:1, ...")
    parser.add_argument("--bf16", action="store_true",
                        help="compute in bfloat16: faster where the device has it, two digits fewer")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write one row a window; failures are named. Returns 1 if any file failed, else 0."""
    from hicmae.checkpoint import read_export
    from hicmae.inference.devices import job_devices
    from hicmae.inference.embedder import EmbedSettings
    from hicmae.inference.embedding_files import SUFFIXES
    from hicmae.inference.embedding_job import embed_files
    from hicmae.inference.items import find_items
    from hicmae.inference.progress import JobProgress
    from hicmae.inference.windows import WindowSettings

    if args.out.suffix not in SUFFIXES:
        raise ValueError(f"--out {args.out} must end in {' or '.join(SUFFIXES)}")
    devices = job_devices(args.device, args.workers)
    settings = EmbedSettings(
        features=tuple(_words(args.features)),
        layers=_layers(args.layers, read_export(args.model).config.depth),
        windows=WindowSettings(hop_s=args.hop_s, middle=args.middle),
        batch_size=args.batch_size,
        bf16=args.bf16,
    )
    items = find_items(args.paths)
    with JobProgress("embedding") as progress:
        report = embed_files(
            items, args.model, args.out, settings, devices=devices, listener=progress, threads=args.threads
        )  # fmt: skip
    _say(report, args.out)
    return 1 if report.failures else 0


def _words(text: str) -> list[str]:
    return [word for word in text.replace(",", " ").split() if word]


def _layers(text: str, depth: int) -> tuple[int, ...]:
    if text.strip() == "all":
        return tuple(range(depth))
    try:
        return tuple(sorted({int(word) for word in _words(text)}))
    except ValueError:
        raise ValueError(f"--layers {text!r} must be numbers with commas between (0,3,9), or all") from None


def _say(report: EmbedReport, out: Path) -> None:
    from hicmae.inference.embedding_job import by_reason

    kinds = {"video": "picture alone", "audio": "sound alone", "": "neither"}
    short = "".join(f", {count} of them with {kinds[kind]}" for kind, count in report.windows.items() if kind in kinds)
    files = report.files - len(report.failures)
    sys.stdout.write(f"{sum(report.windows.values())} windows of {files} files in {out}{short}\n")
    if not report.computed:
        sys.stdout.write("all of it was computed before\n")
    if report.failures:
        sys.stdout.write(
            f"{len(report.failures)} of {report.files} files failed ({by_reason(report.failures)}): "
            f"{report.failures_file}\n"
        )
