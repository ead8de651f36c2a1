"""The README.md of a folder with an ONNX file or an exported program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hicmae.model_card import origin_and_limits


def card(settings: Mapping[str, Any]) -> str:
    """Markdown for the configuration ``settings`` (the content of ``config.json``)."""
    spec, files = settings["input"], settings["files"]
    transform, model = files
    lines = [
        f"# HiCMAE {settings['kind']}, {settings['format']}, {settings['precision']}",
        "",
        f"`{transform}` turns decoded frames and sound into what `{model}` takes. The first axis of every input and "
        "output is the clips, any number of them.",
        "",
        "| file | | name | type | shape |",
        "|---|---|---|---|---|",
    ]
    for file, about in files.items():
        for side in ("inputs", "outputs"):
            lines += [
                f"| {file} | {side.removesuffix('s')} | {name} | {x['dtype']} | ({', '.join(map(str, x['shape']))}) |"
                for name, x in about[side].items()
            ]
    lines.append("")
    if "video" in settings["modalities"]:
        lines.append(
            f"- `frames`: {spec['num_frames']} RGB frames {spec['frame_interval_s']} s apart, each the one on screen "
            "at its instant (after the end, the last): the face (where it fills the picture: the largest square in the "
            f"centre), upright, resized to {spec['image_size']} x {spec['image_size']} pixels by an antialiased "
            "bilinear filter, which is what Pillow's `BILINEAR` is. Other filters move the answers a little."
        )
    if "audio" in settings["modalities"]:
        lines += [
            f"- `waveform`: {spec['audio_seconds']} s of mono sound at {spec['sample_rate_hz']} Hz from the instant of "
            "the first frame, zeros where the file has no more.",
            "- `sound_samples`: how many of those samples are sound.",
        ]
    targets = settings["targets"] or {"classes": [], "dimensions": []}
    if targets["classes"]:
        lines.append(f"- classes, in the order of `probabilities` and `logits`: {', '.join(targets['classes'])}")
    if targets["dimensions"]:
        named = [_dimension(name, targets["ranges"].get(name)) for name in targets["dimensions"]]
        lines.append(f"- dimensions, in the order of `values`: {', '.join(named)}")
    if settings["kind"] == "recognizer":
        lines.append("- `features`: what both are computed from, after its LayerNorm.")
    else:
        lines.append("- `..._layer_means`: mean over the tokens of every encoder layer, layers on the second axis.")
    lines += ["", "```python", *_lines_to_run(settings), "```", ""]
    if settings["format"] == "torch-export":
        lines += ["`torch.export.load` unpickles: load this file only if you trust where it comes from.", ""]
    lines += [*_checks(settings["check"]), "", origin_and_limits(settings["provenance"])]
    return "\n".join(lines)


def _dimension(name: str, low_high: Sequence[float] | None) -> str:
    return (
        name if low_high is None else f"{name} (labels from {low_high[0]:g} to {low_high[1]:g}; outputs may lie beyond)"
    )


def _lines_to_run(settings: Mapping[str, Any]) -> list[str]:
    """Python that runs as it stands in the folder, on clips of zeros."""
    (transform, raw), (model, about) = settings["files"].items()
    first = next(iter(about["outputs"]))
    arrays = [f'    "{name}": {_array(name, about, settings["input"])},' for name, about in raw["inputs"].items()]
    decoded = ["clips = 2", "decoded = {  # in place of your own", *arrays, "}"]
    if settings["format"] == "onnx":
        return [
            "import numpy as np",
            "import onnxruntime",
            "",
            f'transform = onnxruntime.InferenceSession("{transform}")',
            f'model = onnxruntime.InferenceSession("{model}")',
            *decoded,
            "names = [x.name for x in transform.get_outputs()]",
            "inputs = dict(zip(names, transform.run(names, decoded)))",
            f'print(model.run(["{first}"], inputs)[0])',
        ]
    return [
        "import numpy as np",
        "import torch",
        "",
        f'transform = torch.export.load("{transform}").module()',
        f'model = torch.export.load("{model}").module()',
        *decoded,
        "with torch.inference_mode():",
        "    inputs = transform(**{name: torch.from_numpy(x) for name, x in decoded.items()})",
        f'    print(model(**inputs)["{first}"])',
    ]


def _array(name: str, about: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    if name == "sound_samples":
        return f"np.full(clips, {round(spec['audio_seconds'] * spec['sample_rate_hz'])}, np.{about['dtype']})"
    return f"np.zeros((clips, {', '.join(map(str, about['shape'][1:]))}), np.{about['dtype']})"


def _checks(check: Mapping[str, Any]) -> list[str]:
    worst: dict[tuple[str, str], dict[str, Any]] = {}
    for row in check["float32"]:
        key = (row["file"], row["output"])
        if key not in worst or row["largest"] > worst[key]["largest"]:
            worst[key] = row
    clips = sorted({row["clips"] for row in check["float32"]})
    batches = sorted({row["batch"] for row in check["float32"]})
    lines = [
        "## How it was checked",
        "",
        f"Before this folder was kept its float32 files were compared with {check['against']}, on "
        f"{' and '.join(clips)} clips, in batches of {' and '.join(map(str, batches))}; all differences are in "
        "`config.json`.",
        "",
        "| file | output | largest difference | allowed |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['file']} | {row['output']} | {row['largest']:.1e} | {row['tolerance']:g} |" for row in worst.values()
    ]
    if "int8" in check:
        lines += ["", "Eight-bit weights then moved the outputs of the model, on the clips that are not noise, by:", ""]
        lines += ["| output | largest difference | least cosine |", "|---|---|---|"]
        lines += [f"| {row['output']} | {row['largest']:.2e} | {row['least_cosine']:.6f} |" for row in check["int8"]]
        shared = (
            "In a batch, clips share the scale by which activations are rounded: a clip's outputs depend a little on "
        )
        lines += ["", f"That was one clip at a time. {shared}those beside it."]
    return lines
