"""What several runs logged, by metric, for curves that are overlaid."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd

from hicmae.report.history import course, read_history

_FIRST = ("train/loss", "val/loss", "val/uar", "val/war", "val/ccc")


def read_courses(
    folders: Sequence[Path], names: Sequence[str], metrics: Sequence[str] = (), unit: str = "step"
) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Courses by metric, then by the run's name.

    Args:
        folders: run directories; a run that was resumed is one curve, where the later start counts.
        names: what they are called.
        metrics: columns of their logs, or patterns such as ``train/*``; empty: loss and scores, where they have any.
        unit: ``step``, or another column that grows, such as ``epoch``.

    Raises:
        ValueError: a folder without logs, or a metric that no run has; all of them are named.
    """
    histories = {name: read_history(folder) for name, folder in zip(names, folders, strict=True)}
    if empty := [str(folder) for name, folder in zip(names, folders, strict=True) if not len(histories[name])]:
        raise ValueError(
            f"{', '.join(empty)}: no logged lines (logs/version_N/metrics.csv); give directories of runs, the "
            "trainer.default_root_dir of their training"
        )
    known = list(dict.fromkeys(
        column for history in histories.values() for column in map(str, history) if course(history, column)[0]
    ))  # fmt: skip
    wanted = _chosen(known, metrics)
    found: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for metric in wanted:
        for name, history in histories.items():
            places, values = _over(history, metric, unit)
            if values:
                found.setdefault(metric, {})[name] = places, values
    if not found:
        raise ValueError(f"no run logged {unit!r} beside {', '.join(wanted)}; leave --x out")
    return found


def _chosen(known: Sequence[str], metrics: Sequence[str]) -> list[str]:
    if not metrics:
        first = [metric for metric in _FIRST if metric in known]
        return first or [metric for metric in known if "/" in metric][:1] or list(known[:1])
    wanted: list[str] = []
    for metric in metrics:
        matching = [column for column in known if fnmatch(column, metric)]
        if not matching:
            near = difflib.get_close_matches(metric, known, 3)
            hint = f"did you mean {', '.join(near)}?" if near else f"they logged {', '.join(known)}"
            raise ValueError(f"--metric {metric}: no run logged it; {hint}")
        wanted += [column for column in matching if column not in wanted]
    return wanted


def _over(history: pd.DataFrame, metric: str, unit: str) -> tuple[list[float], list[float]]:
    if unit == "step" or unit not in history:
        return course(history, metric) if unit == "step" else ([], [])
    # Scores are logged on lines of their own, which lack the epoch: that of the lines around them.
    filled = history.assign(**{unit: history[unit].interpolate(limit_direction="both")})
    there = filled[metric].notna() & filled[unit].notna()
    return filled.loc[there, unit].tolist(), filled.loc[there, metric].tolist()


def run_names(folders: Sequence[Path], given: Sequence[str]) -> list[str]:
    """A name for each run: those given, else the shortest ends of their paths that tell them apart.

    Raises:
        ValueError: another number of names than of runs, or a name or a run twice.
    """
    if given and len(given) != len(folders):
        raise ValueError(f"--names has {len(given)} names for {len(folders)} runs; give one each")
    whole = [folder.absolute().parts for folder in folders]
    if len(set(whole)) < len(whole):
        twice = next(folder for place, folder in enumerate(folders) if whole.index(whole[place]) != place)
        raise ValueError(f"{twice} is given twice; give each run once")
    if given:
        if len(set(given)) < len(given):
            raise ValueError(f"--names {','.join(given)} must tell the runs apart")
        return list(given)
    for length in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-length:]) for parts in whole]
        if len(set(names)) == len(names):
            return names
    raise AssertionError(whole)
