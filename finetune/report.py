"""One table over several fine-tuning runs: ``python -m finetune.report RUN_DIR ... --out DIR``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.protocol import labelled

_SCORES = {"uar": "UAR", "war": "WAR", "macro_f1": "macro F1", "ccc": "CCC"}


def _title(score: str) -> str:
    """Column title of a score: ``ccc_valence`` is the CCC of one dimension."""
    name, _, dimension = score.partition("_") if score.startswith("ccc_") else (score, "", "")
    return _SCORES[name] + (f" {dimension}" if dimension else "")


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What ``metrics.json`` of a run says."""

    name: str
    modalities: str
    init: str
    classes: int
    clips: int
    """Clips of the test split."""
    best: dict[str, float]
    """Test scores of the checkpoint that was best on validation."""
    last: dict[str, float]
    """Test scores of the last checkpoint."""
    intervals: dict[str, tuple[float, float]]
    """Bounds of ``best``, where there are any."""


def read_run(folder: Path) -> RunResult:
    """Read a run directory.

    Raises:
        FileNotFoundError: it has no ``metrics.json``.
        ValueError: it was not tested.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; is {folder} a finished fine-tuning run?")
    content: dict[str, Any] = json.loads(path.read_text())
    about = content["about"]
    last = content.get("last", content.get("best", content.get("tested", {}))).get("test")
    if last is None:
        raise ValueError(f"{path} has no test scores; run python -m finetune test, or fit with --test_after_fit true")
    best = content.get("best", content.get("last", content.get("tested", {})))["test"]
    intervals = best.get("intervals", {})
    teacher = about.get("teacher")
    return RunResult(
        name=labelled(folder.name, about.get("protocol", "")),
        modalities=" + ".join(about["modalities"]),
        init=about["init"] + (f", taught by {teacher}" if teacher else ""),
        classes=len(about["classes"]),
        clips=last["clips"],
        best=_scores(best),
        last=_scores(last),
        intervals={name: (bounds[0], bounds[1]) for name, bounds in intervals.items() if isinstance(bounds, list)},
    )


def _scores(values: dict[str, Any]) -> dict[str, float]:
    of_dimensions = [name for name in values if name.startswith("ccc_")]
    names = [name for name in _SCORES if name != "ccc" or not of_dimensions] + of_dimensions
    return {name: float(values[name]) for name in names if values.get(name) is not None}


def to_markdown(runs: Sequence[RunResult], note: str = "") -> str:
    """A table of all runs; scores at the best-on-validation checkpoint, and at the last one in brackets."""
    names = list(dict.fromkeys(name for run in runs for name in run.last))
    lines = ["| run | modalities | start | " + " | ".join(map(_title, names)) + " |"]
    lines.append("|" + "---|" * (3 + len(names)))
    for run in runs:
        cells = [_cell(run, name) if name in run.last else "-" for name in names]
        lines.append(f"| {run.name} | {run.modalities} | {run.init} | " + " | ".join(cells) + " |")
    chance = f" Guessing gives a UAR of {1 / runs[0].classes:.3f} and a CCC of 0." if runs[0].classes else ""
    lines += [
        "",
        f"Test scores on {runs[0].clips} clips: the checkpoint best on validation (the last checkpoint).{chance}",
    ]
    if any(run.intervals for run in runs):
        lines.append("In square brackets: 95% bootstrap intervals over the test speakers, or clips without a speaker.")
    return "\n".join([*lines, *([note] if note else [])]) + "\n"


def _cell(run: RunResult, name: str) -> str:
    bounds = run.intervals.get(name)
    interval = f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""
    return f"{run.best[name]:.3f}{interval} ({run.last[name]:.3f})"


def draw(runs: Sequence[RunResult], path: Path, title: str) -> None:
    """A bar for each run."""
    import matplotlib.pyplot as plt

    from hicmae.figures.canvas import save_figure

    scores = [name for name in runs[0].last if name not in ("war", "macro_f1")]
    size = (3.2 * len(scores) + 1.5, 0.5 * len(runs) + 1.4)
    figure, all_axes = plt.subplots(1, len(scores), figsize=size, layout="constrained", squeeze=False, sharey=True)
    places = range(len(runs))
    for axes, score in zip(all_axes[0], scores, strict=True):
        values = [run.best.get(score, 0.0) for run in runs]
        axes.barh(places, values, color="#4477aa")
        for place, value in zip(places, values, strict=True):
            axes.text(max(value, 0) + 0.02, place, f"{value:.3f}", va="center", fontsize=8)
        guessing = 1 / runs[0].classes if score == "uar" else 0.0
        axes.axvline(guessing, color="0.4", ls="--", lw=1, label="guessing")
        axes.set(xlim=(min(0, *values), 1.1), xlabel=_title(score))
    all_axes[0, 0].set_yticks(places, [run.name for run in runs], fontsize=8)
    all_axes[0, 0].invert_yaxis()
    all_axes[0, 0].legend(fontsize=8, loc="lower right")
    figure.suptitle(f"{title}: test speakers", fontsize=10)
    save_figure(figure, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``results.md`` and ``figures/results.png`` and print the table; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m finetune.report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories of python -m finetune fit")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.md and figures/results.png")
    parser.add_argument("--title", default="fine-tuning runs", help="title of table and figure")
    parser.add_argument("--note", default="", help="a sentence below the table")
    args = parser.parse_args(argv)
    try:
        runs = [read_run(folder) for folder in args.runs]
    except (FileNotFoundError, ValueError) as error:
        sys.stderr.write(f"report: error: {error}\n")
        return 2
    table = to_markdown(runs, args.note)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.md").write_text(f"# {args.title}\n\n{table}")
    draw(runs, args.out / "figures" / "results.png", args.title)
    sys.stdout.write(f"{args.title}\n\n{table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
