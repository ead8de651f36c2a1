"""What decoding gives back, and the error it raises: types without a decoder behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


class DecodeError(ValueError):
    """A clip that cannot be decoded: which, why, and what to do about it.

    ``reason`` is a short code for counting (``"truncated"``, ``"no_video_stream"``, ...); ``str()`` names the
    clip, what was found in it, and the remedy. Pickles, so that it can cross from a worker to its parent.
    """

    def __init__(self, name: str, reason: str, found: str, remedy: str) -> None:
        super().__init__(name, reason, found, remedy)
        self.name = name
        self.reason = reason
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.name}: {self.found} ({self.reason}); {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """What a media file holds, read from its packets (not from what its header claims)."""

    has_video: bool
    has_audio: bool
    duration_s: float
    """From the first frame to the end of the last; of the sound where there is no picture. Seconds."""
    fps: float
    """Mean frames per second; 0 without a picture."""
    width: int
    """Width as displayed: after rotation, with square pixels. 0 without a picture."""
    height: int
    """Height as displayed. 0 without a picture."""
    audio_rate_hz: int
    audio_channels: int
    video_codec: str
    audio_codec: str


@dataclass(frozen=True, kw_only=True)
class ClipSlot:
    """Memory that a window is decoded into, such as rows of a batch; what was there before does not matter."""

    video: npt.NDArray[np.uint8]
    """uint8 (T, S, S, 3), or (T, 3*S/2, S) for planar frames."""
    waveform: npt.NDArray[np.int16]
    """int16 (samples,)"""


@dataclass(frozen=True, kw_only=True)
class DecodedClip:
    """One window of a clip: picture and sound from the same instant."""

    video: npt.NDArray[np.uint8]
    """Frames, uint8: RGB (T, S, S, 3), or planar YUV (T, 3*S/2, S) where that was asked for; black (zeros in RGB)
    where the file has no picture."""
    waveform: npt.NDArray[np.int16]
    """Mono sound, int16 (samples,); zeros before a late start, past the end, and where there is none."""
    has_video: bool
    has_audio: bool
    """Whether any sound lies within the window."""
    start_s: float
    """Instant of the first frame and of the first sample, on the file's clock, in seconds."""
    frame_times_s: npt.NDArray[np.float64]
    """Presentation times of the frames delivered, float64 (T,), in seconds; NaN without a picture."""
    sound_samples: int
    """Samples from the window's start to the end of the sound within it; what follows is padding."""
