"""``hicmae report``: one page about a training run, in one file."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

_NEEDED = {"matplotlib": "matplotlib", "sklearn": "scikit-learn", "yaml": "PyYAML", "PIL": "pillow",
           "markupsafe": "MarkupSafe"}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("run_dir", type=Path, help="run directory of pretrain or finetune, or the --out of folds")
    parser.add_argument("-o", "--out", type=Path, help="HTML file to write (without it: report.html in the run)")
    parser.add_argument("--clips", type=int, default=300, help="clips decoded for features and retrieval; 0: none")
    parser.add_argument("--animated", type=int, default=4, help="clips whose reconstruction plays")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where the model runs")
    parser.add_argument(
        "--data", nargs="+", default=[], help="where the run's data are now, if not where its configuration says: "
        "a manifest, or shard folders",
    )  # fmt: skip
    parser.add_argument("--animations", type=Path, help="write the reconstructions as reconstruction_N.webp there too")


def run(args: argparse.Namespace) -> int:
    """Write the page; returns 0, or 1 if the file cannot be written. Sections that cannot be made say why."""
    if missing := [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]:
        raise ValueError(f"this needs {', '.join(missing)}; install them with: pip install 'hicmae[train]'")
    from hicmae.report.material import Material, ReportSettings
    from hicmae.report.page import write_page
    from hicmae.report.reconstructions import write_animations
    from hicmae.report.run import NotAvailableError, open_run

    settings = ReportSettings(clips=args.clips, animated=args.animated, device=args.device, data=tuple(args.data))
    found = open_run(args.run_dir)
    out = args.out or args.run_dir / "report.html"
    material = Material(run=found, settings=settings)
    try:
        sections = write_page(material, out)
        if args.animations is not None:
            write_animations(material, args.animations)
    except NotAvailableError as reason:
        sys.stderr.write(f"hicmae report: error: no animations: {reason}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"hicmae report: error: {out} cannot be written: {error}\n")
        return 1
    left_out = [section.title for section in sections if section.failed]
    note = f"; not in it: {', '.join(left_out)} (the page says why)" if left_out else ""
    sys.stdout.write(f"{out}: {len(sections) - len(left_out)} sections, {out.stat().st_size / 1e6:.2f} MB{note}\n")
    return 0
