"""A measurement as a short table, on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from hicmae.bench.measure import Spread
from hicmae.bench.result import BenchResult, Row, Versus

_HEADER = ("stage", "clips/s", "(range)", "ms", "peak memory", "arithmetic", "of matrix peak", "(range)", "")
_PAIR_HEADER = ("beside the reference", "ours/theirs", "(range)", "ours ms", "theirs ms", "ours peak", "theirs peak")


def summary(result: BenchResult) -> str:
    """One line: on what was measured, and how."""
    s, machine = result.settings, result.machine
    peaks = [peak for row in result.rows if row.flops_per_clip for peak in row.matrix_flops]
    peak = f"; large matrix product {_rate(Spread.of(peaks).median)}" if peaks else ""
    switches = f", compile {s.compile}" + (f", recompute {s.recompute}" if s.recompute else "")
    return (
        f"{machine['device']}, {s.threads} of {machine['cores']} cores, {s.preset}, batch {s.batch}, "
        f"{s.precision}{switches}; hicmae {result.versions['hicmae']}, torch {result.versions['torch']}{peak}"
    )


def as_text(result: BenchResult) -> str:
    """For the terminal: aligned columns."""
    return "\n\n".join([summary(result), *(_aligned(table) for table in _tables(result))]) + "\n"


def as_markdown(result: BenchResult) -> str:
    """For a page."""
    tables = [
        "\n".join(["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)])
        for head, *body in _tables(result)
    ]
    return "\n\n".join([f"`{result.command}`, {result.date}: {summary(result)}.", *tables]) + "\n"


def _tables(result: BenchResult) -> list[list[Sequence[str]]]:
    tables: list[list[Sequence[str]]] = []
    if result.rows:
        tables.append([_HEADER, *(_row(row) for row in result.rows)])
    if result.versus:
        tables.append([_PAIR_HEADER, *(_pair(pair) for pair in result.versus)])
    return tables


def _row(row: Row) -> list[str]:
    share, notes = row.share_of_peak, []
    if row.data_wait_percent is not None:
        notes.append(f"data-wait {row.data_wait_percent:.1f}%")
    if row.batches_ready is not None:
        notes.append(f"{row.batches_ready:.1f} batches ready")
    return [
        row.name,
        _short(row.clips_per_s.median),
        f"({_short(row.clips_per_s.low)} to {_short(row.clips_per_s.high)})",
        _short(row.ms.median),
        size(row.peak_bytes),
        "-" if row.flops_per_s is None else _rate(row.flops_per_s),
        "-" if share is None else f"{100 * share.median:.0f}%",
        "" if share is None else f"({100 * share.low:.0f} to {100 * share.high:.0f})",
        ", ".join(notes),
    ]


def _pair(pair: Versus) -> list[str]:
    ratio, ours, theirs = pair.ratio, Spread.of(pair.ours_seconds), Spread.of(pair.theirs_seconds)
    return [
        pair.name,
        f"{ratio.median:.2f}",
        f"({ratio.low:.2f} to {ratio.high:.2f})",
        _short(1000 * ours.median),
        _short(1000 * theirs.median),
        size(pair.ours_peak_bytes),
        size(pair.theirs_peak_bytes),
    ]


def _aligned(table: list[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    left = {0, 2, 7, 8}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def size(count: int | None) -> str:
    """Bytes for people."""
    if count is None:
        return "-"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _rate(flops_per_s: float) -> str:
    if flops_per_s >= 1e12:
        return f"{_short(flops_per_s / 1e12)} TFLOP/s"
    return f"{_short(flops_per_s / 1e9)} GFLOP/s"


def _short(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
