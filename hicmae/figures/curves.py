"""Learning curves of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from hicmae.figures.canvas import save_figure


def draw_curves(
    history: Sequence[Mapping[str, float]],
    path: str | Path,
    *,
    validation: Sequence[Mapping[str, float]] = (),
    title: str = "",
) -> Path | None:
    """Draw every loss, the learning rate, the gradient norm and the throughput against the step.

    Args:
        history: logged lines, each with ``step`` and values by name (as ``TrainingMonitor.history``).
        path: the PNG to write; nothing is drawn (``None``) for fewer than two lines.
        validation: scores after each epoch, each with ``step`` and values by name; drawn in panels of their own.
        title: a line above the picture.
    """
    if len(history) < 2:
        return None
    panels = [(name, history) for name in history[0] if name.startswith("train/")]
    panels += [(name, history) for name in ("lr", "grad_norm", "clips_per_s")]
    panels += [(name, validation) for name in (validation[0] if validation else ()) if name != "step"]
    names = [name for name, _ in panels]
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, all_axes = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 2.4 * rows), layout="constrained", squeeze=False
    )
    for axes, (name, lines) in zip(all_axes.flat, panels, strict=False):
        marker = "." if lines is validation else None
        axes.plot([line["step"] for line in lines], [line[name] for line in lines], lw=1.2, marker=marker)
        axes.set_title(name.removeprefix("train/"), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    for axes in all_axes.flat[len(names) :]:
        axes.axis("off")
    for axes in all_axes[-1]:
        axes.set_xlabel("step", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return save_figure(figure, path)
