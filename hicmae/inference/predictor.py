"""Emotions along a file: its windows, what a recogniser says of each, and all of them together."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
import torch

from hicmae.backbone import Modality
from hicmae.checkpoint import load_recognizer
from hicmae.config import InputSpec
from hicmae.heads import Targets
from hicmae.inference.batches import model_inputs
from hicmae.inference.face_windows import check_faces, face_doubts, face_windows, scene_warning
from hicmae.inference.items import MediaItem, media_item
from hicmae.inference.results import FilePrediction, LeftOut, WindowPrediction
from hicmae.inference.windows import ClipWindow, FileWindows, WindowSettings, read_windows
from hicmae.media.batch_transform import BatchTransform
from hicmae.media.clip import DecodeError
from hicmae.recognition import EmotionRecognizer

Missing = Literal["fail", "blank"]
"""What happens where a file lacks what the recogniser was built for: it fails, or black and silence stand for it."""
OnWindow = Callable[[WindowPrediction, int, int], None]
"""Takes a window as soon as it is known, how many of the file are done, and how many there are."""
WORDS: dict[Modality, str] = {"video": "picture", "audio": "sound"}
_LONG_SOUND_S = 1.0  # encoders pad sound by less
_BLANKS: dict[Modality, str] = {"video": "black", "audio": "silence"}


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A window of a file, and why it is left out, if it is."""

    window: ClipWindow
    reason: str | None


@dataclass(kw_only=True)
class _Run:
    """One pass over a file."""

    name: str
    duration_s: float
    total: int
    candidates: Iterator[_Candidate]
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
        segments: int | None = None,
        faces: bool = False,
        missing: Missing = "fail",
        batch_size: int = 8,
        bf16: bool = False,
    ) -> None:
        """Args:
        model: the recogniser; it is moved to ``device``.
        spec: the input it was trained on.
        name: what results call it.
        device: ``auto`` (CUDA where there is some), or a device of PyTorch.
        hop_s: seconds from one window to the next; None: side by side. The last one ends with the file.
        segments: instead, so many windows spread evenly over each file, as ``python -m finetune test`` takes 2.
        faces: follow the face through each file, as ``hicmae faces`` does, instead of taking the whole picture.
        missing: what to do where picture or sound is missing.
        batch_size: windows of a file that go through the model together; the last digits depend on it.
        bf16: compute in bfloat16 where PyTorch's autocast does; what comes is float32 all the same.

        Raises:
            ValueError: an option that is out of range, or ``faces`` for a recogniser that does not look, or without
                the extra ``faces``.
        """
        if missing not in get_args(Missing):
            raise ValueError(f"missing={missing!r}: choose one of {', '.join(get_args(Missing))}")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1 window")
        if segments is not None and segments < 1:
            raise ValueError(f"segments={segments} must be at least 1 window")
        self._settings = WindowSettings(hop_s=hop_s, count=segments)
        if faces:
            check_faces(model.modalities)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.spec = spec
        self.name = name
        self.faces = faces
        self.missing: Missing = missing
        self.batch_size = batch_size
        self.bf16 = bf16
        self._transform = BatchTransform(spec).to(self.device)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        device: str = "auto",
        hop_s: float | None = None,
        segments: int | None = None,
        faces: bool = False,
        missing: Missing = "fail",
        batch_size: int = 8,
        bf16: bool = False,
    ) -> Self:
        """The recogniser of an exported folder; arguments as for the class.

        Raises:
            FileNotFoundError, ValueError: as ``load_recognizer``, and as the class.
        """
        model, transform = load_recognizer(directory)
        return cls(
            model, transform.spec, name=model_name(directory), device=device, hop_s=hop_s,
            segments=segments, faces=faces, missing=missing, batch_size=batch_size, bf16=bf16,
        )  # fmt: skip

    @property
    def targets(self) -> Targets:
        """What is predicted."""
        return self.model.targets

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the recogniser was built for: picture, sound, or both."""
        return self.model.modalities

    def windows(self, source: str | Path | MediaItem) -> Iterator[WindowPrediction]:
        """What is said of each window of a file, in order of time, as it comes.

        Raises:
            DecodeError: as ``predict``.
        """
        with self._open(media_item(source)) as run:
            yield from self._windows(run)

    def predict(self, source: str | Path | MediaItem, on_window: OnWindow | None = None) -> FilePrediction:
        """What is said of a file.

        Args:
            source: a media file, or a clip.
            on_window: called with each window as it comes, how many are done (left out ones too), and how many there
                are.

        Raises:
            DecodeError: the file cannot be read or decoded, shows no face (``no_face``), or lacks what the recogniser
                was built for (``no_video_stream``, ``no_audio_stream``); ``reason`` says why, in a word.
            ClipUnreadableError: a shard cannot be read.
        """
        with self._open(media_item(source)) as run:
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
    def _open(self, item: MediaItem) -> Iterator[_Run]:
        with read_windows(item, self.spec, self._settings, modalities=self.modalities) as windows:
            warnings = self._check(item, windows)
            run = _Run(
                name=item.name,
                duration_s=windows.duration_s,
                total=windows.total,
                candidates=(_Candidate(window=window, reason=self._lack_of(window)) for window in windows),
                warnings=warnings,
            )
            if not self.faces or "video" not in windows.modalities:
                if "video" in self.modalities and (doubt := scene_warning(item, windows)):
                    warnings.append(doubt)
                yield run
                return
        # The whole picture is closed before its face is followed: one file at a time is in memory.
        with face_windows(item, self.spec, self._settings, self.modalities) as found:
            run.candidates = (
                _Candidate(window=window, reason=self._lack_of(window) if shown else "no_face")
                for window, shown in found
            )
            warnings += face_doubts(found.track)
            run.total = found.total
            yield run

    def _check(self, item: MediaItem, windows: FileWindows) -> list[str]:
        """Warnings about a file that has just been opened, or an error."""
        warnings = []
        for modality in self.modalities:
            if modality not in windows.modalities:
                if self.missing == "fail":
                    raise self._lacks(item.name, modality)
                warnings.append(
                    f"blanked: it has no {WORDS[modality]}, and the recogniser was given {_BLANKS[modality]} instead"
                )
        if windows.padded:
            warnings.append(
                f"padded: it lasts {windows.duration_s:.2f} s, less than a window of {self.spec.window_seconds:.2f} s, "
                "so that its last picture stands still, and its sound is followed by silence"
            )
        if "audio" in self.modalities and windows.unseen_sound_s > _LONG_SOUND_S:
            warnings.append(
                f"sound_left_out: {windows.unseen_sound_s:.2f} s of its sound lie before or after its picture, and "
                "windows lie where there is a picture"
            )
        return warnings

    def _lack_of(self, window: ClipWindow) -> str | None:
        """Why nothing can be said of a window; None where it has all that is needed."""
        lacking = self._lacking(window)
        return f"no_{lacking[0]}" if lacking and self.missing == "fail" else None

    def _lacking(self, window: ClipWindow) -> tuple[Modality, ...]:
        return tuple(modality for modality in self.modalities if modality not in window.modalities)

    def _lacks(self, name: str, modality: Modality) -> DecodeError:
        built = " and ".join(WORDS[m] for m in self.modalities)
        return DecodeError(
            name,
            f"no_{modality}_stream",
            f"it has no {WORDS[modality]}, and {self.name} was built for {built}",
            f"take a recogniser built for what it has, or let {_BLANKS[modality]} stand for what is missing "
            "(--missing blank)",
        )

    def _windows(self, run: _Run) -> Iterator[WindowPrediction]:
        given = 0
        while chunk := list(itertools.islice(run.candidates, self.batch_size)):
            run.left_out += [
                LeftOut(start_s=c.window.start_s, end_s=c.window.end_s, reason=c.reason) for c in chunk if c.reason
            ]
            ready = [candidate.window for candidate in chunk if candidate.reason is None]
            run.done += len(chunk) - len(ready)
            for window in self._recognise(ready) if ready else ():
                run.done += 1
                given += 1
                yield window
        if run.left_out:
            reasons = Counter(out.reason for out in run.left_out)
            listed = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
            if not given:
                raise self._nothing_left(run, listed)
            run.warnings.append(f"left_out: {len(run.left_out)} of {run.total} windows were left out ({listed})")

    def _nothing_left(self, run: _Run, listed: str) -> DecodeError:
        reason = run.left_out[0].reason
        remedy = (
            "drop the file, or leave the tracking of faces out" if reason == "no_face" else "let --missing blank "
            "stand for what is missing, or drop the file"
        )  # fmt: skip
        return DecodeError(run.name, reason, f"all {run.total} windows would have to be left out ({listed})", remedy)

    @torch.inference_mode()
    def _recognise(self, windows: list[ClipWindow]) -> list[WindowPrediction]:
        inputs = model_inputs([self._filled(window) for window in windows], self._transform)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            output = self.model(**inputs)
        probabilities = None if output.logits is None else output.logits.float().softmax(dim=1).cpu().numpy()
        values = None if output.values is None else output.values.float().cpu().numpy()
        if not all(np.isfinite(numbers).all() for numbers in (probabilities, values) if numbers is not None):
            raise ValueError(f"{self.name} gives numbers that are not finite; check its weights")
        return [
            WindowPrediction(
                start_s=window.start_s,
                end_s=window.end_s,
                modalities=tuple(m for m in self.modalities if m in window.modalities),
                probabilities=None if probabilities is None else probabilities[row],
                values=None if values is None else values[row],
                blanked=self._lacking(window),
            )
            for row, window in enumerate(windows)
        ]

    def _filled(self, window: ClipWindow) -> ClipWindow:
        """Black and silence for what is missing, as in training and evaluation."""
        spec, lacking = self.spec, self._lacking(window)
        if "video" in lacking:
            black = np.zeros((spec.num_frames, spec.image_size, spec.image_size, 3), dtype=np.uint8)
            window = replace(window, frames=black)
        if "audio" in lacking:
            window = replace(window, waveform=np.zeros(spec.audio_samples, dtype=np.int16), sound_samples=0)
        return window


def model_name(directory: str | Path) -> str:
    """What results call the model in a folder: the folder's name, with its parent's where it says nothing."""
    folder = Path(directory).resolve()
    return f"{folder.parent.name}/{folder.name}" if folder.name in ("export", "exported", "model") else folder.name
