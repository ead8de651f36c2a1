"""Means and deviations of features, of many videos or of one.

Shapes: D width of a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hicmae.continuous.prediction import LabelledVideo

_BLOCK = 4096
"""Steps read at once: features are mapped from the disk, and never taken as a whole."""


def stream_statistics(
    videos: Sequence[LabelledVideo], streams: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean and standard deviation of every value of every stream over the steps where it is present, float32 (D,)."""
    mean, std = {}, {}
    for name in streams:
        width = videos[0].features.streams[name].shape[1]
        count, total, squares = 0, np.zeros(width), np.zeros(width)
        for video in videos:
            there = video.features.present[name]
            for first in range(0, len(there), _BLOCK):
                part = video.values(name, first, _BLOCK)[there[first : first + _BLOCK]].astype(np.float64)
                count, total, squares = count + len(part), total + part.sum(axis=0), squares + (part**2).sum(axis=0)
        middle = total / max(1, count)
        mean[name] = torch.from_numpy(middle).float()
        std[name] = torch.from_numpy(np.sqrt(np.maximum(squares / max(1, count) - middle**2, 0))).float()
    return mean, std


def centred(video: LabelledVideo, streams: Sequence[str]) -> LabelledVideo:
    """The video with its own mean taken from every stream: what differs between people, rooms and cameras goes, and
    what differs within the video stays. The mean is of the whole video, so it must be there as a whole."""
    mean = stream_statistics([replace(video, centre={})], streams)[0]
    return replace(video, centre={name: value.numpy() for name, value in mean.items()})
