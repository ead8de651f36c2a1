"""Input, masked input and reconstruction side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor

from hicmae.figures.canvas import save_figure
from hicmae.reconstruction import Reconstruction

_FRAMES_SHOWN = 8


def draw_reconstruction(shown: Reconstruction, path: str | Path, *, clip: int = 0, title: str = "") -> Path:
    """Draw one clip: three rows of frames, then three spectrograms.

    Args:
        shown: what ``reconstruct`` returned.
        path: the PNG to write.
        clip: which clip of the batch.
        title: a line above the picture.
    """
    frames = np.linspace(0, shown.video.shape[2] - 1, min(_FRAMES_SHOWN, shown.video.shape[2])).round().astype(int)
    rows = [
        ("input", shown.video, shown.log_mel),
        ("masked", shown.video_masked, shown.log_mel_masked),
        ("reconstructed", shown.video_predicted, shown.log_mel_predicted),
    ]
    figure = plt.figure(figsize=(len(frames) * 1.25 + 4.2, 4.6), layout="constrained")
    grid = figure.add_gridspec(3, len(frames) + 3)
    low, high = float(shown.log_mel[clip].min()), float(shown.log_mel[clip].max())
    for row, (name, video, log_mel) in enumerate(rows):
        for column, frame in enumerate(frames):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(_picture(video[clip, :, frame]))
            axes.set(xticks=[], yticks=[])
            if column == 0:
                axes.set_ylabel(name)
            if row == 0:
                axes.set_title(f"frame {frame}", fontsize=8)
        _spectrogram(figure.add_subplot(grid[row, len(frames) :]), log_mel[clip, 0], low, high, last=row == 2)
    if title:
        figure.suptitle(title, fontsize=10)
    return save_figure(figure, path)


def _picture(frame: Tensor) -> np.ndarray:
    return frame.permute(1, 2, 0).cpu().numpy()


def _spectrogram(axes: Any, log_mel: Tensor, low: float, high: float, *, last: bool) -> None:
    axes.imshow(
        log_mel.T.cpu().numpy(), origin="lower", aspect="auto", vmin=low, vmax=high, cmap="magma",
        extent=(0, log_mel.shape[0] / 100, 0, log_mel.shape[1]),
    )  # fmt: skip
    axes.set_facecolor("0.5")
    axes.tick_params(labelsize=7)
    axes.set_ylabel("mel bin", fontsize=7)
    if last:
        axes.set_xlabel("time (s)", fontsize=8)
    else:
        axes.set_xticks([])
