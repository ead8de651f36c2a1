"""Windows to model inputs: a few at a time, on the model's device.

Shapes: B windows, T frames, S pixels of a frame's side, F x M the spectrogram.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from hicmae.inference.windows import ClipWindow
from hicmae.media.batch_transform import BatchTransform
from hicmae.transform import ModelInputs


def batches_of(windows: Iterable[ClipWindow], size: int) -> Iterator[list[ClipWindow]]:
    """Consecutive windows, at most ``size`` together, all of which have the same modalities.

    Which windows come together depends on the clip alone, so that a clip always gives the same features.

    Raises:
        ValueError: a size below 1.
    """
    if size < 1:
        raise ValueError(f"batch_size={size} must be at least 1 window")
    batch: list[ClipWindow] = []
    for window in windows:
        if batch and (len(batch) == size or window.modalities != batch[0].modalities):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


@torch.inference_mode()
def model_inputs(batch: Sequence[ClipWindow], transform: BatchTransform) -> ModelInputs:
    """What the model takes of a batch, on the device of ``transform``, as in evaluation: whole frames, no augmentation.

    Args:
        batch: at least one window, all of the same modalities.
        transform: a ``BatchTransform`` of the model's input, on the model's device.

    Returns:
        ``video``, float32 (B, 3, T, S, S), and ``log_mel``, float32 (B, 1, F, M); None where windows lack it.
    """
    device = transform.log_mel.window.device
    frames = [window.frames for window in batch if window.frames is not None]
    sound = [window.waveform for window in batch if window.waveform is not None]
    assert {len(frames), len(sound)} <= {0, len(batch)}, "windows of other modalities together"
    video = log_mel = None
    if frames:
        video = transform.frames(torch.from_numpy(np.stack(frames)).to(device))
    if sound:
        samples = torch.tensor([window.sound_samples for window in batch], device=device)
        log_mel = transform.sound(torch.from_numpy(np.stack(sound)).to(device), sound_samples=samples)
    return ModelInputs(video=video, log_mel=log_mel)
