"""Online probes of a pre-training: what its features were worth after each epoch."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from hicmae.probe_history import PROBE_ABOUT, PROBE_TABLE, ProbeRow, best, read_probes
from hicmae.report.markup import joined, paragraph, table
from hicmae.report.material import Material
from hicmae.report.run import NotAvailableError, Run, read_json
from hicmae.report.svg import Line, line_panel

_METHODS = {"knn": "nearest neighbours", "linear": "linear"}
_PARTS = (("video_layer", "video layers"), ("audio_layer", "audio layers"), ("fused", "fused"), ("all", "all pooled"))
_OTHERS = (
    ("effective_rank", ("video_layer", "audio_layer", "fused"), "effective rank"),
    ("video_to_audio_recall_at_1", ("layer",), "retrieval@1, video to audio"),
    ("audio_to_video_recall_at_1", ("layer",), "retrieval@1, audio to video"),
    ("alignment", ("layer",), "distance of a clip's video and audio"),
)


def was_probed(run: Run) -> bool:
    """Whether the run left a table of probes."""
    return (run.root / PROBE_TABLE).is_file()


def make_probes(material: Material) -> Markup:
    """The first and the last probe of each label as a table, and everything over epochs as curves."""
    run = material.run
    rows = read_probes(run.root / PROBE_TABLE) if was_probed(run) else []
    scores = list(dict.fromkeys(row.metric for row in rows if row.metric.startswith(tuple(f"{m}_" for m in _METHODS))))
    if not scores:
        raise NotAvailableError(f"{PROBE_TABLE} holds no whole line")
    first, last = min(rows, key=lambda row: row.step), max(rows, key=lambda row: row.step)
    lines = []
    for metric in scores:
        for beginning, name in _PARTS:
            start, now = (best(_at(rows, moment.step), metric, beginning) for moment in (first, last))
            if start is not None and now is not None:
                lines.append([_title(metric), name, f"{start.value:.3f}", f"{now.value:.3f}", f"{now.chance:.3f}"])
    when = "random weights" if not first.step else f"epoch {first.epoch:g}"
    header = ["score", "best of", when, f"epoch {last.epoch:g}", "chance"]
    panels = []
    for metric in scores:
        panels += _panel(f"{_title(metric)}: video", rows, metric, ("video_layer",))
        panels += _panel(f"{_title(metric)}: audio", rows, metric, ("audio_layer",))
        panels += _panel(f"{_title(metric)}: together", rows, metric, ("fused", "all"))
    for metric, beginnings, title in _OTHERS:
        panels += _panel(title, rows, metric, beginnings)
    said = (
        f"{_clips(run)}The best of several layers is above its worth by chance alone, at the start as at the end: "
        "curves of one layer tell more than the table. Probes have no settings to choose; finetune probe tells what "
        "the features are worth in the end."
    )
    return joined(
        [
            table(header, lines, text_columns=2),
            Markup('<div class="panels">{}</div>').format(joined(panels)),
            paragraph(said, "note"),
        ]
    )


def _at(rows: Sequence[ProbeRow], step: int) -> list[ProbeRow]:
    return [row for row in rows if row.step == step]


def _panel(title: str, rows: Sequence[ProbeRow], metric: str, beginnings: tuple[str, ...]) -> list[Markup]:
    """One panel with a line a part; none where nothing is there."""
    curves: dict[str, list[ProbeRow]] = {}
    for row in rows:
        if row.metric == metric and row.part.startswith(beginnings):
            curves.setdefault(row.part.replace("_", " ").replace("layer", "layer "), []).append(row)
    lines = [
        Line(name=name, xs=[row.epoch for row in found], ys=[row.value for row in found], marked=True)
        for name, found in curves.items()
    ]
    return [line_panel(title, lines, unit="epoch")] if lines else []


def _title(metric: str) -> str:
    """``knn_uar_emotion`` in words."""
    method, score, column = metric.split("_", 2)
    return f"{score.upper()} of {column}, {_METHODS[method]}"


def _clips(run: Run) -> str:
    """Which clips were probed, and what of them was trained on, as far as the run says."""
    try:
        about = read_json(run.root / PROBE_ABOUT)
        clips, shared = about["clips"], about["also_in_pretraining"]
        text = f"{clips['fit']} clips to fit and {clips['queries']} that ask, divided by {about['divided']}. "
        if shared["clips"] or shared["subjects"]:
            text += (
                f"{len(shared['clips'])} of these clips and {len(shared['subjects'])} of their speakers, by name, were "
                "trained on too. "
            )
    except (NotAvailableError, KeyError, TypeError):
        return ""
    return text
