"""A log-mel spectrogram as a picture."""

from __future__ import annotations

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_GREY = (128, 128, 128)


def spectrogram_picture(
    log_mel: NDArray[np.float32], size: tuple[int, int], *, limits: tuple[float, float] | None = None
) -> Image.Image:
    """Time to the right, low frequencies below; what is NaN is grey.

    Args:
        log_mel: float (frames, bins).
        size: width and height of the picture, in pixels.
        limits: values that are black and white; ``None``: the lowest and the highest there are.
    """
    low, high = limits or (float(np.nanmin(log_mel)), float(np.nanmax(log_mel)))
    values = log_mel.T[::-1]
    level = np.nan_to_num((values - low) / max(1e-6, high - low))
    colours = (matplotlib.colormaps["magma"](level)[..., :3] * 255).round().astype(np.uint8)
    colours[np.isnan(values)] = _GREY
    # patches are to keep their edges where the picture is larger than they are
    return Image.fromarray(colours).resize(size, Image.Resampling.BOX if np.isnan(values).any() else
                                           Image.Resampling.BILINEAR)  # fmt: skip
