"""What ``hicmae predict`` shows on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from hicmae.heads import Targets
from hicmae.inference.journal import FileFailure
from hicmae.inference.results import FilePrediction, WindowPrediction

_TOP = 3
_BAR = 20  # characters of a bar of probability 1
_SHOWN = 10  # failures that are named once more at the end


def show_window(console: Console, targets: Targets, window: WindowPrediction) -> None:
    """One line for a window."""
    parts = [f"{window.start_s:8.2f} - {window.end_s:8.2f} s"]
    if window.probabilities is not None:
        best = int(window.probabilities.argmax())
        width = max(map(len, targets.classes))
        share = float(window.probabilities[best])
        parts.append(f"{targets.classes[best]:<{width}} {share:4.2f} {'█' * round(share * _BAR):<{_BAR}}")
    if window.values is not None:
        parts += [f"{name} {value:+.2f}" for name, value in zip(targets.dimensions, window.values, strict=True)]
    if window.blanked:
        parts.append(f"(without {' and '.join(window.blanked)})")
    say(console, "  ".join(parts).rstrip())


def show_files(console: Console, predictions: Iterable[FilePrediction], targets: Targets) -> None:
    """The table of files: label, probability, the next classes, dimensions."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("file", overflow="fold", min_width=12)
    table.add_column("windows", justify="right")
    if targets.classes:
        table.add_column("emotion", style="bold")
        table.add_column("p", justify="right")
        table.add_column("next", overflow="fold")
    for name in targets.dimensions:
        table.add_column(name, justify="right")
    for prediction in predictions:
        out = f" (+{len(prediction.left_out)} left out)" if prediction.left_out else ""
        row = [prediction.name, f"{len(prediction.windows)}{out}"]
        if (probabilities := prediction.probabilities) is not None:
            order = np.argsort(-probabilities, kind="stable")[:_TOP].tolist()
            row += [targets.classes[order[0]], f"{probabilities[order[0]]:.2f}"]
            row.append(", ".join(f"{targets.classes[k]} {probabilities[k]:.2f}" for k in order[1:]))
        if (values := prediction.values) is not None:
            row += [f"{value:+.2f}" for value in values]
        table.add_row(*row)
    if table.row_count:
        console.print(table, markup=False, highlight=False)


def show_end(
    console: Console, warnings: dict[str, list[str]], failures: Sequence[FileFailure], *, files: int, classes: bool
) -> None:
    """Warnings by kind, failures by reason, and what to think of the numbers.

    Args:
        warnings: by their kind, sentences with the file's name.
        failures: files of which nothing came.
        files: how many there were.
        classes: whether there are probabilities.
    """
    for kind, sentences in warnings.items():
        more = f" (and {len(sentences) - 1} more)" if len(sentences) > 1 else ""
        say(console, f"warning, {kind}: {len(sentences)} of {files} files; {sentences[0]}{more}")
    if failures:
        reasons: dict[str, int] = {}
        for failure in failures:
            reasons[failure.reason] = reasons.get(failure.reason, 0) + 1
        listed = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items(), key=lambda pair: -pair[1]))
        say(console, f"{len(failures)} of {files} files failed: {listed}")
        for failure in failures[:_SHOWN]:
            say(console, f"  {failure.message}")
        if len(failures) > _SHOWN:
            say(console, f"  ... and {len(failures) - _SHOWN} more")
    if classes and len(failures) < files:
        say(
            console, "Probabilities are not calibrated: compare them with one another, not with how often one is right."
        )


def say(console: Console, text: str) -> None:
    """A line as it is."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)
