"""The lines of a fine-tuning configuration that follow from a corpus: its labels, and where its shards lie."""

from __future__ import annotations

import json
import math
from pathlib import Path

from hicmae.data.labels import LabelSpec
from hicmae.prepare.tally import Tally


def config_lines(
    labels: LabelSpec | None, counts: Tally, *, shards: Path | None, manifest: Path, shared_subjects: bool = False
) -> str:
    """YAML to put over ``configs/finetune/*.yaml``.

    Args:
        labels: what the clips are labelled with; None for nothing.
        counts: of the clips, for the comments.
        shards: folder of shards; None where there are none, and the files of ``manifest`` are read.
        manifest: the manifest.
        shared_subjects: speakers occur in two splits.
    """
    lines = ["model:", "  labels:"] if labels else []
    if labels and labels.classes:
        lines.append("    classes:  # in the order of the outputs; leave out columns that are not to be learnt")
        for column, names in labels.classes.items():
            lines.append(f"      {_plain(column)}: [{', '.join(map(_plain, names))}]")
            lines.append(f"      # {', '.join(f'{name} {counts.of_class(column, name)}' for name in names)}")
    if labels and labels.dimensions:
        lines.append("    dimensions:  # lowest and highest value of the scale; check: these enclose what was found")
        for column, (low, high) in labels.dimensions.items():
            lines.append(f"      {_plain(column)}: [{math.floor(low)}, {math.ceil(high)}]  # {low:g} to {high:g}")
    elif labels:
        lines.append("    dimensions: {}")
    lines.append("data:")
    if shards is not None:
        lines += [f"  shards: [{_plain(str(shards))}]", "  manifest: null"]
    else:
        lines += ["  shards: null", f"  manifest: {_plain(str(manifest))}"]
    folds = [split for split in counts.splits if split.startswith("fold")]
    if folds:
        lines.append(f"  test_fold: 1  # of {len(folds)}; 'python -m finetune folds' runs them all")
    if shared_subjects:
        lines.append("  allow_shared_subjects: true  # speakers occur in two splits: nothing is said of new people")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A scalar that YAML reads as this text; JSON strings are YAML."""
    return text if text.replace("_", "").replace("/", "").isalnum() and not _special(text) else json.dumps(text)


def _special(text: str) -> bool:
    """Whether YAML would take it for a number or a truth value."""
    return text[0].isdigit() or text.lower() in ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
