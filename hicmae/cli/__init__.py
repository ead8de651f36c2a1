"""The ``hicmae`` command: one module a subcommand, loaded only when it is called."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

import hicmae

# name -> (module with add_arguments(parser) and run(args) -> int, one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo-data": ("hicmae.cli.demo_data", "make a synthetic corpus of talking faces (mp4 files and a manifest)"),
    "manifest": ("hicmae.cli.manifest", "make a manifest from folders of media files"),
    "prepare": ("hicmae.cli.prepare", "a benchmark as downloaded, or a manifest, to checked clips in shards"),
    "faces": ("hicmae.cli.faces", "cut the face out of each clip of a manifest"),
    "shards": ("hicmae.cli.shards", "pack a manifest's clips into WebDataset shards; inspect or verify them"),
    "export": ("hicmae.cli.export", "a checkpoint as a folder for load_backbone, as ONNX, or for torch.export"),
    "convert": (
        "hicmae.cli.convert",
        "the authors' checkpoints to exported folders and back, every name accounted for",
    ),
    "embed": ("hicmae.cli.embed", "features of video files, with an exported model"),
    "predict": ("hicmae.cli.predict", "emotions of video files, window by window, with an exported recogniser"),
    "serve": ("hicmae.cli.serve", "a page in the browser: drop a video on it, see its emotions over time"),
    "report": ("hicmae.cli.report", "one self-contained HTML page about a training run"),
    "figures": ("hicmae.cli.figures", "pictures to look at: reconstructions, features, attention, learning curves"),
    "bench": ("hicmae.cli.bench", "speed of each stage of training on this machine, and beside the authors' code"),
    "doctor": ("hicmae.cli.doctor", "check this machine: versions, devices, decoders, one clip, one step"),
}


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; only the subcommand named in ``argv`` is imported and given its arguments."""
    parser = argparse.ArgumentParser(
        prog="hicmae",
        description="HiCMAE: audio-visual emotion recognition with masked autoencoders. "
        "Training: 'python -m pretrain fit --help' and 'python -m finetune fit --help'.",
    )
    parser.add_argument("--version", action="version", version=f"hicmae {hicmae.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((word for word in argv if not word.startswith("-")), None)
    for name, (module_name, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        if name == wanted:
            module = importlib.import_module(module_name)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand. What a user can cause ends with one line on stderr and exit status 2."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = build_parser(argv).parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        status: int = args.run(args)
    except (ValueError, OSError) as error:  # of the disk too: it may be full, or not to be written
        sys.stderr.write(f"hicmae {args.command}: error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"hicmae {args.command}: interrupted\n")
        return 130
    return status
