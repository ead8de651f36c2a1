"""``hicmae shards``: pack clips into WebDataset shards; inspect, verify or index them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hicmae.cli.packing import (
    Bar,
    add_storage_arguments,
    progress_bars,
    show_rejects,
    storage_of,
    work_that_can_go_on,
)
from hicmae.cli.shards_info import info_table, quality_text, sheet_clips

if TYPE_CHECKING:
    from rich.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``hicmae shards``."""
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )

    write = command("write", "pack a manifest's clips; killed, it goes on where it was when started again")
    write.add_argument("manifest", type=Path, help="CSV or Parquet, one row a clip")
    write.add_argument("out", type=Path, help="folder for the shards")
    write.add_argument("--split", default=argparse.SUPPRESS, help="pack this split alone (default: all clips)")
    add_storage_arguments(write, default_format="original")
    write.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    write.add_argument("--part", type=_part, default=(1, 1), metavar="i/n",
                       help="write the i-th of n parts, for arrays of jobs (default: 1/1)")  # fmt: skip
    write.add_argument("--seed", type=int, default=0, help="of the permutation of the clips")

    info = command("info", "counts, durations, sizes, quality, labels and rejected clips of a shard folder")
    info.add_argument("folder", type=Path)
    info.add_argument("--sheet", type=Path, default=argparse.SUPPRESS, metavar="PNG",
                      help="also draw frames and spectrograms of some clips")  # fmt: skip
    info.add_argument("--sheet-clips", type=_count, default=24, metavar="N", help="clips on the sheet, drawn at random")

    verify = command("verify", "check tars against index and hashes, and decode a sample of clips")
    verify.add_argument("folder", type=Path)
    verify.add_argument("--decode", type=_count, default=16, metavar="N", help="clips to decode, drawn at random")

    index = command("index", "write an index.json for WebDataset tars from elsewhere")
    index.add_argument("folder", type=Path)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of clips, 0 or more")
    return int(text)


def _part(text: str) -> tuple[int, int]:
    try:
        number, total = (int(piece) for piece in text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form i/n, for instance 1/4") from None
    if not 1 <= number <= total:
        raise argparse.ArgumentTypeError(f"{text!r} does not lie within 1/{max(1, total)} and {total}/{total}")
    return number, total


def run(args: argparse.Namespace) -> int:
    """Run the action; 0 when all is well."""
    from rich.console import Console

    console = Console()
    actions = {"write": _write, "info": _info, "verify": _verify, "index": _index}
    with work_that_can_go_on("finished shards"):
        return actions[args.action](args, console)


def _write(args: argparse.Namespace, console: Console) -> int:
    from hicmae.data.manifest import read_manifest, select
    from hicmae.data.shard_writer import write_shards

    storage = storage_of(args, picture=args.format)
    manifest = read_manifest(args.manifest)
    if "split" in args:
        manifest = select(manifest, args.split)
    with progress_bars(console) as progress:
        bar = Bar(progress, "packing")
        report = write_shards(
            manifest, args.out, storage=storage, shard_mb=args.shard_mb, workers=args.workers, seed=args.seed,
            part=args.part, on_progress=bar,
        )  # fmt: skip
    if report.already_done:
        console.print(f"{report.already_done} shards were finished before")
    console.print(
        f"{report.packed} clips packed, {len(report.rejected)} rejected, in {args.out} ({bar.speed()})",
        highlight=False,
    )
    show_rejects(report.rejected, console)
    if report.index is None:
        console.print(f"{report.missing_shards} shards of other parts are missing; the last part writes index.json")
    else:
        totals = report.index.totals()
        console.print(
            f"index.json: {totals['samples']} clips in {totals['shards']} shards, {totals['bytes'] / 1e6:.1f} MB, "
            f"{totals['seconds'] / 3600:.2f} hours, {totals['rejected']} rejected"
            + (" (rejects.csv)" if totals["rejected"] else ""),
            highlight=False,
        )
        if report.index.quality:
            console.print(f"quality: {quality_text(report.index.quality)}", highlight=False)
    if report.rejected and not report.packed:
        console.print("every clip was rejected", style="red")
        return 1
    return 0


def _info(args: argparse.Namespace, console: Console) -> int:
    from hicmae.data.shard_index import ShardIndex

    index, folder = ShardIndex.read(args.folder)
    console.print(info_table(index, str(folder)))
    if "sheet" in args:
        from hicmae.figures.contact_sheet import draw_contact_sheet

        sheet = draw_contact_sheet(sheet_clips(args.folder, args.sheet_clips), args.sheet)
        console.print(f"contact sheet: {sheet}", soft_wrap=True, highlight=False)
    return 0


def _verify(args: argparse.Namespace, console: Console) -> int:
    from hicmae.data.shard_index import ShardIndex
    from hicmae.data.shard_verify import verify_shards

    with progress_bars(console) as progress:
        bar = progress.add_task("verifying", total=len(ShardIndex.read(args.folder)[0].shards), speed="")
        report = verify_shards(args.folder, decode=args.decode, on_shard=lambda _: progress.advance(bar))
    for problem in report.problems:
        console.print(problem, style="red", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{report.shards} shards, {report.clips} clips, {report.decoded} decoded: {len(report.problems)} problems",
        highlight=False,
    )
    return 1 if report.problems else 0


def _index(args: argparse.Namespace, console: Console) -> int:
    from hicmae.data.shard_foreign import index_foreign

    with progress_bars(console) as progress:
        bar = progress.add_task("indexing", total=len(list(args.folder.glob("*.tar"))), speed="")
        index = index_foreign(args.folder, on_shard=lambda _: progress.advance(bar))
    totals = index.totals()
    console.print(
        f"index.json: {totals['samples']} clips in {totals['shards']} shards, {totals['rejected']} left out",
        highlight=False,
    )
    show_rejects(index.rejected, console)
    return 0 if totals["samples"] else 1
