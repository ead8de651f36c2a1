"""``hicmae predict``: emotions of video files, window by window, with an exported recogniser."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hicmae.heads import Targets
    from hicmae.inference.items import MediaItem
    from hicmae.inference.job import JobReport
    from hicmae.inference.results import FilePrediction

_WIDE = 160  # columns of a table that is not shown on a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("paths", nargs="+", help="media files, folders, patterns, manifests, or shards")
    parser.add_argument("--model", required=True, type=Path, help="exported folder of a recogniser")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("-o", "--out", type=Path, metavar="FILE",
                        help="write .json, or a table .csv or .parquet; without it a table is shown")  # fmt: skip
    output.add_argument("--json", action="store_true", help="write JSON to stdout, and all else to stderr")
    parser.add_argument("--figure", type=Path, metavar="PLACE",
                        help="draw each file over time: into a folder, or FILE.png if there is one file")  # fmt: skip
    windows = parser.add_mutually_exclusive_group()
    windows.add_argument("--hop-s", type=float, metavar="SECONDS",
                         help="from one window to the next (default: side by side)")  # fmt: skip
    windows.add_argument("--segments", type=int, metavar="N",
                         help="N windows spread evenly over each file; tests of fine-tuning take 2")  # fmt: skip
    parser.add_argument("--faces", action="store_true",
                        help="follow the face, for pictures that are no face crops (extra 'faces')")  # fmt: skip
    parser.add_argument("--missing", choices=("fail", "blank"), default="fail",
                        help="a file without the picture or sound that the recogniser was built for fails, or is given "
                        "black or silence instead")  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="N",
                        help="processes (default: one a core, at most 8, and 4 a CUDA device)")  # fmt: skip
    parser.add_argument("--threads", type=int, metavar="N",
                        help="of each process, on processors (default: one where there are several)")  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=8, metavar="N",
                        help="windows that go through the model together")  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--bf16", action="store_true",
                        help="compute in bfloat16: faster where the device has it, two digits fewer")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Predict all files; failures are named. Returns 1 if any file failed, else 0."""
    from hicmae.cli.prediction_tables import show_window
    from hicmae.inference.devices import job_devices
    from hicmae.inference.items import find_items
    from hicmae.inference.job import run_job
    from hicmae.inference.journal import open_journal, remove_journal
    from hicmae.inference.prediction_files import SUFFIXES, check_replaceable
    from hicmae.inference.prediction_job import PredictionJob
    from hicmae.inference.progress import JobProgress

    if args.out is not None and args.out.suffix not in SUFFIXES:
        raise ValueError(f"--out {args.out} must end in {', '.join(SUFFIXES)}")
    if args.out is not None:
        check_replaceable(args.out)
    items = find_items(args.paths)
    devices = job_devices(args.device, args.workers)[: len(items)]
    job = PredictionJob(
        model=args.model, hop_s=args.hop_s, segments=args.segments, faces=args.faces, missing=args.missing,
        batch_size=args.batch_size, bf16=args.bf16, figures=_figures(args.figure, items),
        threads=args.threads if args.threads is not None or len(devices) == 1 else 1,
    )  # fmt: skip
    targets = job.check()
    with ExitStack() as stack:
        # Without a file to go on with, the journal is only a place for results on their way.
        out = args.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hicmae-predict-"))) / "out"
        journal = stack.enter_context(open_journal(out, job.settings(devices)))
        before = [item for item in items if journal.done(item)]
        with JobProgress("predicting") as progress:
            begin = job.begin
            if len(items) == 1:
                show = functools.partial(show_window, progress.console, targets)
                begin = functools.partial(job.begin, on_window=show)
            report = run_job(journal, items, begin, devices=devices, listener=progress)
        for item in before if job.figures else ():
            if journal.failure(item) is None:
                job.draw(job.result(journal, item, targets))

        def predictions() -> Iterator[FilePrediction]:
            for item in items:
                if journal.failure(item) is None:
                    yield job.result(journal, item, targets)

        _write(args, predictions(), report, targets, job.about(targets))
        if args.out is not None:
            remove_journal(args.out)
    return report.status


def _write(
    args: argparse.Namespace,
    predictions: Iterator[FilePrediction],
    report: JobReport,
    targets: Targets,
    about: dict[str, object],
) -> None:
    from rich.console import Console

    from hicmae.cli.prediction_tables import say, show_end, show_files
    from hicmae.inference.prediction_files import write_json_predictions, write_predictions

    warnings = _Warnings(predictions)
    console = Console(stderr=args.json, width=None if sys.stdout.isatty() else _WIDE)
    if args.out is not None:
        written = write_predictions(args.out, warnings, report.failures, targets=targets, about=about)
        say(console, f"{report.files - len(report.failures)} files in {', '.join(map(str, written))}")
    elif args.json:
        write_json_predictions(sys.stdout, warnings, report.failures, about=about)
    else:
        show_files(console, warnings, targets)
    show_end(console, warnings.kinds, report.failures, files=report.files, classes=bool(targets.classes))


class _Warnings:
    """Counts the warnings of predictions on their way."""

    def __init__(self, predictions: Iterator[FilePrediction]) -> None:
        self._predictions = predictions
        self.kinds: dict[str, list[str]] = {}
        """By the kind of a warning, the first such sentence with its file, and how many files have one."""

    def __iter__(self) -> Iterator[FilePrediction]:
        for prediction in self._predictions:
            for warning in prediction.warnings:
                kind, sentence = warning.split(": ", 1)
                self.kinds.setdefault(kind, []).append(f"{prediction.name}: {sentence}")
            yield prediction


def _figures(place: Path | None, items: Sequence[MediaItem]) -> dict[str, Path]:
    """Where the picture of each item goes."""
    if place is None:
        return {}
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--figure needs matplotlib, which is not installed: pip install 'hicmae[figures]'")
    if place.suffix == ".png":
        if len(items) > 1:
            raise ValueError(f"--figure {place} is one picture, and there are {len(items)} files; name a folder")
        return {items[0].name: place}
    stems = Counter(Path(item.name).stem for item in items)
    taken: dict[str, str] = {}
    for item in items:
        stem = Path(item.name).stem
        if stems[stem] > 1:  # of files that are called the same in different folders, the folders too
            stem = re.sub(r"[^\w.-]+", "_", item.name).strip("_")
        stem = next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, len(items) + 2))) if name not in taken)
        taken[stem] = item.name
    return {name: place / f"{stem}.png" for stem, name in taken.items()}
