"""The README.md of an exported folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LIMITS = """\
## Intended use and limits

For research on audio-visual emotion recognition. Labels of emotion corpora are *acted or perceived* emotion as
annotators saw it, not what a person feels, and such models carry the bias of their corpora towards the ages,
languages, cultures and recording conditions in them. Do not use the model to judge individuals, for surveillance,
or on people who have not agreed to it.
"""


def model_card(settings: Mapping[str, Any]) -> str:
    """Markdown for the export configuration ``settings`` (the content of ``config.json``)."""
    recognizer = settings["kind"] == "recognizer"
    model, spec, provenance = settings["model"], settings["input"], settings["provenance"]
    call = (
        "model, transform = hicmae.load_recognizer(folder)\nprint(model(**transform('clip.mp4')))"
        if recognizer
        else "backbone, transform = hicmae.load_backbone(folder)\nfeatures = backbone(**transform('clip.mp4'))"
    )
    lines = [
        f"# HiCMAE {settings['kind']}",
        "",
        f"{settings['parameters'] / 1e6:.2f} M parameters; width {model['width']}, {model['depth']} encoder layers, "
        f"{model['fusion_depth']} fusion layers.",
        f"Input: {spec['num_frames']} frames of {spec['image_size']} x {spec['image_size']} pixels, "
        f"{spec['frame_interval_s']} s apart, and {spec['audio_seconds']} s of {spec['sample_rate_hz']} Hz sound. "
        f"Modalities: {', '.join(settings['modalities'])}.",
        "",
    ]
    if recognizer:
        lines += [f"- classes: {', '.join(settings['classes'])}"] if settings["classes"] else []
        lines += [f"- dimensions: {', '.join(settings['dimensions'])}"] if settings["dimensions"] else []
        lines.append("")
    lines += ["```python", "import hicmae", "", "folder = '...'  # this folder", call, "```", ""]
    metrics = provenance.get("metrics", {})
    if metrics:
        lines += ["## Results", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {_show(value)} |" for name, value in metrics.items()]
        lines.append("")
    lines += ["## How it was made", ""]
    lines += [f"- {name}: {_show(value)}" for name, value in provenance.items() if name != "metrics"]
    lines += ["", _LIMITS]
    return "\n".join(lines)


def _show(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
