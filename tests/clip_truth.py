"""What a decoded window of a test clip must show and sound like, worked out from the time code and the chirp alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hicmae.config import InputSpec
from hicmae.media.clip import DecodedClip
from tests.media_files import chirp, frame_times, time_code_picture

PICTURE_DB = 22.0
"""Least PSNR of a right frame; one wrong cell of the time code gives 15 dB, whole files 30 dB and more."""
SOUND_DB = 10.0
"""Least signal-to-noise ratio of 40 ms of right sound; whole files give 20 dB and more."""
_BLOCK_S = 0.04
_EDGE_S = 0.1  # either end of the sound, where codecs fade
_LENGTH_S = 0.07  # AAC fills its last packet, of 64 ms


def time_code(time_s: float, size: int) -> npt.NDArray[np.uint8]:
    """The square test picture of an instant."""
    return time_code_picture(time_s, size, size)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a test clip holds."""

    times_s: tuple[float, ...] = tuple(map(float, frame_times(3.0, 25)))
    """When its frames are presented; none for a clip without a picture."""
    sound_s: tuple[float, float] | None = (0.0, 3.0)
    """From when to when it has sound; None for no sound."""
    shift_s: float = 0.0
    """What its time code and chirp say at 0 s of its own clock."""
    loudness: float = 1.0
    """Factor on the chirp, cut off at full scale; 0 for silence that is there."""
    picture: Callable[[float, int], npt.NDArray[Any]] = time_code
    """The picture of an instant (by the time code's clock) and size."""

    def faults(self, clip: DecodedClip, spec: InputSpec) -> list[str]:
        """What of a decoded clip is not what the file holds from ``clip.start_s`` on; nothing for a right clip."""
        return self._picture_faults(clip, spec) + self._sound_faults(clip, spec)

    def _picture_faults(self, clip: DecodedClip, spec: InputSpec) -> list[str]:
        if clip.has_video != bool(self.times_s):
            return [f"has_video is {clip.has_video}"]
        if not clip.has_video:
            return ["a picture from nowhere"] if clip.video.any() else []
        times = np.array(self.times_s)
        instants = clip.start_s + np.arange(spec.num_frames) * spec.frame_interval_s
        on_screen = np.clip(np.searchsorted(times, instants + 0.002, side="right") - 1, 0, len(times) - 1)
        truth = np.stack([self.picture(times[i] + self.shift_s, spec.image_size) for i in on_screen])
        error = ((clip.video.astype(np.float64) - truth) ** 2).mean(axis=(1, 2, 3))
        wrong = int((10 * np.log10(255**2 / np.maximum(error, 1e-9)) < PICTURE_DB).sum())
        return [f"{wrong} frames wrong"] if wrong else []

    def _sound_faults(self, clip: DecodedClip, spec: InputSpec) -> list[str]:
        rate = spec.sample_rate_hz
        begin_s, end_s = self.sound_s or (0.0, 0.0)
        begin = max(0, round((begin_s - clip.start_s) * rate))
        end = max(0, min(spec.audio_samples, round((end_s - clip.start_s) * rate)))
        if clip.has_audio != (end > begin) or abs(clip.sound_samples - end) > _LENGTH_S * rate:
            return [f"{clip.sound_samples / rate:.2f} s of sound for {end / rate:.2f} s"]
        instants = clip.start_s + self.shift_s + np.arange(spec.audio_samples) / rate
        truth = np.clip(32768 * self.loudness * chirp(instants), -32768, 32767)
        edge, block = round(_EDGE_S * rate), round(_BLOCK_S * rate)
        found = []
        if (silence := begin - edge) > 0 and np.abs(clip.waveform[:silence].astype(int)).max() > 300:
            found.append("sound before its start")
        wrong = 0
        for first in range(begin + edge, end - edge - block, block):
            right, heard = truth[first : first + block], clip.waveform[first : first + block].astype(np.float64)
            wrong += int(((heard - right) ** 2).sum() > (right**2).sum() / 10 ** (SOUND_DB / 10))
        return [*found, f"{wrong} blocks of sound wrong"] if wrong else found
