"""What a measurement of robustness leaves: ``robustness.json``, from which a second start goes on, ``robustness.csv``
(one row a score), ``robustness.md`` and a figure."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from finetune.evaluation import Evaluation, is_score
from finetune.protocol import labelled
from finetune.run_report import interval_sentence
from finetune.tables import headline_scores, markdown_table, score_title, show, show_interval
from hicmae.corruptions import CORRUPTIONS, corruption
from hicmae.figures.robustness import draw_robustness

logger = logging.getLogger(__name__)

JSON, TABLE, PAGE, FIGURE = "robustness.json", "robustness.csv", "robustness.md", "figures/robustness.png"
_COLUMNS = ("corruption", "level", "unit", "clean", "score", "value", "low", "high", "clips", "protocol")


@dataclass(kw_only=True)
class Measured:
    """The scores there are so far."""

    settings: dict[str, Any]
    """What they depend on, besides corruption and level."""
    about: dict[str, Any]
    """For the reader: model, clips, protocol."""
    clean: dict[str, Any] | None = None
    """``Evaluation.to_dict`` with ``intervals``: of the clips as they are."""
    levels: dict[str, dict[float, dict[str, Any]]] = field(default_factory=dict)
    """The same by corruption and level."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Corruptions that say nothing about this model, and why."""

    @property
    def label(self) -> str:
        """What stands beside every number."""
        return str(self.about["protocol"])

    def save(self, out: Path) -> None:
        """Write ``robustness.json``."""
        rows = [
            {"corruption": name, "level": level} | scores
            for name, levels in self.levels.items()
            for level, scores in levels.items()
        ]
        content = {
            "about": self.about, "settings": self.settings, "left_out": self.left_out, "clean": self.clean,
            "rows": rows,
        }  # fmt: skip
        _replace(out / JSON, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def take_finished(self, out: Path) -> None:
        """Take over what an earlier start has measured with the same settings; say which others there were."""
        path = out / JSON
        if not path.exists():
            return
        content = read_measured(path)
        if content["settings"] != self.settings:
            names = self.settings.keys() | content["settings"].keys()
            other = sorted(n for n in names if self.settings.get(n) != content["settings"].get(n))
            logger.warning("%s was made with other settings (%s): all is measured anew", path, ", ".join(other))
            return
        self.clean = content["clean"]
        for row in content["rows"]:
            name, level = row.pop("corruption"), float(row.pop("level"))
            self.levels.setdefault(name, {})[level] = row

    def table(self) -> pd.DataFrame:
        """A row for every corruption, level and score; the clean level of each corruption with them."""
        assert self.clean is not None
        rows = []
        for name in (name for name in CORRUPTIONS if name in self.levels):
            kind = corruption(name)
            for level in kind.ordered(self.levels[name]):
                found = self.clean if level == kind.clean else self.levels[name][level]
                bounds = found["intervals"]
                for score, value in ((key, value) for key, value in found.items() if is_score(key)):
                    low, high = bounds.get(score) or (None, None)
                    clips = found["clips"] - found["clips_not_decoded"]
                    clean = level == kind.clean
                    rows.append((name, level, kind.unit, clean, score, value, low, high, clips, self.label))
        return pd.DataFrame(rows, columns=list(_COLUMNS)).astype({"value": float, "low": float, "high": float})

    def write(self, out: Path, *, classes: int) -> None:
        """Write table, page and figure.

        Args:
            out: folder.
            classes: how many the model tells apart; 0: none.
        """
        table = self.table()
        _replace(out / TABLE, table.to_csv(index=False, lineterminator="\n"))
        _replace(out / PAGE, "\n".join(self._page()) + "\n")
        shown = [name for name in table["score"].unique() if name in ("uar", "war") or name.startswith("ccc_")]
        lines = table[table["score"].isin(shown)].assign(line=lambda rows: rows["score"].map(_short_title))
        draw_robustness(
            lines, out / FIGURE, title=labelled(f"{self.about['model']}, {self.about['data']}", self.label),
            chance=1 / classes if classes and "uar" in shown else None,
        )  # fmt: skip
        logger.info("wrote %s, %s, %s and %s", out / JSON, TABLE, PAGE, FIGURE)

    def _page(self) -> list[str]:
        assert self.clean is not None
        scores = headline_scores((name for name in self.clean if is_score(name)), None)
        about = self.about
        lines = [
            labelled("# Robustness", self.label),
            "",
            f"Model: {about['model']} ({' and '.join(about['modalities'])}). Clips: {about['data']}. "
            f"All levels are of the same clips and draws (seed {self.settings['seed']}); what the corruptions are is "
            f"said in docs/robustness.md. In brackets stand intervals. {interval_sentence(self.clean['intervals'])}",
        ]
        if about["test_without"]:
            lines += ["", f"{about['test_without']} was withheld from all clips."]
        for name in (name for name in CORRUPTIONS if name in self.levels):
            kind = corruption(name)
            lines += ["", f"## {kind.title} (`{name}`)", ""]
            rows = []
            for level in kind.ordered(self.levels[name]):
                found = self.clean if level == kind.clean else self.levels[name][level]
                rows.append([kind.shown(level), *(_with_interval(score, found) for score in scores)])
            lines += markdown_table(["level", *map(score_title, scores)], rows)
        if self.left_out:
            lines += ["", "## Left out", ""]
            lines += [f"- `{name}`: {why}" for name, why in self.left_out.items()]
        return lines


def scores_of(evaluation: Evaluation) -> dict[str, Any]:
    """Scores and their intervals, plain."""
    return evaluation.to_dict() | {"intervals": evaluation.intervals().to_dict()}


def read_measured(path: Path) -> dict[str, Any]:
    """What ``Measured.save`` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is something else.
    """
    if not path.exists():
        raise FileNotFoundError(f"no {path}: measure the model first, with python -m finetune robustness")
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if not content.keys() >= {"about", "settings", "clean", "rows"}:
            raise ValueError("fields are missing")
    except ValueError as error:
        raise ValueError(f"{path} is not what python -m finetune robustness writes ({error}); remove it") from None
    return content


def _with_interval(score: str, found: dict[str, Any]) -> str:
    bounds = found["intervals"].get(score)
    return show(score, found[score]) + (f" ({show_interval(score, bounds)})" if bounds else "")


def _short_title(score: str) -> str:
    return score_title(score).removesuffix(" (%)")


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)
