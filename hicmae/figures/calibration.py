"""Reliability diagrams: how often a prediction is right, against how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from hicmae.calibration import Bins
from hicmae.figures.canvas import save_figure


def draw_calibration(versions: Mapping[str, Bins], path: str | Path, *, notes: Mapping[str, str]) -> Path:
    """Draw a panel a version: accuracy of each bin against its confidence, and below it the share of clips.

    Args:
        versions: bins by name (before, after).
        path: the PNG to write.
        notes: a few words for each version's title.
    """
    figure, axes = plt.subplots(
        2, len(versions), figsize=(3.6 * len(versions), 4.4), height_ratios=(3, 1), sharex=True, sharey="row",
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for (name, bins), above, below in zip(versions.items(), axes[0], axes[1], strict=True):
        filled = bins.clips > 0
        centres, widths = (bins.edges[1:] + bins.edges[:-1]) / 2, np.diff(bins.edges)
        above.plot([0, 1], [0, 1], color="#999999", lw=1, ls="--")
        above.bar(centres[filled], bins.accuracy[filled], widths[filled], color="#4477aa", alpha=0.35, ec="#4477aa")
        above.plot(bins.confidence[filled], bins.accuracy[filled], "o", color="#222222", ms=4)
        above.set_title(f"{name}: {notes[name]}", fontsize=9)
        above.set_aspect("equal")
        below.bar(centres, bins.clips / bins.clips.sum(), widths, color="#888888")
        below.set_xlabel("confidence", fontsize=8)
        for part in (above, below):
            part.set_xlim(0, 1)
            part.tick_params(labelsize=7)
    axes[0, 0].set_ylim(0, 1)
    axes[0, 0].set_ylabel("share that is right", fontsize=8)
    axes[1, 0].set_ylabel("clips", fontsize=8)
    return save_figure(figure, path)
