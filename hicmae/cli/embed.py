"""``hicmae embed``: features of video files, with an exported model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("paths", nargs="+", type=Path, help="media files, or folders that hold them")
    parser.add_argument("--model", required=True, type=Path, help="exported folder")
    parser.add_argument("-o", "--out", type=Path, default=Path("embeddings.parquet"), help="table to write (.parquet)")
    parser.add_argument("--hop-s", type=float, help="seconds between windows; without it, one window in the middle")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def run(args: argparse.Namespace) -> int:
    """Write one row per window; failures are named. Returns 1 if any file failed, else 0."""
    import pandas as pd
    import torch
    from rich.console import Console
    from rich.progress import track

    from hicmae.checkpoint import load_backbone
    from hicmae.embedding import embed_file, find_media
    from hicmae.media.decode import DecodeError

    if args.out.suffix != ".parquet":
        raise ValueError(f"--out {args.out} must end in .parquet")
    if args.hop_s is not None and args.hop_s <= 0:
        raise ValueError(f"--hop-s {args.hop_s} must be positive (seconds)")
    files = find_media(args.paths)
    backbone, transform = load_backbone(args.model)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    backbone.to(device)
    console = Console(stderr=True)
    rows, failures = [], []
    for path in track(files, description="embedding", console=console):
        try:
            rows += [
                {"path": str(e.path), "start_s": e.start_s, "modalities": e.modalities, "pooled": e.pooled.tolist()}
                for e in embed_file(backbone, transform, path, hop_s=args.hop_s)
            ]
        except DecodeError as error:
            failures.append(path)
            console.print(f"failed: {error}", soft_wrap=True, highlight=False, markup=False)
    if rows:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        draft = args.out.with_name(f".{args.out.name}.draft")
        pd.DataFrame(rows).to_parquet(draft)
        draft.replace(args.out)
    sys.stdout.write(
        f"{len(rows)} windows of {len(files) - len(failures)} files in {args.out}, {len(failures)} files failed\n"
    )
    return 1 if failures else 0
