"""The windows of a clip, one after the other: a few seconds of it in memory, however long it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hicmae.backbone import MODALITIES, Modality
from hicmae.config import InputSpec
from hicmae.inference.items import Media, MediaItem
from hicmae.media.clip import DecodedClip
from hicmae.media.decode import OpenClip, Picture, load_media, open_clip
from hicmae.media.large_file import MediaData
from hicmae.media.window import TOLERANCE_S

_TOGETHER = 8
"""Most windows that are decoded together; a frame that several of them show is decoded once."""
_SPAN_S = 30.0
"""Longest stretch that is decoded together: sound is decoded without gaps."""
_LEAST_HOP_S = 1e-3
_SAME_S = 1e-3
"""A last window that would start so little after the one before is the same."""


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """Which windows of a clip: side by side from its begin, the last one ending with the clip."""

    hop_s: float | None = None
    """Seconds from one window to the next; None: the length of a window, so that they lie side by side."""
    middle: bool = False
    """Only the window in the middle of the clip."""
    count: int | None = None
    """So many windows, spread evenly from the clip's begin to its end, as evaluation takes its segments; one is the
    middle. They may overlap."""

    def __post_init__(self) -> None:
        if self.count is not None and (self.count < 1 or self.hop_s is not None or self.middle):
            raise ValueError(
                f"count={self.count} must be at least 1 window, and goes neither with hop_s nor with middle"
            )
        if self.hop_s is not None and not _LEAST_HOP_S <= self.hop_s < float("inf"):
            raise ValueError(f"hop_s={self.hop_s} must be a positive number of seconds, at least {_LEAST_HOP_S}")
        if self.hop_s is not None and self.middle:
            raise ValueError(f"hop_s={self.hop_s} does not go with the middle window alone; leave one of them out")


@dataclass(frozen=True, kw_only=True)
class ClipWindow:
    """One window: what ``ClipTransform`` would have decoded at that place."""

    start_s: float
    """Instant of the first frame and of the first sample, on the file's clock."""
    end_s: float
    """``spec.window_seconds`` later, or where the clip ends."""
    padded: bool
    """Whether the clip is shorter than a window: its last frame repeats, its sound is followed by silence."""
    frames: NDArray[np.uint8] | None
    """uint8 RGB (T, S, S, 3); None where there is no picture, or it is not wanted."""
    waveform: NDArray[np.int16] | None
    """int16 (samples,); None where no sound lies within the window, or it is not wanted."""
    sound_samples: int
    """Samples before the end of the sound; what follows is padding."""

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What there is of picture and sound."""
        given = {"video": self.frames, "audio": self.waveform}
        return tuple(m for m in MODALITIES if given[m] is not None)


class FileWindows:
    """The windows of an open clip; iterate over it, as often as you like.

    ``total`` is the number of windows. Windows come in the order of time and their arrays are theirs to keep.
    """

    def __init__(self, clip: OpenClip, settings: WindowSettings, modalities: Collection[Modality] = MODALITIES) -> None:
        self._clip = clip
        self._wanted = modalities
        self.begin_s, self.end_s = clip.limits_s
        there = {"video": clip.picture, "audio": clip.sound}
        self.modalities: tuple[Modality, ...] = tuple(m for m in MODALITIES if there[m] is not None)
        """What the clip has, wanted or not."""
        window_s = clip.spec.window_seconds
        self.padded = self.duration_s < window_s - TOLERANCE_S
        self.positions = _positions(self.duration_s - window_s, settings, window_s)
        """Where the windows lie, from 0 (earliest) to 1 (latest): float64 (total,)."""

    @property
    def picture(self) -> Picture | None:
        """The clip's picture, for those who want a look at some of its frames; None where it has none."""
        return self._clip.picture

    @property
    def duration_s(self) -> float:
        """Length of the clip: of its picture, or of its sound where there is no picture."""
        return self.end_s - self.begin_s

    @property
    def unseen_sound_s(self) -> float:
        """Seconds of sound before and after the picture, where no window lies; 0 where one of them is missing."""
        sound, span = self._clip.sound, self._clip.span_s
        if self._clip.picture is None or sound is None:
            return 0.0
        begin_s, end_s = max(0.0, sound.begin_s), sound.end_s
        if span is not None:
            begin_s, end_s = max(begin_s, span[0]), min(end_s, span[1])
        return max(0.0, self.begin_s - begin_s) + max(0.0, end_s - self.end_s)

    @property
    def total(self) -> int:
        """Number of windows, at least one."""
        return len(self.positions)

    def __iter__(self) -> Iterator[ClipWindow]:
        """The windows in order. ``DecodeError`` for damaged picture or sound."""
        return self.starting(0)

    def starting(self, first: int) -> Iterator[ClipWindow]:
        """The windows from number ``first`` on."""
        clip = self._clip
        positions = self.positions[first:]
        for part in _parts(positions * max(0.0, self.duration_s - clip.spec.window_seconds)):
            decoded = clip.decode(
                positions[part].tolist(), picture="video" in self._wanted, sound="audio" in self._wanted
            )  # fmt: skip
            for window in decoded:
                yield self._window(window)

    def _window(self, decoded: DecodedClip) -> ClipWindow:
        return ClipWindow(
            start_s=decoded.start_s,
            end_s=min(decoded.start_s + self._clip.spec.window_seconds, self.end_s),
            padded=self.padded,
            frames=decoded.video if decoded.has_video else None,
            waveform=decoded.waveform if decoded.has_audio else None,
            sound_samples=decoded.sound_samples,
        )


@contextmanager
def read_windows(
    item: MediaItem,
    spec: InputSpec,
    settings: WindowSettings | None = None,
    *,
    modalities: Collection[Modality] = MODALITIES,
) -> Iterator[FileWindows]:
    """Open a clip to go through its windows.

    Args:
        item: the clip.
        spec: what the model takes.
        settings: which windows.
        modalities: what is to be decoded. Windows lie where they lie with both: by the picture where there is one.

    Raises:
        DecodeError: the file is missing, or cannot be read (``reason`` says why, in a word).
        ClipUnreadableError: a shard cannot be read.
    """
    with open_clip(
        _load(item.video, item.name),
        _load(item.audio, item.name),
        spec=spec,
        span_s=item.span_s,
        square=item.square,
        name=item.name,
    ) as clip:
        yield FileWindows(clip, settings or WindowSettings(), modalities)


def _load(media: Media | None, name: str) -> MediaData | None:
    if isinstance(media, Path):
        return load_media(media, name=name)
    return media() if callable(media) else media


def _positions(room_s: float, settings: WindowSettings, window_s: float) -> NDArray[np.float64]:
    if settings.count is not None and settings.count > 1:
        return np.linspace(0, 1, settings.count)
    if settings.middle or settings.count == 1 or room_s <= 0:
        return np.array([0.5])
    starts = np.arange(0, room_s, settings.hop_s or window_s)
    if room_s - starts[-1] > _SAME_S:
        starts = np.append(starts, room_s)
    positions: NDArray[np.float64] = starts / room_s
    return positions


def _parts(starts: NDArray[np.float64]) -> Iterator[slice]:
    """Consecutive windows that are decoded together, at least one."""
    if not len(starts):
        return
    first = 0
    for number in range(1, len(starts)):
        if number - first == _TOGETHER or starts[number] - starts[first] > _SPAN_S:
            yield slice(first, number)
            first = number
    yield slice(first, len(starts))
