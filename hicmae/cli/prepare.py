"""``hicmae prepare``: a benchmark as it was downloaded, or a manifest, to checked clips in shards, with a report."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hicmae.cli.packing import Bar, add_storage_arguments, progress_bars, show_rejects, storage_of, work_that_can_go_on
from hicmae.cli.prepare_cards import card_text, list_cards

if TYPE_CHECKING:
    from rich.console import Console

    from hicmae.faces import FaceTracker
    from hicmae.prepare.corpus import Corpus
    from hicmae.prepare.report import PrepareReport

_MANIFESTS = (".csv", ".parquet")
_SHOWN = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``hicmae prepare``."""
    parser.add_argument("corpus", nargs="?", help="a benchmark's name, or a manifest (.csv, .parquet)")
    parser.add_argument("--list", action="store_true", help="show the benchmarks that are known, and how to get them")
    parser.add_argument("--card", action="store_true",
                        help="show all that is known of the benchmark: layout, terms, what was confirmed")  # fmt: skip
    parser.add_argument("--root", type=Path, default=argparse.SUPPRESS, metavar="DIR",
                        help="folder of the benchmark as it was unpacked")  # fmt: skip
    parser.add_argument("--out", type=Path, default=argparse.SUPPRESS, metavar="DIR",
                        help="gets manifest.csv, shards/, report.md, report.json and rejects.csv")  # fmt: skip
    parser.add_argument("--strict", action="store_true",
                        help="end with status 1 when a count is not as expected or a clip is rejected")  # fmt: skip
    parser.add_argument("--allow-shared-subjects", action="store_true",
                        help="warn of speakers in two splits instead of refusing them")  # fmt: skip

    faces = parser.add_argument_group("faces")
    faces.add_argument("--faces", action=argparse.BooleanOptionalAction, default=False,
                       help="cut films to the speaker's face, one smooth square a clip (extra 'faces')")  # fmt: skip
    faces.add_argument("--detector", default=argparse.SUPPRESS, help="what finds faces (default: yunet; or haar)")
    faces.add_argument("--model", type=Path, default=argparse.SUPPRESS, metavar="FILE",
                       help="weights of the detector (default: those it is installed with)")  # fmt: skip
    faces.add_argument("--margin", type=float, default=argparse.SUPPRESS, metavar="SHARE",
                       help="space on each side, as a share of the face (default: 0.3)")  # fmt: skip
    faces.add_argument("--min-share", type=float, default=argparse.SUPPRESS, metavar="SHARE",
                       help="least share of frames with the face, or the clip is rejected (default: 0.5)")  # fmt: skip

    shards = parser.add_argument_group("shards")
    add_storage_arguments(shards, default_format=None)
    shards.add_argument("--shards", action=argparse.BooleanOptionalAction, default=True, help="pack the clips")
    shards.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")

    own = parser.add_argument_group("of a manifest")
    own.add_argument("--folds", type=int, default=argparse.SUPPRESS, metavar="K",
                     help="make K folds, no speaker in two of them (default: keep the manifest's splits)")  # fmt: skip
    own.add_argument("--seed", type=int, default=argparse.SUPPRESS, help="of the folds (default: 0)")
    own.add_argument("--stratify", default=argparse.SUPPRESS, metavar="COLUMN",
                     help="label to balance over the folds (default: emotion, else the first text label)")  # fmt: skip
    own.add_argument("--frame-rate", type=float, default=argparse.SUPPRESS, metavar="FPS",
                     help="of folders of pictures, in frames a second (default: they fill the time of their sound)")  # fmt: skip  # noqa: E501


def run(args: argparse.Namespace) -> int:
    """Show cards, or prepare a corpus; 0 when all is well."""
    from rich.console import Console

    console = Console()
    if args.list:
        list_cards(console)
        return 0
    if args.corpus is None:
        raise ValueError("name a benchmark ('hicmae prepare --list' shows them) or a manifest")
    if args.card:
        console.print(card_text(args.corpus), markup=False, highlight=False, soft_wrap=True)
        return 0
    corpus = _read(args)
    with work_that_can_go_on("finished clips and shards"):
        return _prepare(args, corpus, console)


def _read(args: argparse.Namespace) -> Corpus:
    from hicmae.prepare.corpus import benchmark_corpus, manifest_corpus

    if "out" not in args:
        raise ValueError(f"--out is missing: name a folder for what is made of {args.corpus}")
    folds = {name: getattr(args, name) for name in ("seed", "stratify") if name in args}
    if Path(args.corpus).suffix.lower() in _MANIFESTS:
        if "root" in args:
            raise ValueError("--root goes with a benchmark; paths of a manifest are relative to its own folder")
        if folds and "folds" not in args:
            raise ValueError(f"--{next(iter(folds))} goes with --folds, which is missing")
        return manifest_corpus(
            Path(args.corpus), folds=getattr(args, "folds", None), **folds,
            frame_rate=getattr(args, "frame_rate", None), allow_shared_subjects=args.allow_shared_subjects,
        )  # fmt: skip
    if Path(args.corpus).is_dir():
        raise ValueError(
            f"{args.corpus} is a folder: name a benchmark and give its folder as --root, or make a manifest of the "
            "folder with 'hicmae manifest tree'"
        )
    own = {"folds": "folds", "seed": "folds", "stratify": "folds", "frame_rate": "frame rates"}
    if given := [name for name in own if name in args]:
        option = given[0].replace("_", "-")
        raise ValueError(f"--{option} goes with a manifest; a benchmark has its own {own[given[0]]}")
    if "root" not in args:
        raise ValueError(f"--root is missing: where is the folder of {args.corpus}? --card shows its layout")
    return benchmark_corpus(args.corpus, args.root, allow_shared_subjects=args.allow_shared_subjects)


def _prepare(args: argparse.Namespace, corpus: Corpus, console: Console) -> int:
    from hicmae.prepare.checks import whole_files_warning
    from hicmae.prepare.run import PrepareSettings, prepare, stores_whole_files, write_first_report

    faces = _tracker(args)
    long_files = stores_whole_files(corpus, faces)
    picture = args.format if "format" in args else "h264" if long_files else "original"
    storage = storage_of(args, picture=picture) if args.shards else None
    settings = PrepareSettings(faces=faces, storage=storage, shard_mb=args.shard_mb, workers=args.workers)
    report = corpus.report()
    _say(console, f"{corpus.title}: {report.found.clips} clips found in {corpus.root}")
    for warning in report.warnings:
        _say(console, f"warning: {warning}", "yellow")
    if storage is not None and picture == "original" and long_files:
        _say(console, f"warning: {whole_files_warning([native.clip for native in corpus.clips])}", "yellow")
    if found := report.differences:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        shown = "; ".join(map(str, found[:_SHOWN]))
        _say(console, f"warning: not the expected counts: {shown}{more}", "yellow")
    if args.strict and not report.as_expected:
        write_first_report(corpus, args.out, settings)
        show_rejects(report.rejected, console)
        _say(
            console,
            f"not what was expected: nothing was packed, because of --strict; see {args.out / 'report.md'}",
            "red",
        )
        return 1

    with progress_bars(console) as progress:
        bars: dict[str, Bar] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = Bar(progress, stage)
            bars[stage](done, total)

        done = prepare(corpus, args.out, settings, on_progress=show)
    for warning in done.warnings:
        if warning not in report.warnings:
            _say(console, f"warning: {warning}", "yellow")
    _show(done, args, corpus, console)
    if not done.usable.clips:
        return 1
    if args.strict and not done.as_expected:
        _say(console, "not as expected (--strict)", "red")
        return 1
    return 0


def _tracker(args: argparse.Namespace) -> FaceTracker | None:
    given = {name: getattr(args, name) for name in ("detector", "model", "margin", "min_share") if name in args}
    if not args.faces:
        if given:
            raise ValueError(f"--{next(iter(given)).replace('_', '-')} goes with --faces, which is missing")
        return None
    from hicmae.faces import FaceTracker
    from hicmae.faces.detector import make_detector

    tracker = FaceTracker(**given)
    assert isinstance(tracker.detector, str)
    make_detector(tracker.detector, tracker.model)  # what is not installed is said now, and not by a worker
    return tracker


def _show(done: PrepareReport, args: argparse.Namespace, corpus: Corpus, console: Console) -> None:
    """Counts, rejects, where things are, and what to run next."""
    from rich.table import Table

    from hicmae.prepare.checks import shared_subjects
    from hicmae.prepare.config_lines import config_lines
    from hicmae.prepare.report import duration_text
    from hicmae.prepare.run import FACES_SHEET, MANIFEST_NAME, SHARDS_NAME

    table = Table("", "expected", "found", "usable", "")
    for row in done.counts():
        table.add_row(*row)
    console.print(table, markup=False, highlight=False)
    if done.rejected:
        _say(console, f"{len(done.rejected)} clips were rejected:")
        show_rejects(done.rejected, console)
    for reason, count in done.left_out.items():
        _say(console, f"not used by this benchmark: {count} clips, {reason}")
    _say(console, f"durations: {duration_text(done.usable)}")
    if done.unconfirmed:
        _say(console, f"{len(done.unconfirmed)} things about this corpus are assumed; they are in the report")
    shards = args.out / SHARDS_NAME if args.shards else None
    _say(console, f"{args.out / MANIFEST_NAME}, {f'{shards}/, ' if shards else ''}{args.out / 'report.md'}")
    if (sheet := args.out / FACES_SHEET).exists():
        _say(console, f"look at {sheet} before you go on")
    if not done.usable.clips:
        _say(console, "every clip was rejected", "red")
    elif corpus.is_benchmark:
        # a benchmark's configuration names shards, and takes one of the two
        files = f"--data.shards null --data.manifest {args.out / MANIFEST_NAME}"
        data = f"--data.shards '[{shards}]'" if shards else files
        job = "folds" if any(split.startswith("fold") for split in done.usable.splits) else "fit"
        _say(console, f"next: python -m finetune {job} --config configs/finetune/{corpus.name}.yaml {data}")
    else:
        shared = bool(shared_subjects(native.clip for native in corpus.clips))
        lines = config_lines(
            corpus.labels, done.usable, shards=shards, manifest=args.out / MANIFEST_NAME, shared_subjects=shared
        )
        _say(console, f"for a fine-tuning configuration, over configs/finetune/demo.yaml:\n\n{lines}")


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
