"""Emotions of one file over time: shares of the classes, and values below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from hicmae.figures.canvas import save_figure
from hicmae.inference.results import FilePrediction

SHOWN = 8
"""Classes that get a colour of their own; of more, the rest is summed up in grey."""
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44aa99")


def draw_emotion_timeline(prediction: FilePrediction, path: str | Path) -> Path:
    """Write the picture as PNG."""
    return save_figure(emotion_timeline(prediction), path)


def emotion_timeline(prediction: FilePrediction) -> Any:
    """A matplotlib ``Figure`` of what is said of a file; the caller closes it."""
    rows = [kind for kind, given in (("classes", prediction.targets.classes),
                                     ("values", prediction.targets.dimensions)) if given]  # fmt: skip
    figure, axes = plt.subplots(
        len(rows), 1, figsize=(11, 1.2 + 2.9 * len(rows)), layout="constrained", squeeze=False, sharex=True
    )
    starts = np.array([window.start_s for window in prediction.windows])
    ends = np.array([window.end_s for window in prediction.windows])
    times = (starts + ends) / 2
    for kind, axis in zip(rows, axes[:, 0], strict=True):
        if kind == "classes":
            _draw_classes(axis, prediction, times)
        else:
            values = np.stack([w.values for w in prediction.windows if w.values is not None])
            for k, name in enumerate(prediction.targets.dimensions):
                axis.plot(times, values[:, k], color=_COLOURS[k % len(_COLOURS)], label=name)
            axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes[-1, 0].set_xlabel("seconds")
    figure.suptitle(f"{Path(prediction.name).name}   ({prediction.model})", fontsize=11)
    return figure


def _draw_classes(axis: Any, prediction: FilePrediction, times: NDArray[np.float64]) -> None:
    shares = np.stack([w.probabilities for w in prediction.windows if w.probabilities is not None])
    order = np.argsort(-shares.mean(axis=0), kind="stable")[:SHOWN]
    for place, column in enumerate(sorted(order.tolist())):
        axis.plot(times, shares[:, column], color=_COLOURS[place], label=prediction.targets.classes[column], marker=".")
    axis.set_ylim(0, 1)
    axis.set_ylabel("probability")
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
