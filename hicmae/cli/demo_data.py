"""``hicmae demo-data``: make the synthetic corpus of talking faces."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

_SIZES = (
    ("speakers", 24, "labelled speakers: training, validation and test together"),
    ("val-speakers", 4, "of these, for validation"),
    ("test-speakers", 8, "of these, for the test"),
    ("clips-per-speaker", 16, "clips of each labelled speaker; a multiple of 8 balances the emotions"),
    ("unlabelled-speakers", 24, "further speakers for pre-training; their labels are left empty"),
    ("unlabelled-clips-per-speaker", 16, "clips of each unlabelled speaker"),
    ("seed", 0, "everything is drawn from this number"),
    ("size", 160, "side of the square frames, in pixels; even"),
)

_SHARES = (
    ("agreement", 0, 1, 0.0, "how far face and voice tell the same; 0: the face the valence, the voice the arousal"),
    ("intensity", 0, 3, 1.0, "factor of how strongly emotion is shown and heard, against the same noise"),
    ("framing", 0.5, 1.6, 1.0, "factor of the head's size in the frame"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand; the defaults are those of ``CorpusSettings`` (a test holds them together)."""
    parser.add_argument("out", type=Path, help="folder to make; continued if it holds a part of the same corpus")
    for name, default, text in _SIZES:
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    parser.add_argument(
        "--seconds",
        type=float,
        nargs=2,
        default=(2.8, 4.0),
        metavar=("MIN", "MAX"),
        help="range of lengths, in seconds",
    )
    for name, low, high, usual, text in _SHARES:
        parser.add_argument(f"--{name}", type=float, default=usual, help=f"{text}; {low} to {high}")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--contact-sheet", type=Path, metavar="PNG", help="also draw speakers and emotions into this picture"
    )


def run(args: argparse.Namespace) -> int:
    """Make the corpus with a progress bar, then say where it is."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from hicmae.data.synthetic import CorpusSettings, plan_clips, write_corpus

    sizes = {name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name, _, _ in _SIZES}
    shares = {name: getattr(args, name) for name, *_ in _SHARES}
    settings = CorpusSettings(min_seconds=args.seconds[0], max_seconds=args.seconds[1], **sizes, **shares)
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("synthetic clips", total=len(plan_clips(settings)))
        manifest = write_corpus(
            args.out,
            settings,
            workers=args.workers,
            on_progress=lambda done, total: progress.update(bar, completed=done),
        )
    if args.contact_sheet:
        from hicmae.data.synthetic.sheet import write_contact_sheet

        write_contact_sheet(args.contact_sheet, settings)
        console.print(f"contact sheet: {args.contact_sheet}", soft_wrap=True, highlight=False)
    what = f"{len(plan_clips(settings))} synthetic clips: made by formulas, not recorded from people"
    console.print(f"manifest: {manifest} ({what})", soft_wrap=True, highlight=False)
    return 0
