"""``hicmae convert``: the authors' checkpoints to exported folders and back, with a report of every name."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "source", metavar="IN", help="the authors' .pth or .safetensors; or an exported folder or .ckpt"
    )
    parser.add_argument(
        "out",
        metavar="OUT",
        help="the exported folder to write; from ours, a .pth or .safetensors in the authors' names",
    )
    parser.add_argument(
        "--to", choices=("hicmae", "reference"), help="what to write; only the other side of IN is possible"
    )
    parser.add_argument("--classes", metavar="A,B,...", help="names of a fine-tuned model's classes, in order")
    parser.add_argument("--dimensions", metavar="A,B,...", help="names of a regression's values, in order")
    parser.add_argument(
        "--config",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="what the file does not tell, as in config.json: image_size=112, audio_frames=512, heads=4, taps=3,6,9",
    )
    parser.add_argument("--backbone-only", action="store_true", help="leave out the head of a fine-tuned model")
    parser.add_argument("--with-decoder", action="store_true", help="keep the decoders of a pre-training checkpoint")
    parser.add_argument("--report", metavar="FILE", help="write the table of names there (.csv, .json, .md), not here")


def run(args: argparse.Namespace) -> int:
    """Convert; returns 0. The report is written also where names do not fit, which is an error."""
    from hicmae.reference.conversion import (
        Wanted,
        check_reference_name,
        is_ours,
        parse_fields,
        read_ours,
        read_theirs,
        write_ours,
        write_theirs,
    )
    from hicmae.reference.report import as_text, check_format, summary, write_rows

    to = "reference" if is_ours(args.source) else "hicmae"
    if args.to not in (None, to):
        raise ValueError(
            f"{args.source} is {'ours' if to == 'reference' else 'not ours'}: only --to {to} is possible"
            + ("; hicmae export makes a folder of a .ckpt" if to == "reference" else "")
        )
    if args.report:
        check_format(args.report)
    if to == "reference":
        _refuse_options(args)
        check_reference_name(args.out)
        found = read_ours(args.source)
    else:
        found = read_theirs(
            args.source,
            Wanted(
                config=parse_fields(args.config),
                classes=_names(args.classes),
                dimensions=_names(args.dimensions),
                backbone_only=args.backbone_only,
                with_decoder=args.with_decoder,
            ),
        )
    if args.report:
        write_rows(found.rows, args.report)
    else:
        sys.stdout.write(as_text(found.rows) + "\n")
    if to == "reference":
        written = write_theirs(found, args.out)
    else:
        written = write_ours(found, args.out, with_decoder=args.with_decoder)
    sys.stdout.write("".join(f"{note}\n" for note in found.notes))
    sys.stdout.write(f"{summary(found.rows)}; wrote {written}\n")
    return 0


def _refuse_options(args: argparse.Namespace) -> None:
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("classes", "dimensions", "config", "backbone_only", "with_decoder")
        if getattr(args, name)
    ]
    if given:
        raise ValueError(f"{', '.join(given)}: only for a checkpoint of the authors; ours say it themselves")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text else ()
