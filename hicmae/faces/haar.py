"""Haar cascades (Viola and Jones, CVPR 2001), which OpenCV 4 carries: frontal, upright faces, and no weights needed.

Far behind YuNet; for machines where that one cannot be had, and as a yardstick.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hicmae.faces.detector import FaceBox, need

_STEP = 1.1
_NEIGHBOURS = 5


class Haar:
    """The detector over OpenCV's ``CascadeClassifier``."""

    def __init__(self, model: Path | None = None) -> None:
        """Args:
        model: an XML file of another cascade; None for OpenCV's own of frontal faces.

        Raises:
            ValueError: OpenCV is not installed or is version 5, which has no cascades; or the file is none.
        """
        self._cv2 = cv2 = need("cv2", "CascadeClassifier")
        file = model or Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"
        try:
            self._cascade = cv2.CascadeClassifier(str(file))
            broken = self._cascade.empty()
        except (cv2.error, SystemError):
            broken = True
        if broken:
            raise ValueError(f"{file}: OpenCV {cv2.__version__} does not read it as a cascade; give another, or none")

    def detect(self, frame: npt.NDArray[np.uint8]) -> list[FaceBox]:
        """All faces in a picture, RGB uint8 (H, W, 3); the score is the sum of the last stage, about 0 to 10."""
        grey = self._cv2.equalizeHist(self._cv2.cvtColor(frame, self._cv2.COLOR_RGB2GRAY))
        boxes, _, scores = self._cascade.detectMultiScale3(grey, _STEP, _NEIGHBOURS, outputRejectLevels=True)
        return [
            FaceBox(left=float(x), top=float(y), width=float(w), height=float(h), score=float(score))
            for (x, y, w, h), score in zip(boxes, scores, strict=True)
        ]
