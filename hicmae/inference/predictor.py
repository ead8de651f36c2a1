"""Emotions along a file: its windows, what a recogniser says of each, and all of them together."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hicmae.backbone import Modality
from hicmae.checkpoint import load_recognizer
from hicmae.config import InputSpec
from hicmae.heads import Targets
from hicmae.inference.results import FilePrediction, LeftOut, WindowPrediction
from hicmae.media.batch_transform import BatchTransform
from hicmae.media.clip import DecodeError
from hicmae.media.decode import decode_windows, probe, read_media_file
from hicmae.recognition import EmotionRecognizer

logger = logging.getLogger(__name__)

Missing = Literal["fail", "blank"]
OnWindow = Callable[[WindowPrediction, int, int], None]
"""Takes a window as soon as it is known, how many of the file are done, and how many there are."""


@dataclass(frozen=True, kw_only=True)
class _Window:
    start_s: float
    end_s: float
    frames: NDArray[np.uint8] | None
    waveform: NDArray[np.int16] | None
    sound_samples: int


@dataclass(kw_only=True)
class _Run:
    """One pass over a file."""

    name: str
    duration_s: float
    total: int
    windows: Iterator[_Window]
    warnings: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    done: int = 0


class Predictor:
    """A recogniser on anyone's files.

    >>> predictor = Predictor.load("exported")  # doctest: +SKIP
    >>> predictor.predict("talk.mp4").label  # doctest: +SKIP
    'happy'
    """

    def __init__(
        self,
        model: EmotionRecognizer,
        spec: InputSpec,
        *,
        name: str,
        device: str = "auto",
        hop_s: float | None = None,
        missing: Missing = "fail",
        batch_size: int = 8,
    ) -> None:
        if hop_s is not None and not hop_s > 0:
            raise ValueError(f"hop_s={hop_s} must be positive: the seconds from one window to the next")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.spec = spec
        self.name = name
        self.hop_s = hop_s
        self.missing: Missing = missing
        self.batch_size = batch_size
        self._transform = BatchTransform(spec).to(self.device)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        device: str = "auto",
        hop_s: float | None = None,
        missing: Missing = "fail",
        batch_size: int = 8,
    ) -> Self:
        """The recogniser of an exported folder."""
        model, transform = load_recognizer(directory)
        return cls(
            model, transform.spec, name=Path(directory).resolve().name, device=device, hop_s=hop_s, missing=missing,
            batch_size=batch_size,
        )  # fmt: skip

    @property
    def targets(self) -> Targets:
        """What is predicted."""
        return self.model.targets

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the recogniser looks at and listens to."""
        return self.model.modalities

    def windows(self, source: str | Path) -> Iterator[WindowPrediction]:
        """What is said of each window of a file, as it comes."""
        with self._open(source) as run:
            yield from self._windows(run)

    def predict(self, source: str | Path, on_window: OnWindow | None = None) -> FilePrediction:
        """What is said of a whole file."""
        with self._open(source) as run:
            windows = []
            for window in self._windows(run):
                windows.append(window)
                if on_window is not None:
                    on_window(window, run.done, run.total)
            return FilePrediction(
                name=run.name,
                duration_s=run.duration_s,
                targets=self.targets,
                windows=tuple(windows),
                warnings=tuple(run.warnings),
                left_out=tuple(run.left_out),
                model=self.name,
            )

    @contextmanager
    def _open(self, source: str | Path) -> Iterator[_Run]:
        path = Path(source)
        data = read_media_file(path)
        info = probe(data, name=str(source))
        length, room = self.spec.window_seconds, max(0.0, info.duration_s - self.spec.window_seconds)
        hop = self.hop_s or length
        starts = np.arange(0, room, hop).tolist() if room else [0.0]
        if room - starts[-1] > 1e-3:
            starts.append(room)

        def decoded() -> Iterator[_Window]:
            for start in starts:
                clip = decode_windows(
                    data, spec=self.spec, positions=[start / room if room else 0.0], name=str(source)
                )[0]  # fmt: skip
                yield _Window(
                    start_s=clip.start_s,
                    end_s=clip.start_s + min(length, info.duration_s),
                    frames=clip.video if clip.has_video else None,
                    waveform=clip.waveform if clip.has_audio else None,
                    sound_samples=clip.sound_samples,
                )

        run = _Run(name=str(source), duration_s=info.duration_s, total=len(starts), windows=decoded())
        there = {"video": info.has_video, "audio": info.has_audio}
        for modality in self.modalities:
            if not there[modality]:
                if self.missing == "fail":
                    raise _lacks(run.name, modality, self.modalities)
                given = {"video": "black", "audio": "silence"}[modality]
                run.warnings.append(f"it has no {_WORDS[modality]}; the recogniser was given {given} instead")
        if info.duration_s < length - 1e-3:
            run.warnings.append(f"it lasts {info.duration_s:.2f} s, less than a window of {length:.2f} s")
        yield run

    def _windows(self, run: _Run) -> Iterator[WindowPrediction]:
        while batch := list(itertools.islice(run.windows, self.batch_size)):
            ready = [window for window in batch if not self._leave_out(window, run)]
            run.done += len(batch) - len(ready)
            for window in self._recognise(ready) if ready else ():
                run.done += 1
                yield window

    def _leave_out(self, window: _Window, run: _Run) -> bool:
        lacking = self._lacking(window)
        if not lacking or self.missing == "blank":
            return False
        run.left_out.append(LeftOut(start_s=window.start_s, end_s=window.end_s, reason=f"no_{lacking[0]}"))
        return True

    def _lacking(self, window: _Window) -> tuple[Modality, ...]:
        parts = {"video": window.frames, "audio": window.waveform}
        return tuple(modality for modality in self.modalities if parts[modality] is None)

    @torch.inference_mode()
    def _recognise(self, windows: list[_Window]) -> list[WindowPrediction]:
        spec = self.spec
        video: Tensor | None = None
        log_mel: Tensor | None = None
        if "video" in self.modalities:
            black = np.zeros((spec.num_frames, spec.image_size, spec.image_size, 3), dtype=np.uint8)
            frames = np.stack([black if window.frames is None else window.frames for window in windows])
            video = self._transform.frames(torch.from_numpy(frames).to(self.device))
        if "audio" in self.modalities:
            silence = np.zeros(spec.audio_samples, dtype=np.int16)
            sound = np.stack([silence if window.waveform is None else window.waveform for window in windows])
            samples = torch.tensor([window.sound_samples for window in windows], device=self.device)
            log_mel = self._transform.sound(torch.from_numpy(sound).to(self.device), sound_samples=samples)
        output = self.model(video, log_mel)
        probabilities = None if output.logits is None else output.logits.float().softmax(dim=1).cpu().numpy()
        values = None if output.values is None else output.values.float().cpu().numpy()
        return [
            WindowPrediction(
                start_s=window.start_s,
                end_s=window.end_s,
                modalities=tuple(m for m in self.modalities if m not in self._lacking(window)),
                probabilities=None if probabilities is None else probabilities[row],
                values=None if values is None else values[row],
                blanked=self._lacking(window),
            )
            for row, window in enumerate(windows)
        ]


_WORDS: dict[Modality, str] = {"video": "picture", "audio": "sound"}


def _lacks(name: str, modality: Modality, modalities: tuple[Modality, ...]) -> DecodeError:
    built = " and ".join(_WORDS[m] for m in modalities)
    return DecodeError(
        name,
        f"no_{modality}_stream",
        f"it has no {_WORDS[modality]}, and the recogniser was built for {built}",
        "take a recogniser built for what the file has, or ask for missing='blank', which gives black or silence",
    )
