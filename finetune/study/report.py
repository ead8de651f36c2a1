"""A study as a page: cells, differences, holes, times, and how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.protocol import PAPER_PROTOCOL
from finetune.study.grid import Row, every_run
from finetune.study.intervals import SETTINGS, Estimate
from finetune.study.results import DONE, Scores
from finetune.study.spec import Study
from finetune.study.summary import Summary
from finetune.tables import markdown_table, score_title, show, show_interval
from hicmae.data.source import digest_of

_METHOD = (
    "Three {level:.0%} intervals. **Seeds**: Student's t over the seeds' scores, each the mean of its folds; with few "
    "seeds it is wide, and rightly so. **Speakers**: percentile bootstrap over the test speakers of the mean over "
    "seeds ({resamples} resamples). **Both**: the same with the seeds drawn too. Differences are paired: same seed, "
    "same fold, same drawn speakers, on the clips that both have."
)


def study_report(
    study: Study,
    rows: Sequence[Row],
    scores: Mapping[int, Sequence[Scores]],
    status: Mapping[int, str],
    summary: Summary,
    seconds: Mapping[str, float],
) -> str:
    """The text of ``report.md``.

    Args:
        study, rows: of the plan.
        scores, status: by the number of a row.
        summary: of the rows that are finished.
        seconds: by the digest of each finished run.
    """
    paper = any(one.protocol for found in scores.values() for one in found)
    label = f" [{PAPER_PROTOCOL}]" if paper else ""
    lines = [f"# {study.title}{label}", ""]
    if study.note:
        lines += [study.note, ""]
    if study.corpus.synthetic is not None:
        sizes = study.corpus.synthetic
        lines += [
            f"**Synthetic corpus**: talking faces made by formulas, {sizes.size} x {sizes.size} pixels; "
            f"{sizes.speakers} labelled speakers ({sizes.val_speakers} for validation, {sizes.test_speakers} for the "
            f"test) of {sizes.clips_per_speaker} clips, {sizes.unlabelled_speakers} without labels of "
            f"{sizes.unlabelled_clips_per_speaker}. Numbers say nothing of human emotion.",
            "",
        ]
    done = sum(text == DONE for text in status.values())
    seeds = ", ".join(map(str, study.seeds))
    lines += [f"{done} of {len(rows)} rows are finished: {len(study.cells)} pairs of variants, seeds {seeds}.", ""]
    lines += ["![figure](figure.png)", ""] if summary.headline else []
    lines += ["## Scores on the test", ""]
    if paper:
        lines += [f"Some runs follow the {PAPER_PROTOCOL}; `protocol` in table.csv says which.", ""]
    lines += [_METHOD.format(level=SETTINGS.level, resamples=SETTINGS.resamples), ""]
    if drawn := sorted({one.over for one in summary.means.values() if one.over != "subjects"}):
        lines += [f"Not all clips say whose they are: what is drawn as speakers is {' or '.join(drawn)}.", ""]
    for metric in study.metrics:
        found = {key[:3]: one for key, one in summary.means.items() if key[3] == metric}
        lines += [f"### {score_title(metric)}", ""]
        lines += markdown_table(
            ["pre-training", "fine-tuning", "checkpoint", "n", "mean", "sd", "seeds", "speakers", "both"],
            ([*key, *_cells(metric, one)] for key, one in found.items()),
        )
        lines.append("")
    if summary.differences:
        lines += _differences(study, summary)
    lines += _choices(rows, scores) + _holes(rows, status) + _how(study, rows, seconds)
    return "\n".join(lines) + "\n"


def _cells(metric: str, one: Estimate) -> list[str]:
    mean = None if one.mean != one.mean else one.mean
    return [str(one.n), show(metric, mean), show(metric, one.sd), *_intervals(metric, one)]


def _intervals(metric: str, one: Estimate) -> list[str]:
    return [show_interval(metric, both) for both in (one.seeds, one.speakers, one.both)]


def _differences(study: Study, summary: Summary) -> list[str]:
    lines = [
        "## Differences",
        "",
        "Of each pair of variants from the one that differs from it in one respect alone.",
        "",
    ]
    for metric in study.metrics:
        lines += [f"### {score_title(metric)}", ""]
        table = []
        for (axis, pretraining, finetuning, against, name), one in summary.differences.items():
            if name == metric:
                own, fixed = (pretraining, finetuning) if axis == "pretraining" else (finetuning, pretraining)
                table.append([fixed, f"{own} - {against}", *_cells(metric, one)])
        lines += markdown_table(["with", "difference", "n", "mean", "sd", "seeds", "speakers", "both"], table)
        lines.append("")
    return lines


def _choices(rows: Sequence[Row], scores: Mapping[int, Sequence[Scores]]) -> list[str]:
    chosen = [
        f"- {row.pretraining}, {row.finetuning}, seed {row.seed}{_fold(row)}: {one.detail}"
        for number, row in enumerate(rows)
        for one in scores.get(number, ())
        if one.detail
    ]
    return ["## Probes, as chosen on validation", "", *chosen, ""] if chosen else []


def _fold(row: Row) -> str:
    return "" if row.fold is None else f", fold {row.fold}"


def _holes(rows: Sequence[Row], status: Mapping[int, str]) -> list[str]:
    holes = [f"- {row.run.name}: {status[number]}" for number, row in enumerate(rows) if status[number] != DONE]
    return ["## Holes", "", *holes, ""] if holes else []


def _how(study: Study, rows: Sequence[Row], seconds: Mapping[str, float]) -> list[str]:
    runs = every_run(rows)
    lines = ["## Again", "", "```bash", f"python -m finetune study {_shown(study.path)}", "```", ""]
    lines += [f"Configuration {study_digest(rows)}. Each run's own command, settings and log are in its folder.", ""]
    kinds: dict[str, list[float]] = {}
    for digest, run in runs.items():
        if digest in seconds:
            kinds.setdefault(run.kind, []).append(seconds[digest])
    lines += markdown_table(
        ["kind of run", "finished", "seconds together", "seconds on average"],
        ([kind, str(len(all_)), f"{sum(all_):.0f}", f"{sum(all_) / len(all_):.0f}"] for kind, all_ in kinds.items()),
    )
    return [*lines, "", "Seconds are those of the process that finished a run, with others beside it."]


def study_digest(rows: Sequence[Row]) -> str:
    """Changes with anything that decides a score of the study."""
    return digest_of(sorted({row.run.digest for row in rows}))[:12]


def _shown(path: Path) -> Path:
    """Without the folders of this machine."""
    if path.is_absolute():
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else Path(path.name)
    return path
