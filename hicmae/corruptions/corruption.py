"""What a corruption is: a name, a unit, levels, and a function of the decoded media of one window.

Shapes: T frames, S pixels of a frame's side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Modality = Literal["video", "audio"]


@dataclass(frozen=True, kw_only=True)
class Media:
    """Decoded picture and sound of a window, as they are before normalisation, and what corruptions may need of its
    surroundings."""

    video: NDArray[np.uint8]
    """RGB uint8 (T, S, S, 3)."""
    waveform: NDArray[np.int16]
    """int16 (samples,), mono."""
    sound_samples: int
    """Samples of ``waveform`` that are sound; what follows is padding, which no corruption touches."""
    rate_hz: int = 16_000
    """Sample rate of ``waveform`` and of ``voices``."""
    voices: Sequence[NDArray[np.int16]] = ()
    """Sound of other clips, int16 (any number of samples) each."""
    sound_at: Callable[[float], tuple[NDArray[np.int16], int]] | None = None
    """The sound that the window has when all sound comes so many seconds later than it was recorded, as ``waveform``
    and ``sound_samples``; decoded from the clip anew."""


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """A kind of damage, at any of its levels."""

    name: str
    title: str
    """What a figure calls it."""
    unit: str
    """Of the level; empty for a plain number."""
    modalities: tuple[Modality, ...]
    """What it needs: a model that takes them, and a clip that has them."""
    clean: float
    """The level at which nothing is done."""
    low: float
    high: float
    """Lowest and highest level that is meant, both included."""
    levels: tuple[float, ...]
    """Those that are taken by default, from mild to severe."""
    change: Callable[[Media, float, np.random.Generator], Media]
    """What is done at a level other than ``clean``. The draws do not depend on the level, so that a clip gets the same
    noise, only louder, from one level to the next."""
    whole: bool = False
    """Levels are whole numbers."""

    def __call__(self, media: Media, level: float, rng: np.random.Generator) -> Media:
        """The media at a level; the very same object at the clean one.

        Args:
            media: is not changed.
            level: in ``unit``.
            rng: decides what is random; give the same state at all levels of a clip.

        Raises:
            ValueError: a level out of range.
        """
        self.check(level)
        return media if level == self.clean else self.change(media, level, rng)

    def check(self, level: float) -> None:
        """Raise ``ValueError`` for a level that this corruption cannot have."""
        if level == self.clean:
            return
        if not self.low <= level <= self.high:
            raise ValueError(
                f"{self.name} has levels from {self.low:g} to {self.high:g}{self._unit} (clean: {self.clean:g}), not "
                f"{level:g}; the usual ones are {', '.join(f'{one:g}' for one in self.levels)}"
            )
        if self.whole and level != round(level):
            raise ValueError(f"{self.name} has whole levels ({self.unit}), not {level:g}; take {round(level)}")

    def ordered(self, levels: Iterable[float]) -> list[float]:
        """Levels and the clean one, each once, as an axis shows them: clean first and the most severe last, or
        ascending where levels lie on both sides of clean."""
        return sorted({*levels, self.clean}, reverse=self.clean >= self.high)

    def shown(self, level: float) -> str:
        """A level with its unit, as tables show it."""
        return "clean" if level == self.clean else f"{level:g}{self._unit}"

    @property
    def _unit(self) -> str:
        return f" {self.unit}" if self.unit else ""
