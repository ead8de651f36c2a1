"""How test scores differ from speaker to speaker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from finetune.hidden.runs import HiddenRun, NothingToShowError
from finetune.hidden.section import Section, plain
from finetune.tables import markdown_table, score_title, show
from hicmae.data.splits import TEST
from hicmae.figures.speakers import draw_speakers
from hicmae.speaker_scores import sd_of_equals, speaker_scores, spread

_LISTED = 20


def speakers_section(runs: Sequence[HiddenRun], figures: Path) -> Section:
    """Each speaker's scores, the mean of the runs that tested it, and their spread over speakers.

    Raises:
        NothingToShowError: fewer than two speakers.
    """
    each = [
        speaker_scores(run.part(TEST), run.classes, run.dimensions).assign(run=run.name, protocol=run.label)
        for run in runs
    ]
    table = pd.concat(each, ignore_index=True)
    if table["subject"].nunique() < 2:
        raise NothingToShowError("the test predictions name fewer than two speakers")
    names = [name for name in table.columns if name not in ("subject", "clips", "run", "protocol")]
    means = table.groupby("subject")[names].mean()
    clips = table.groupby("subject")["clips"].max()
    spreads = {name: spread(means[name].tolist()) for name in names if means[name].notna().any()}
    if not spreads:
        raise NothingToShowError("no speaker has clips enough for a score")
    first = next(iter(spreads))
    draw_speakers(
        {str(subject): found for subject, rows in table.groupby("subject") if (found := rows[first].dropna().tolist())},
        figures / "speakers.png",
        score=score_title(first),
        mean=spreads[first]["mean"],
    )
    order = means.sort_values(first, kind="stable").index
    listed = order[:_LISTED]
    kinds = ["mean", "sd", "lowest", "lowest_tenth", "q1", "median", "q3", "highest"]
    lines = [
        *markdown_table(
            ["over speakers", "speakers", *(kind.replace("_", " ") for kind in kinds)],
            (
                [score_title(name), str(found["speakers"]), *(show(name, plain(found[kind])) for kind in kinds)]
                for name, found in spreads.items()
            ),
        ),
        "",
        _sentence(table, spreads, runs),
        "",
        *markdown_table(
            [f"lowest {len(listed)} of {len(order)} speakers", "test clips", *map(score_title, names)],
            (
                [str(subject), str(clips[subject]), *(show(name, plain(row[name])) for name in names)]
                for subject, row in means.loc[listed].astype(float).iterrows()
            ),
        ),
        "",
        "![Scores of each speaker](figures/speakers.png)",
    ]
    values: dict[str, Any] = {
        name: {kind: plain(value) for kind, value in found.items()} for name, found in spreads.items()
    }
    if "war" in spreads:
        values["war"]["sd_of_equals"] = _sd_of_equals(table)
    return Section(lines=lines, table=table, values=values)


def _sentence(table: pd.DataFrame, spreads: dict[str, dict[str, float]], runs: Sequence[HiddenRun]) -> str:
    of_runs = " A speaker's score is the mean of the runs that tested it." if len(runs) > 1 else ""
    text = (
        "The mean of the speakers weighs each alike, and is another number than the score of all clips. *Lowest tenth* "
        f"is the mean of the lowest 10% of speakers. UAR is over the classes that a speaker has.{of_runs}"
    )
    if "war" in spreads and not math.isnan(spreads["war"]["sd"]):
        text += (
            " If all speakers were equally easy, their few clips alone would give WAR a standard deviation of "
            f"{show('war', _sd_of_equals(table))} over speakers; found is {show('war', spreads['war']['sd'])}."
        )
    return text


def _sd_of_equals(table: pd.DataFrame) -> float:
    """For the clips that speakers have in one run: what runs of the same clips share is not averaged away."""
    clips = table.groupby("subject")["clips"].max()
    accuracy = float((table["war"] * table["clips"]).sum() / table["clips"].sum())
    return sd_of_equals(clips.tolist(), accuracy)
