"""Crop boxes, and the cutting, resizing and colour normalisation of a whole batch on its device.

Boxes are drawn on the processor, one per clip, and travel as four numbers; the pixels are touched once, on
the training device. A box is (top, left, height, width) in pixels of the decoded frame.

Shapes: B clips, T frames, H and W of the decoded frame, S side of the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hicmae.config import InputSpec

MULTI_SCALES = (1.0, 0.875, 0.75, 0.66)
"""Sides of the paper's multi-scale crop, as fractions of the frame's side."""

# (rows, columns) in quarters of the room that the box leaves: corners and centre, the middles of the edges, and
# the centres of the four quarters (Wang et al., Temporal Segment Networks, 2016).
_GRID = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3))


def multi_scale_crop_box(
    rng: np.random.Generator, size: int, *, scales: Sequence[float] = MULTI_SCALES
) -> npt.NDArray[np.float32]:
    """A box of the paper's pre-training: sides from a few scales, placed on a fixed grid of 13 positions.

    Height and width are drawn together and differ by at most one scale.

    Args:
        rng: the clip's own generator.
        size: side of the square frame, in pixels.
        scales: sides as fractions of ``size``, descending.

    Returns:
        float32 (4,), whole pixels within the frame.
    """
    sides = [int(size * scale) for scale in scales]
    pairs = [(height, width) for i, height in enumerate(sides) for j, width in enumerate(sides) if abs(i - j) <= 1]
    height, width = pairs[int(rng.integers(len(pairs)))]
    rows, columns = _GRID[int(rng.integers(len(_GRID)))]
    return np.array([rows * (size - height) // 4, columns * (size - width) // 4, height, width], dtype=np.float32)


def random_resized_crop_box(
    rng: np.random.Generator,
    size: int,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> npt.NDArray[np.float32]:
    """A box of fine-tuning: area and aspect ratio drawn at random, at a random place (Szegedy et al., 2015).

    Args:
        rng: the clip's own generator.
        size: side of the square frame, in pixels.
        scale: least and greatest area, as fractions of the frame's.
        ratio: least and greatest width over height; drawn evenly on a logarithmic scale.

    Returns:
        float32 (4,), whole pixels within the frame; the whole frame where ten draws do not fit.

    Raises:
        ValueError: ranges that are empty or out of bounds.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale={scale} must be two fractions of the frame's area, ascending, within (0, 1]")
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"ratio={ratio} must be two positive numbers, ascending")
    for _ in range(10):
        area = size * size * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= size and 0 < height <= size:
            top, left = rng.integers(size - height + 1), rng.integers(size - width + 1)
            return np.array([top, left, height, width], dtype=np.float32)
    return np.array([0, 0, size, size], dtype=np.float32)


def crop_and_normalize(video: Tensor, boxes: Tensor | None, spec: InputSpec, flip: Tensor | None = None) -> Tensor:
    """Cut a box from every clip, resize it bilinearly, mirror it where asked, and normalise its colours.

    A sample beyond the box takes the value at the box's edge, as if the box had been cut out first. The filter
    is not widened for boxes larger than the result.

    Args:
        video: uint8 (B, T, H, W, 3).
        boxes: float32 (B, 4), top, left, height, width, within the frame; ``None`` takes whole frames.
        spec: side of the result, and mean and standard deviation of the colours.
        flip: bool (B,), mirror left and right.

    Returns:
        float32 (B, 3, T, S, S), contiguous.

    Raises:
        ValueError: video of another type or shape.
    """
    if video.dtype != torch.uint8 or video.ndim != 5 or video.shape[-1] != 3:
        raise ValueError(
            f"video is {video.dtype} {tuple(video.shape)}; expected uint8 (clips, frames, height, width, 3)"
        )
    size = spec.image_size
    height, width = video.shape[2:4]
    frames = video.permute(0, 4, 1, 2, 3)  # (B, 3, T, H, W)
    if boxes is not None or (height, width) != (size, size):
        if boxes is None:
            boxes = _constants((0.0, 0.0, height, width), video.device).expand(len(video), 4)
        top, left, box_height, box_width = boxes.to(video.device, torch.float32).unbind(1)
        frames = _resample(frames, 3, *_taps(top, box_height, size, height))
        frames = _resample(frames, 4, *_taps(left, box_width, size, width))
    if flip is not None:
        frames = torch.where(flip[:, None, None, None, None], frames.flip(4), frames)
    mean = _constants(spec.image_mean, video.device).view(3, 1, 1, 1)
    std = _constants(spec.image_std, video.device).view(3, 1, 1, 1)
    # One pass that converts and reorders, then two in place.
    pixels = frames.to(torch.float32, memory_format=torch.contiguous_format, copy=True).contiguous()
    return pixels.mul_(1 / (255 * std)).sub_(mean / std)


def _constants(values: Sequence[float], device: torch.device) -> Tensor:
    """float32 (len(values),), made on the device: a copy from the host would wait for the running step."""
    return torch.stack([torch.full((), value, dtype=torch.float32, device=device) for value in values])


def _taps(start: Tensor, extent: Tensor, size: int, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of ``size`` outputs: the two inputs around it, int64 (B, S), and the weight of the second."""
    centres = (torch.arange(size, device=start.device) + 0.5) * (extent[:, None] / size) - 0.5  # (B, S)
    place = start[:, None] + torch.minimum(centres.clamp(min=0.0), (extent[:, None] - 1).clamp(min=0.0))
    place = place.clamp(0.0, float(limit - 1))
    low = place.floor()
    first = low.long()
    return first, (first + 1).clamp(max=limit - 1), place - low


def _resample(frames: Tensor, dim: int, first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Blend two gathers along dimension ``dim`` of (B, 3, T, H, W)."""
    shape = [len(frames), 1, 1, 1, 1]
    shape[dim] = first.shape[1]
    wanted = list(frames.shape)
    wanted[dim] = first.shape[1]
    low = frames.gather(dim, first.view(shape).expand(wanted)).float()
    high = frames.gather(dim, second.view(shape).expand(wanted)).float()
    return torch.lerp(low, high, weight.view(shape))
