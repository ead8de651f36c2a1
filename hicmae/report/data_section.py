"""The data: clips and speakers of each part, hours, and what was skipped and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hicmae.data.shard_index import INDEX_NAME, ShardIndex
from hicmae.data.source import ClipSource
from hicmae.report.history import last_value
from hicmae.report.markup import facts, joined, paragraph, table
from hicmae.report.material import Material
from hicmae.report.predictions import CHECKPOINTS, about_of
from hicmae.report.run import NotAvailableError, Run

_SKIPPED = "data_total/skipped_"


def make_data(material: Material) -> Markup:
    """What the run says of its data, and what the data's own index says where it is at hand."""
    run = material.run
    parts = [*_parts_of_run(run), *_seen(run), *_not_decoded(run), *_as_stored(material)]
    if not parts:
        raise NotAvailableError("neither the run nor its data say anything of clips")
    return joined(parts)


def _parts_of_run(run: Run) -> list[Markup]:
    if run.kind == "pretrain":
        return []
    try:
        about = about_of(run)
        if run.kind == "folds":
            named = {f"fold {fold}, {part}": counts for fold, one in run.metrics.get("folds", {}).items()
                     for part, counts in one.get("splits", {}).items()}  # fmt: skip
        else:
            named = about.get("splits") or {}
    except NotAvailableError:
        return []
    if not named:
        return []
    rows = [[part, str(counts.get("clips", "-")), str(counts.get("subjects") or "-")] for part, counts in named.items()]
    said = [f"Validation: {about['validation']}."] if about.get("validation") else []
    for column, counts in (about.get("other_classes_left_out") or {}).items():
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        said.append(f"Clips of other classes of {column} were left out: {listed}.")
    return [Markup("<h3>Parts of this run</h3>"), table(["part", "clips", "speakers"], rows), paragraph(" ".join(said))]


def _seen(run: Run) -> list[Markup]:
    history = run.history
    clips = last_value(history, "data_total/clips")
    if clips is None:
        return []
    values = {name: last_value(history, f"data_total/{name}") or 0.0 for name in
              ("video_hours", "audio_hours", "read_gb", "skipped")}  # fmt: skip
    rows = [
        ("windows trained on", f"{clips:,.0f}"),
        ("hours of picture, of sound", f"{values['video_hours']:.2f}, {values['audio_hours']:.2f}"),
        ("read", f"{values['read_gb']:.3f} GB"),
        ("skipped", f"{values['skipped']:,.0f}"),
    ]
    reasons = {name.removeprefix(_SKIPPED): last_value(history, name) for name in history.columns
               if name.startswith(_SKIPPED)}  # fmt: skip
    ranked = sorted(((count, name) for name, count in reasons.items() if count), reverse=True)
    listed = [table(["reason", "skipped"], [[name, f"{count:,.0f}"] for count, name in ranked])] if ranked else []
    return [Markup("<h3>Seen in training, over all epochs and processes</h3>"), facts(rows), *listed]


def _not_decoded(run: Run) -> list[Markup]:
    """Clips that scores could not be made of."""
    try:
        metrics = run.metrics
    except NotAvailableError:
        return []
    named = metrics.get("pooled", {}) if run.kind == "folds" else metrics
    checkpoint: dict[str, Any] = next((named[name] for name in CHECKPOINTS if isinstance(named.get(name), dict)), {})
    rows = [
        [part, *(str(scores.get(name, "-")) for name in
                 ("clips", "clips_not_decoded", "clips_without_picture", "clips_without_sound"))]
        for part, scores in checkpoint.items()
        if isinstance(scores, dict) and "clips_not_decoded" in scores
    ]  # fmt: skip
    if not rows:
        return []
    header = ["scored part", "clips", "not decoded", "without picture", "without sound"]
    return [Markup("<h3>Scored</h3>"), table(header, rows)]


def _as_stored(material: Material) -> list[Markup]:
    try:
        source = material.source
    except NotAvailableError as reason:
        return [Markup('<p class="absent">As stored: {}.</p>').format(str(reason).rstrip("."))]
    splits, rejected = _counted(material, source)
    rows = [
        [split, f"{one.clips:,}", str(len(one.subjects - {""}) or "-"),
         f"{one.seconds / 3600:.2f}" if one.seconds else "-"]
        for split, one in sorted(splits.items())
    ]  # fmt: skip
    parts = [
        Markup("<h3>As stored</h3>"),
        paragraph(f"{source.name}, {', '.join(str(storage) for storage in source.storages)}"),
        table(["split", "clips", "speakers", "hours"], rows),
    ]
    if rejected:
        parts.append(table(["rejected in packing, by reason", "clips"],
                           [[reason, f"{count:,}"] for reason, count in rejected.most_common()]))  # fmt: skip
    return parts


@dataclass
class _Split:
    clips: int = 0
    subjects: set[str] = field(default_factory=set)
    seconds: float = 0.0
    """0 where it is not known."""

    def add(self, subject: str, seconds: float | None) -> None:
        self.clips += 1
        self.subjects.add(subject)
        self.seconds += seconds or 0.0


def _counted(material: Material, source: ClipSource) -> tuple[dict[str, _Split], Counter[str]]:
    """What is in each split, and rejected clips by reason, which indices on this machine alone tell."""
    splits: dict[str, _Split] = defaultdict(_Split)
    rejected: Counter[str] = Counter()
    data = material.run.data
    given: list[Any] = list(material.settings.data) or data.get("val_shards") or data.get("shards") or []
    if not given or not all((Path(place) / INDEX_NAME).is_file() for place in given):
        for number in range(len(source)):
            info = source.info(number)
            splits[info.split or "(none)"].add(info.subject, None)
        return splits, rejected
    for place in given:
        index, _ = ShardIndex.read(place)
        for row in zip(*(index.clips.values(name) for name in ("split", "subject", "duration_s")), strict=True):
            splits[row[0] or "(none)"].add(row[1], row[2])
        rejected.update(reject.reason for reject in index.rejected)
    return splits, rejected
