"""``hicmae predict`` without its command line: many files through a recogniser, into the journal of a job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hicmae.checkpoint import load_recognizer, read_export
from hicmae.heads import Targets
from hicmae.inference.devices import kinds_of
from hicmae.inference.face_windows import check_faces
from hicmae.inference.items import MediaItem
from hicmae.inference.job import OnWindows, Work
from hicmae.inference.journal import Journal
from hicmae.inference.prediction_dicts import prediction_from_dict, prediction_to_dict
from hicmae.inference.predictor import Missing, Predictor, model_name
from hicmae.inference.results import FilePrediction, WindowPrediction


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """How files are predicted. Pickles."""

    model: Path
    """Exported folder of a recogniser."""
    hop_s: float | None = None
    segments: int | None = None
    faces: bool = False
    missing: Missing = "fail"
    batch_size: int = 8
    bf16: bool = False
    """As for ``Predictor``."""
    threads: int | None = None
    """Of each process; None leaves PyTorch its own number."""
    figures: Mapping[str, Path] = field(default_factory=dict)
    """Where the picture of an item goes, by its name; others have none."""

    def check(self) -> Targets:
        """What is predicted.

        Raises:
            FileNotFoundError, ValueError: the folder cannot be used, or an option is out of range: said before any
                process starts.
        """
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads={self.threads} must be at least 1")
        targets = load_recognizer(self.model)[0].targets
        if self.faces:
            check_faces(read_export(self.model).modalities)
        return targets

    def settings(self, devices: Sequence[str]) -> dict[str, Any]:
        """What decides the results, to the last digit, besides the files: of the model what is in it, wherever it lies.

        Args:
            devices: of the processes.
        """
        # config.json holds the hash of the weights.
        digest = hashlib.sha256((self.model / "config.json").read_bytes()).hexdigest()
        machine = {"threads": self.threads or torch.get_num_threads(), "device": kinds_of(devices)}
        return {"job": "predict", "model_sha256": digest, **self._asked(), **machine}

    def _asked(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("hop_s", "segments", "faces", "missing", "batch_size", "bf16")}

    def about(self, targets: Targets) -> dict[str, Any]:
        """What JSON says of the model and of how it was asked."""
        export = read_export(self.model)
        model = {
            "name": model_name(self.model),
            "modalities": list(export.modalities),
            "classes": list(targets.classes),
            "dimensions": list(targets.dimensions),
            "window_s": export.spec.window_seconds,
        }
        return {"model": model, "settings": self._asked(), "calibrated": False}

    def begin(self, device: str, *, on_window: Callable[[WindowPrediction], None] | None = None) -> Work:
        """Load the model; what is then made of a file is its prediction as JSON, and its picture.

        Args:
            device: as for ``Predictor``.
            on_window: called with each window as it comes.
        """
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        predictor = Predictor.load(
            self.model, device=device, hop_s=self.hop_s, segments=self.segments, faces=self.faces,
            missing=self.missing, batch_size=self.batch_size, bf16=self.bf16,
        )  # fmt: skip

        def work(item: MediaItem, on_windows: OnWindows) -> bytes:
            def heard(window: WindowPrediction, done: int, total: int) -> None:
                on_windows(done, total)
                if on_window is not None:
                    on_window(window)

            prediction = predictor.predict(item, heard)
            self.draw(prediction)
            return json.dumps(prediction_to_dict(prediction)).encode()

        return work

    def draw(self, prediction: FilePrediction) -> None:
        """The picture of a file, if one is wanted."""
        if (path := self.figures.get(prediction.name)) is not None:
            from hicmae.figures.emotion_timeline import draw_emotion_timeline

            draw_emotion_timeline(prediction, path)

    def result(self, journal: Journal, item: MediaItem, targets: Targets) -> FilePrediction:
        """What ``begin``'s work has made of an item that did not fail."""
        return prediction_from_dict(json.loads(journal.result(item)), targets, model_name(self.model))
