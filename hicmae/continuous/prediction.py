"""What a trained head says of every frame of a sequence, and how right it is.

Shapes: N frames of a video, S steps, W windows, L steps of a window, K targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hicmae.continuous.features import Features
from hicmae.continuous.leader_follower import LeaderFollower
from hicmae.continuous.windows import WindowSettings, cut_window, merge_windows, window_starts
from hicmae.metrics import DIMENSIONAL, dimensional_scores


@dataclass(frozen=True, kw_only=True)
class LabelledVideo:
    """A video's features with its labels."""

    name: str
    subject: str
    split: str
    features: Features
    labels: NDArray[np.float32] | None
    """float32 (N, K), NaN where a frame has no label; ``None``: the video has none."""
    centre: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """float32 (D,) by stream: what is taken from its features (``statistics.centred``); none: they are as stored."""

    @property
    def labelled_frames(self) -> int:
        """Frames with a label of any target."""
        return 0 if self.labels is None else int(np.isfinite(self.labels).any(axis=1).sum())

    def values(self, stream: str, start: int, length: int) -> NDArray[np.float32]:
        """Features of at most ``length`` steps, float32 (steps, D)."""
        part: NDArray[np.float32] = self.features.streams[stream][start : start + length].astype(np.float32)
        return part - self.centre[stream] if stream in self.centre else part

    def window(self, streams: Sequence[str], start: int, length: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One window: features, float32 (L, D), and presence, bool (L,), of every stream."""
        features, present = {}, {}
        for name in streams:
            features[name] = torch.from_numpy(cut_window(self.values(name, start, length), 0, length))
            present[name] = torch.from_numpy(cut_window(self.features.present[name], start, length))
        return features, present


@torch.no_grad()
def predict_frames(
    model: LeaderFollower, sequence: LabelledVideo, windows: WindowSettings, *, batch_size: int
) -> NDArray[np.float64]:
    """Predictions for every frame, float64 (N, K): the mean over the windows that hold a step, and between steps a
    straight line. The model is used in evaluation mode, and left in the mode that it was in.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    steps = sequence.features.steps
    starts = window_starts(len(steps), windows)
    outputs = []
    for first in range(0, len(starts), batch_size):
        cut = [sequence.window(model.streams, start, windows.length) for start in starts[first : first + batch_size]]
        features = {name: torch.stack([one[0][name] for one in cut]).to(device) for name in model.streams}
        present = {name: torch.stack([one[1][name] for one in cut]).to(device) for name in model.streams}
        outputs.append(model(features, present).values.float().cpu().numpy())
    model.train(was_training)
    values = merge_windows(np.concatenate(outputs), starts, len(steps))
    every = np.arange(sequence.features.frames)
    return np.stack([np.interp(every, steps, values[:, k]) for k in range(values.shape[1])], axis=1)


def frame_scores(
    predictions: Mapping[str, NDArray[np.float64]],
    labels: Mapping[str, NDArray[np.float32]],
    targets: Sequence[str],
) -> dict[str, float]:
    """Scores over all labelled frames of all videos, each frame once, as the challenges score.

    Args:
        predictions: float (N, K) by video.
        labels: float (N, K) by video, NaN where there is no label; every video has predictions.
        targets: names, in order.

    Returns:
        ``ccc``, ``pcc``, ``mae`` and ``rmse`` (means over the targets that have labels here), each of them by target
        (``ccc_valence``), and the numbers of ``videos`` and ``frames``. A score that is not defined is NaN.

    Raises:
        ValueError: no labelled frame.
    """
    names = sorted(labels)
    truth = np.concatenate([labels[name] for name in names]) if names else np.empty((0, len(targets)))
    if not np.isfinite(truth).any():
        raise ValueError("there is no labelled frame to score")
    guess = np.concatenate([predictions[name] for name in names])
    result: dict[str, float] = {}
    by_target = {}
    for k, target in enumerate(targets):
        there = np.isfinite(truth[:, k])
        if there.any():
            by_target[target] = dimensional_scores(truth[there, k], guess[there, k])
    for score in DIMENSIONAL:
        values = {target: float(getattr(one, score)) for target, one in by_target.items()}
        result[score] = sum(values.values()) / len(values)
        result |= {f"{score}_{target}": values.get(target, math.nan) for target in targets}
    return result | {"videos": len(names), "frames": int(np.isfinite(truth).any(axis=1).sum())}


def selection_score(scores: Mapping[str, float]) -> float:
    """The score by which checkpoints are chosen: the mean CCC, 0 where it is not defined."""
    return 0.0 if math.isnan(scores["ccc"]) else scores["ccc"]
