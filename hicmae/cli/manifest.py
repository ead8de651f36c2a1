"""``hicmae manifest``: make a manifest from folders of media files."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``hicmae manifest``."""
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    summary = "one clip for each media file below a folder"
    tree = commands.add_parser(
        "tree", help=summary, description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    tree.add_argument("out", type=Path, help="the manifest to write, .csv or .parquet")
    tree.add_argument("--video", type=Path, default=argparse.SUPPRESS, metavar="DIR", help="folder of picture files")
    tree.add_argument("--audio", type=Path, default=argparse.SUPPRESS, metavar="DIR",
                      help="folder of sound files, built like that of the picture files")  # fmt: skip
    tree.add_argument("--subject-level", type=int, default=0, metavar="N",
                      help="the N-th folder of each path names the subject; 0: none does")  # fmt: skip
    tree.add_argument("--split", default="", help="split of all clips")


def run(args: argparse.Namespace) -> int:
    """Write the manifest and say what is in it, and what is not."""
    from rich.console import Console

    from hicmae.data.manifest import write_manifest
    from hicmae.data.tree import scan_tree

    tree = scan_tree(
        getattr(args, "video", None), getattr(args, "audio", None), subject_level=args.subject_level, split=args.split
    )
    path = write_manifest(args.out, tree.clips)
    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    subjects = len({clip.subject for clip in tree.clips if clip.subject})
    say(f"{path}: {len(tree.clips)} clips" + (f" of {subjects} subjects" if subjects else ""))
    if tree.without_sound:
        shown = ", ".join(tree.without_sound[:5])
        say(f"  {len(tree.without_sound)} have no sound file and are listed without one: {shown}" + (
            ", ..." if len(tree.without_sound) > 5 else ""))  # fmt: skip
    if tree.sound_alone:
        say(f"  {tree.sound_alone} sound files have no picture file and are not listed")
    if tree.other_files:
        say("  other files, not listed: " + ", ".join(f"{count} {kind}" for kind, count in tree.other_files[:10]))
    return 0
