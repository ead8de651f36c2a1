"""``hicmae faces``: cut the face out of each clip of a manifest."""

from __future__ import annotations

import argparse
import errno
import os
import time
from collections import Counter
from pathlib import Path

_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``hicmae faces``."""
    parser.add_argument("manifest", type=Path, help="CSV or Parquet, one row a clip")
    parser.add_argument("out", type=Path, help="folder for manifest.csv, rejects.csv, sheet.png and the face clips")
    parser.add_argument("--detector", choices=("yunet", "haar"), default="yunet", help="what finds the faces")
    parser.add_argument("--model", type=Path, default=None, metavar="FILE",
                        help="weights of the detector (default: those installed with it)")  # fmt: skip
    parser.add_argument("--margin", type=float, default=0.3, metavar="FRACTION",
                        help="added on each side of the face, as a fraction of its longer side")  # fmt: skip
    parser.add_argument("--size", type=int, default=224, metavar="PIXELS", help="side of the pictures written")
    parser.add_argument("--every", type=int, default=3, metavar="N", help="look for faces in every N-th frame")
    parser.add_argument("--min-share", type=float, default=0.5, metavar="SHARE",
                        help="reject clips in which a smaller share of these frames shows the face")  # fmt: skip
    parser.add_argument("--smooth-s", type=float, default=0.12, metavar="SECONDS",
                        help="how far the path is smoothed in time (standard deviation)")  # fmt: skip
    parser.add_argument("--region", type=_region, default=None, metavar="T,L,B,R",
                        help="look in this part alone, as fractions: 0,0,1,0.5 is the left half")  # fmt: skip
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")


def _region(text: str) -> tuple[float, float, float, float]:
    try:
        top, left, bottom, right = (float(piece) for piece in text.split(","))
    except ValueError:
        message = f"{text!r} is not top,left,bottom,right as fractions, for instance 0,0,1,0.5"
        raise argparse.ArgumentTypeError(message) from None
    return top, left, bottom, right


def run(args: argparse.Namespace) -> int:
    """Write the face clips; 1 when every clip was rejected."""
    from concurrent.futures.process import BrokenProcessPool

    try:
        return _write(args)
    except BrokenProcessPool as error:
        raise ValueError(
            "a process that looks for faces was killed, as happens when memory runs out; run the same command again, "
            "with fewer --workers: finished clips stay"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ValueError(
                f"no space left while writing ({error}); free some and run the same command again: finished clips stay"
            ) from error
        raise


def _write(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from hicmae.data.manifest import read_manifest
    from hicmae.faces.job import MANIFEST_NAME, write_faces
    from hicmae.faces.sheet import SHEET_NAME
    from hicmae.faces.tracker import FaceTracker

    tracker = FaceTracker(
        detector=args.detector, model=args.model, margin=args.margin, every=args.every, min_share=args.min_share,
        smooth_s=args.smooth_s,
    )  # fmt: skip
    manifest = read_manifest(args.manifest)
    console = Console()
    started = time.monotonic()
    with Progress(console=console) as progress:
        bar = progress.add_task("faces", total=None)
        report = write_faces(
            manifest, args.out, tracker=tracker, size=args.size, region=args.region, workers=args.workers,
            on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )  # fmt: skip

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    if report.already_done:
        say(f"{report.already_done} clips were finished before")
    new = len(report.clips) + len(report.rejected) - report.already_done
    say(f"{len(report.clips)} face clips in {args.out}, {len(report.rejected)} rejected "
        f"({new / max(1e-9, time.monotonic() - started):.1f} clips/s)")  # fmt: skip
    for reason, count in Counter(reject.reason for reject in report.rejected).most_common():
        say(f"  {reason}: {count}")
    for reject in report.rejected[:_SHOWN]:
        say(f"  {reject.clip_id}: {reject.detail}")
    if len(report.rejected) > _SHOWN:
        say(f"  ... and {len(report.rejected) - _SHOWN} more, in rejects.csv")
    for doubt in report.doubts:
        say(doubt)
    if not report.clips:
        say("every clip was rejected", style="red")
        return 1
    say(f"{args.out / MANIFEST_NAME}: {len(report.clips)} clips; look at {args.out / SHEET_NAME} before you go on")
    return 0
