"""``hicmae serve``: a page in the browser that shows what a recogniser says along a video."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="exported folder of a recogniser")
    parser.add_argument("--port", type=int, default=7860, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; other computers reach another one")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument("--faces", action="store_true", help="follow the face through each file (extra faces)")
    parser.add_argument("--hop-s", type=float, help="seconds from one window to the next (default: side by side)")
    parser.add_argument(
        "--missing", choices=("fail", "blank"), default="fail", help="where picture or sound is missing"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--max-mb", type=int, default=500, help="largest file that is taken, in megabytes")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; returns 0."""
    import signal
    import threading
    import webbrowser

    from hicmae.inference.prediction_job import PredictionJob
    from hicmae.inference.predictor import Predictor
    from hicmae.serve.server import serving

    if args.max_mb < 1:
        raise ValueError(f"--max-mb {args.max_mb} must be at least 1")
    asked: dict[str, Any] = dict(
        hop_s=args.hop_s, faces=args.faces, missing=args.missing, batch_size=2
    )  # windows appear as they come
    predictor = Predictor.load(args.model, device=args.device, **asked)
    settings = PredictionJob(model=args.model, **asked).about(predictor.targets)
    ended = threading.Event()
    with serving(predictor, settings=settings, host=args.host, port=args.port, max_mb=args.max_mb) as address:
        sys.stdout.write(f"{predictor.name} is served at {address} ; Ctrl-C ends it and deletes what was uploaded\n")
        sys.stdout.flush()
        if args.open:
            webbrowser.open(address)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        ended.wait()
    return 0
