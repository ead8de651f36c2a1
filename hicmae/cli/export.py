"""``hicmae export``: a training checkpoint as a folder that ``load_backbone`` and ``load_recognizer`` read."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("checkpoint", help="a .ckpt of ours, the authors' .pth or .safetensors, or an exported folder")
    parser.add_argument("out", help="folder to write")
    parser.add_argument(
        "--backbone-only",
        action="store_true",
        help="leave out the head of a fine-tuned model (always for the authors')",
    )


def run(args: argparse.Namespace) -> int:
    """Export; returns 0."""
    from hicmae.backbone import Backbone
    from hicmae.checkpoint import read_backbone, read_recognizer, save_export

    provenance = {"exported_from": args.checkpoint.rstrip("/").rsplit("/", 1)[-1]}
    weights = read_backbone(args.checkpoint)
    recognizer = None if args.backbone_only else read_recognizer(args.checkpoint)
    if recognizer is not None:
        folder = save_export(args.out, recognizer, spec=weights.spec, provenance=provenance)
    else:
        backbone = Backbone(weights.config)
        backbone.load_state_dict(weights.state)
        folder = save_export(args.out, backbone, spec=weights.spec, provenance=provenance)
    sys.stdout.write(f"exported the {'recogniser' if recognizer is not None else 'backbone'} to {folder}\n")
    return 0
