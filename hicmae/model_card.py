"""The README.md of an exported folder: its model card, with the front matter that model hubs read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_LIMITS = """\
## Intended use and limits

For research on audio-visual emotion recognition.

- **What the labels are.** Labels of emotion corpora are *acted or perceived* emotion: what an actor was asked to show,
  or what annotators saw and heard. They are not what a person feels, and neither are the outputs of this model.
- **Bias.** The model carries the bias of its corpora towards the ages, languages, cultures and recording conditions in
  them. Hold it against people and recordings like yours before you rely on a number.
- **Consent.** Use it on people who have agreed to it. Not to judge individuals (at work, at school, in court, at a
  border), and not for surveillance.
- **Licence.** The code is under the MIT licence; the weights are bound by the terms of the corpora that they were
  trained on, too.
"""

_TASKS = {("video",): "video-classification", ("audio",): "audio-classification"}
_HEADS = {"backbone": ("Backbone", "features of video and sound"), "recognizer": ("Recogniser", "emotion recognition")}


def model_card(settings: Mapping[str, Any]) -> str:
    """Markdown for the export configuration ``settings`` (the content of ``config.json``)."""
    parts = [
        _front_matter(settings),
        _summary(settings),
        _three_lines(settings),
        _input(settings),
        origin_and_limits(settings["provenance"]),
    ]
    return "\n".join(part for part in parts if part)


def origin_and_limits(provenance: Mapping[str, Any]) -> str:
    """What a card says in any format: results, how the model was made, what it is for."""
    return "\n".join(part for part in (_results(provenance), _making(provenance), _LIMITS) if part)


def _front_matter(settings: Mapping[str, Any]) -> str:
    modalities = tuple(settings["modalities"])
    recognizer = settings["kind"] == "recognizer"
    task = _TASKS.get(modalities, "video-classification") if recognizer else "feature-extraction"
    tags = ["hicmae", "emotion-recognition", "masked-autoencoder", *modalities]
    return "\n".join(
        ["---", "library_name: hicmae", f"pipeline_tag: {task}", "tags:", *(f"- {tag}" for tag in tags), "---", ""]
    )


def _summary(settings: Mapping[str, Any]) -> str:
    model = settings["model"]
    name, purpose = _HEADS[settings["kind"]]
    lines = [
        f"# HiCMAE: {name[0].lower() + name[1:]}",
        "",
        f"{name} for {purpose}, trained with {' and '.join(settings['modalities'])}. "
        f"{settings['parameters'] / 1e6:.2f} M parameters: width {model['width']}, {model['depth']} layers in each "
        f"encoder, {model['fusion_depth']} fusion layers."
        + (" The folder holds the decoders of pre-training as well." if settings["decoder"] else ""),
        "",
    ]
    targets = settings["targets"]
    if targets is not None:
        lines += [f"- classes: {', '.join(targets['classes'])}"] if targets["classes"] else []
        for dimension in targets["dimensions"]:
            low_high = targets["ranges"].get(dimension)
            bounds = f", labels from {low_high[0]:g} to {low_high[1]:g}" if low_high else ""
            lines.append(f"- dimension: {dimension}{bounds}")
        lines.append("")
    return "\n".join(lines)


def _three_lines(settings: Mapping[str, Any]) -> str:
    recognizer = settings["kind"] == "recognizer"
    call = (
        'model, transform = hicmae.load_recognizer("FOLDER")\nrecognition = model(**transform("clip.mp4"))'
        if recognizer
        else 'backbone, transform = hicmae.load_backbone("FOLDER")\nfeatures = backbone(**transform("clip.mp4"))'
    )
    holder = "EmotionRecognizer" if recognizer else "Backbone"
    return "\n".join([
        "## Use", "", "```python", "import hicmae", "", call, "```", "",
        f'From a model hub: `hicmae.{holder}.from_pretrained("OWNER/NAME")`, whose `.transform` feeds it.', "",
    ])  # fmt: skip


def _input(settings: Mapping[str, Any]) -> str:
    spec, modalities = settings["input"], settings["modalities"]
    lines = ["## Input", ""]
    if "video" in modalities:
        lines.append(
            f"- video: {spec['num_frames']} frames of {spec['image_size']} x {spec['image_size']} pixels, "
            f"{spec['frame_interval_s']} s apart, of a face that fills the picture; RGB on 0..1, less "
            f"{spec['image_mean']}, divided by {spec['image_std']}"
        )
    if "audio" in modalities:
        lines.append(
            f"- audio: {spec['audio_seconds']} s of {spec['sample_rate_hz']} Hz mono sound as {spec['audio_frames']} "
            f"log-mel frames of {spec['mel_bins']} bins, less {spec['log_mel_mean']}, divided by "
            f"2 x {spec['log_mel_std']}"
        )
    return "\n".join([*lines, "", "The transform does all of this from a media file.", ""])


def _results(provenance: Mapping[str, Any]) -> str:
    metrics, intervals = provenance.get("metrics", {}), provenance.get("intervals", {})
    if not metrics:
        return ""
    bounds = intervals.get("bounds", {})
    about = f"{intervals['level']:.0%} interval" if bounds else "interval"
    lines = ["## Results", "", f"| metric | value | {about} |", "|---|---|---|"]
    for name, value in metrics.items():
        both = bounds.get(name)
        lines.append(f"| {name} | {_show(value)} | {f'{both[0]:.4f} to {both[1]:.4f}' if both else ''} |")
    lines.append("")
    if bounds:
        lines += [f"Intervals: {intervals['method']} over {intervals['groups']} {intervals['over']}.", ""]
    return "\n".join(lines)


def _making(provenance: Mapping[str, Any]) -> str:
    lines = ["## How it was made", "", *(_account(provenance) or ["Whoever exported it did not say."])]
    if recipe := provenance.get("recipe"):
        shown = json.dumps(recipe, indent=2)
        lines += ["", "<details><summary>All settings of the run</summary>", "", "```json", shown, "```", "",
                  "</details>"]  # fmt: skip
    return "\n".join([*lines, ""])


def _account(provenance: Mapping[str, Any], indent: str = "") -> list[str]:
    """A line for each thing known; what is known of the weights that a run started from, a level deeper."""
    lines = []
    for name, value in provenance.items():
        if name in ("metrics", "intervals", "recipe"):
            continue
        earlier = value.get("provenance", {}) if isinstance(value, Mapping) else {}
        shown = {key: one for key, one in value.items() if key != "provenance"} if earlier else value
        lines.append(f"{indent}- {name}: {_show(shown)}{'; made by:' if earlier else ''}")
        lines += _account(earlier, indent + "  ")
    return lines


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, Mapping):
        return ", ".join(
            f"{name} ({_show(one)})" if isinstance(one, Mapping) else f"{name} {_show(one)}"
            for name, one in value.items()
        )
    return "none" if value is None else str(value)
