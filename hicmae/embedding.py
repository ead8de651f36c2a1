"""Features of whole files: windows along a video, one row each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hicmae.backbone import Backbone
from hicmae.media.decode import probe
from hicmae.transform import ClipTransform

MEDIA_SUFFIXES = frozenset([".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wav", ".flac", ".m4a", ".mp3", ".ogg"])


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """One window of a file."""

    path: Path
    start_s: float
    """Where the window starts, in seconds."""
    modalities: str
    """``video+audio``, ``video`` or ``audio``: what the file had."""
    pooled: NDArray[np.float32]
    """float32 (4 D,) with both modalities, (D,) with one: ``Features.pooled``."""


def find_media(paths: list[Path]) -> list[Path]:
    """Media files named, and those below folders named, sorted; each once.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: no media file among them.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            below = sorted(file for file in path.rglob("*") if file.suffix.lower() in MEDIA_SUFFIXES)
            found.update(dict.fromkeys(below))
        elif path.exists():
            found[path] = None
        else:
            raise FileNotFoundError(f"no file or folder {path}")
    if not found:
        suffixes = " ".join(sorted(MEDIA_SUFFIXES))
        raise ValueError(f"no media files in {', '.join(map(str, paths))}; looked for {suffixes}")
    return list(found)


def window_positions(duration_s: float, window_s: float, hop_s: float | None) -> list[float]:
    """Positions 0..1 of windows along a clip: its middle, or one every ``hop_s`` seconds, the last at the very end."""
    room = duration_s - window_s
    if hop_s is None or room <= 0:
        return [0.5]
    starts = np.arange(0, room, hop_s).tolist()
    if room - starts[-1] > 1e-3:
        starts.append(room)
    return [start / room for start in starts]


@torch.inference_mode()
def embed_file(
    backbone: Backbone, transform: ClipTransform, path: Path, *, hop_s: float | None = None
) -> Iterator[Embedding]:
    """Features of a file's windows.

    Args:
        backbone: in evaluation mode.
        transform: what came with it.
        path: a media file; a missing modality is left out, not replaced by zeros.
        hop_s: seconds between windows; ``None`` takes the window in the middle only.

    Raises:
        DecodeError: the file cannot be decoded.
    """
    data = path.read_bytes()
    duration = probe(data, name=str(path)).duration_s
    device = next(backbone.parameters()).device
    window = transform.spec.window_seconds
    for position in window_positions(duration, window, hop_s):
        inputs = transform(path, position=position)
        video, log_mel = (x.to(device) if x is not None else None for x in (inputs["video"], inputs["log_mel"]))
        features = backbone(video, log_mel)
        yield Embedding(
            path=path,
            start_s=position * max(0.0, duration - window),
            modalities="+".join(features.layer_means),
            pooled=features.pooled[0].float().cpu().numpy(),
        )
