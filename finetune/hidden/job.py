"""One page on what the scores of finished runs hide: ``python -m finetune hidden RUN ... --out DIR``.

It reads what fine-tuning left (``predictions.parquet``, ``test_curve.json``) and trains nothing. Writes ``hidden.md``,
``hidden.json``, ``figures/``, and a CSV of tidy rows for each section: selection, calibration, speakers. A section for
which the runs lack the material says what is missing.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from finetune.hidden.calibration import calibration_section
from finetune.hidden.runs import HiddenRun, NothingToShowError, read_runs
from finetune.hidden.section import Section
from finetune.hidden.selection import selection_section
from finetune.hidden.speakers import speakers_section
from finetune.protocol import labelled
from finetune.tables import markdown_table
from hicmae.user_errors import explains_itself

logger = logging.getLogger(__name__)

_SECTIONS: dict[str, tuple[str, Callable[[Sequence[HiddenRun], Path], Section]]] = {
    "selection": ("Choosing the epoch", selection_section),
    "calibration": ("Calibration", calibration_section),
    "speakers": ("Speakers", speakers_section),
}


def main(argv: Sequence[str]) -> int:
    """Run the job; returns the exit status: 0, or 2 for runs that cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m finetune hidden", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories, of fit or of folds")
    parser.add_argument("--out", type=Path, default=None, help="where to write; with one RUN, RUN/hidden if left out")
    given = parser.parse_args(list(argv))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    if given.out is None and len(given.runs) > 1:
        parser.error("--out is needed for several runs")
    try:
        page = write_hidden(given.runs, given.out or given.runs[0] / "hidden")
    except Exception as error:
        if not explains_itself(error):
            raise
        sys.stderr.write(f"hidden: error: {error}\n")
        return 2
    logger.info("wrote %s", page)
    return 0


def write_hidden(folders: Sequence[Path], out: Path) -> Path:
    """Write the page and its files into ``out``; returns the page.

    Args:
        folders: run directories of fine-tuning, or of cross-validations, which stand for their folds.
        out: folder.

    Raises:
        FileNotFoundError: a folder without results.
        ValueError: runs that were not tested, or of different tasks.
    """
    runs = read_runs(folders)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    lines = ["# What the scores hide", "", *_about(runs)]
    values: dict[str, object] = {
        "runs": {run.name: {"checkpoint": run.checkpoint, "protocol": run.label} for run in runs}
    }
    for name, (title, make) in _SECTIONS.items():
        lines += ["", f"## {title}", ""]
        try:
            section = make(runs, out / "figures")
        except NothingToShowError as reason:
            lines.append(f"Not available: {reason}.")
            values[name] = {"not_available": str(reason)}
            for stale in (out / f"{name}.csv", out / "figures" / f"{name}.png"):
                stale.unlink(missing_ok=True)
            continue
        lines += section.lines
        values[name] = section.values
        draft = out / f".{name}.csv.draft"
        section.table.to_csv(draft, index=False)
        draft.replace(out / f"{name}.csv")
    _replace(out / "hidden.json", json.dumps(values, indent=2, allow_nan=False) + "\n")
    _replace(out / "hidden.md", "\n".join(lines) + "\n")
    return out / "hidden.md"


def _about(runs: Sequence[HiddenRun]) -> list[str]:
    rows = (
        [labelled(run.name, run.label), run.checkpoint, run.about["data"], _text(run.about["test_fold"]),
         _text(run.about.get("seed")), str(len(run.part("test")))]
        for run in runs
    )  # fmt: skip
    return markdown_table(["run", "checkpoint", "data", "test fold", "seed", "test predictions"], rows)


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)
