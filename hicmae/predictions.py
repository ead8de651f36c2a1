"""From what a model says of segments, on several processes, to one prediction a clip.

Shapes: B rows of a batch, K outputs (class probabilities and dimensions side by side), N clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hicmae import distributed


@dataclass(frozen=True, kw_only=True)
class ClipOutputs:
    """The outputs of the clips of a source, in its order; clips without a valid segment are missing."""

    index: NDArray[np.int64]
    """(N,), ascending: number of the clip in its source."""
    outputs: NDArray[np.float64]
    """(N, K), mean over the clip's segments."""
    segments: NDArray[np.int64]
    """(N,), how many segments were averaged."""


class SegmentOutputs:
    """Collects the outputs of an evaluation; every (clip, segment) counts once.

    The rows of all processes are put into one order before anything is added up, so that the result does not depend
    on batch size or number of processes.
    """

    def __init__(self) -> None:
        self._keys: list[Tensor] = []
        self._outputs: list[Tensor] = []

    def add(self, index: Tensor, segment: Tensor, valid: Tensor, outputs: Tensor) -> None:
        """Take a batch.

        Args:
            index: int64 (B,), number of the clip.
            segment: int64 (B,), which segment of it.
            valid: bool (B,), False for rows that do not count.
            outputs: float (B, K).
        """
        # Nothing is filtered yet: all processes must hold equally many rows to gather, and counting would make the
        # host wait for the device.
        self._keys.append(torch.stack([index, segment, valid.long()]))
        self._outputs.append(outputs.detach().float())

    def gather(self) -> ClipOutputs:
        """Every process's rows, averaged over the segments of a clip; the same on all. Call it on all, once."""
        if not self._keys:
            raise ValueError("no batch was evaluated")
        keys = distributed.gather(torch.cat(self._keys, dim=1))  # (R, 3, rows)
        outputs = distributed.gather(torch.cat(self._outputs))  # (R, rows, K)
        index, segment, valid = keys.permute(1, 0, 2).flatten(1).cpu().numpy()
        rows = outputs.flatten(0, 1).double().cpu().numpy()
        order = np.lexsort((segment, index))
        order = order[valid[order] == 1]
        index, segment, rows = index[order], segment[order], rows[order]
        # A row that came twice, from whichever process, counts once.
        first = np.ones(len(index), dtype=bool)
        first[1:] = (index[1:] != index[:-1]) | (segment[1:] != segment[:-1])
        index, rows = index[first], rows[first]
        clips, starts, segments = np.unique(index, return_index=True, return_counts=True)
        sums = np.add.reduceat(rows, starts, axis=0) if len(clips) else rows
        return ClipOutputs(index=clips, outputs=sums / segments[:, None], segments=segments)
