"""Curves of several models in one figure: ``python -m finetune robustness --overlay NAME=FOLDER ... --out FOLDER``."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finetune.protocol import labelled
from finetune.robustness_report import JSON, TABLE, read_measured
from finetune.tables import markdown_table, score_title, show, show_interval
from hicmae.corruptions import CORRUPTIONS, corruption
from hicmae.figures.robustness import draw_robustness

logger = logging.getLogger(__name__)

_SAME = ("data", "test_fold", "labels")
_DIFFER = ("segments", "seed", "average_over", "test_without", "version")


def is_overlay(argv: Sequence[str]) -> bool:
    """Whether a command line asks for this."""
    return any(one == "--overlay" or one.startswith("--overlay=") for one in argv)


def overlay(argv: Sequence[str]) -> None:
    """Write ``robustness.csv`` (with a column model), ``robustness.md`` and ``robustness.png`` into ``--out``.

    Raises:
        FileNotFoundError, ValueError: a folder without results, results of other test clips, no common score.
    """
    parser = argparse.ArgumentParser(prog="python -m finetune robustness", description=__doc__)
    parser.add_argument("--overlay", action="append", default=[], metavar="NAME=FOLDER",
                        help="a model's name, and its run or robustness folder; once for each model")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--score", default=None, help="which score; without it uar, or ccc where there are no classes")
    given = parser.parse_args(argv)
    folders = named_folders(given.overlay)
    write_overlay(folders, given.out, score=given.score)


def named_folders(pairs: Sequence[str]) -> dict[str, Path]:
    """``NAME=FOLDER``, several times; a run's folder stands for its ``robustness``."""
    folders: dict[str, Path] = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not (name and equals and folder):
            raise ValueError(f"--overlay {pair!r} is not NAME=FOLDER, as in --overlay scratch=runs/scratch")
        if name in folders:
            raise ValueError(f"--overlay has the name {name!r} twice; give each model another one")
        path = Path(folder)
        folders[name] = path if (path / JSON).exists() else path / "robustness"
    return folders


def write_overlay(folders: Mapping[str, Path], out: Path, *, score: str | None = None) -> pd.DataFrame:
    """Put results side by side; returns the table that is written.

    Args:
        folders: by model's name, what the job has written.
        out: folder.
        score: which score figure and page show; ``None``: uar, or ccc.
    """
    contents = {name: read_measured(folder / JSON) for name, folder in folders.items()}
    _check_comparable(contents, folders)
    tables = [_read_table(name, folder / TABLE) for name, folder in folders.items()]
    table = pd.concat(tables, ignore_index=True)
    common = set.intersection(*(set(one["score"]) for one in tables))
    score = score or ("uar" if "uar" in common else "ccc")
    if score not in common:
        raise ValueError(f"not all of {', '.join(folders)} have the score {score!r}; all have {sorted(common)}")
    labels = {name: str(content["about"]["protocol"]) for name, content in contents.items()}
    alike = len(set(labels.values())) == 1
    shown = table[table["score"] == score].rename(columns={"model": "line"})
    if not alike:
        shown = shown.assign(line=shown["line"].map(lambda name: labelled(name, labels[name])))
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / TABLE, index=False, lineterminator="\n")
    title = labelled(str(next(iter(contents.values()))["about"]["data"]), next(iter(labels.values())) if alike else "")
    (out / "robustness.md").write_text("\n".join(_page(shown, score, title)) + "\n")
    classes = next(iter(contents.values()))["settings"]["labels"].get("classes", {})
    chance = 1 / len(next(iter(classes.values()))) if score == "uar" and classes else None
    draw_robustness(
        shown, out / "robustness.png", title=title, score=score_title(score).removesuffix(" (%)"), chance=chance
    )
    logger.info("wrote %s, robustness.md and robustness.png", out / TABLE)
    return table


def _read_table(name: str, path: Path) -> pd.DataFrame:
    if not path.exists():
        raise FileNotFoundError(f"no {path}: the measurement was not finished; give its command again")
    table = pd.read_csv(path, keep_default_na=True).fillna({"unit": "", "protocol": ""})
    table.insert(0, "model", name)
    return table


def _check_comparable(contents: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Path]) -> None:
    first, *others = contents
    settings = contents[first]["settings"]
    for other in others:
        theirs = contents[other]["settings"]
        if differing := [name for name in _SAME if theirs[name] != settings[name]]:
            raise ValueError(
                f"{folders[other]} and {folders[first]} are of other test clips ({', '.join(differing)} differ), and "
                "cannot be compared; measure both on the same"
            )
        if differing := [name for name in _DIFFER if theirs[name] != settings[name]]:
            logger.warning("%s and %s were measured with other %s", other, first, ", ".join(differing))


def _page(shown: pd.DataFrame, score: str, title: str) -> list[str]:
    lines = [f"# Robustness, {score_title(score)}", "", title]
    models = list(dict.fromkeys(shown["line"]))
    for name in (name for name in CORRUPTIONS if name in set(shown["corruption"])):
        kind, rows = corruption(name), []
        own = shown[shown["corruption"] == name]
        values = own[["value", "low", "high"]].to_numpy(dtype=float)
        cells = dict(zip(zip(own["line"], own["level"], strict=True), values, strict=True))
        for level in kind.ordered(own["level"]):
            rows.append([kind.shown(level), *(_cell(cells.get((model, level)), score) for model in models)])
        lines += ["", f"## {kind.title} (`{name}`)", "", *markdown_table(["level", *models], rows)]
    return lines


def _cell(point: NDArray[np.float64] | None, score: str) -> str:
    if point is None or math.isnan(point[0]):
        return "-"
    value, low, high = point
    return show(score, value) + ("" if math.isnan(low) else f" ({show_interval(score, (low, high))})")
