"""Detectors of faces: what one has to do, and those that can be asked for by name."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# name -> (module, class); a class is made with ``model``, a file or None
_DETECTORS = {"yunet": ("hicmae.faces.yunet", "YuNet"), "haar": ("hicmae.faces.haar", "Haar")}

DETECTORS: tuple[str, ...] = tuple(_DETECTORS)
"""Names of the detectors, the default first."""
INSTALL = "pip install 'hicmae[faces]'"


@dataclass(frozen=True, kw_only=True)
class FaceBox:
    """Where a face is, in pixels of the picture that was looked at."""

    left: float
    top: float
    width: float
    height: float
    score: float
    """How sure the detector is, in its own measure; larger is surer."""

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y)"""
        return self.left + self.width / 2, self.top + self.height / 2

    @property
    def side(self) -> float:
        """Side of the square that just holds the box. A head that turns aside gets narrower, and no less high."""
        return max(self.width, self.height)

    @property
    def size(self) -> float:
        """Root of the area, by which faces are compared."""
        return math.sqrt(self.width * self.height)


class FaceDetector(Protocol):
    """Finds faces. One is made for each clip, and used by one thread."""

    def detect(self, frame: npt.NDArray[np.uint8]) -> list[FaceBox]:
        """All faces in a picture, RGB uint8 (H, W, 3), in any order."""


def make_detector(name: str, model: Path | None = None) -> FaceDetector:
    """The detector of this name.

    Args:
        name: one of ``DETECTORS``.
        model: file with its weights; None for those that come with its package.

    Raises:
        ValueError: an unknown name, a package that is not installed, or a model that is not one.
        FileNotFoundError: there is no such model.
    """
    if name not in _DETECTORS:
        raise ValueError(f"no face detector is called {name!r}; choose one of {', '.join(DETECTORS)}")
    if model is not None and not Path(model).is_file():
        raise FileNotFoundError(f"{model}: no such model file")
    module, kind = _DETECTORS[name]
    detector: FaceDetector = getattr(importlib.import_module(module), kind)(model)
    return detector


def use_one_thread() -> None:
    """Keep OpenCV to one thread, in a process beside others that look for faces too."""
    need("cv2").setNumThreads(1)


def need(module: str, attribute: str = "") -> Any:
    """A module of the extra ``faces``, provided that it has this attribute.

    Raises:
        ValueError: it is not installed, or another version.
    """
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"faces need {module}, which is not installed ({error}): {INSTALL}") from error
    if attribute and not hasattr(found, attribute):
        raise ValueError(f"{module} {found.__version__} has no {attribute}, which version 4 has: {INSTALL}")
    return found
