"""A trained recogniser as a teacher: a smaller one learns its probabilities and values beside the labels.

Hinton et al., 2015 (probabilities at a temperature); Beyer et al., 2022 (teacher and student see the same augmented,
mixed clip: the teacher's answer is to what the student saw).

Shapes: B clips, T frames, S side of the frames, C classes, K dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from hicmae.backbone import MODALITIES, Modality
from hicmae.checkpoint import read_backbone, read_recognizer
from hicmae.config import InputSpec
from hicmae.file_digest import sha256_of
from hicmae.heads import Targets
from hicmae.recognition import EmotionRecognizer


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """How much a student listens to its teacher."""

    weight: float = 0.5
    """Share of the loss that is the teacher's, above 0 to 1; the labels have the rest. 1: the teacher alone."""
    temperature: float = 2.0
    """Of the class probabilities that are compared, teacher's and student's: above 1, unlikely classes count more."""

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise ValueError(f"distillation.weight={self.weight} must be above 0 and at most 1")
        if self.temperature <= 0:
            raise ValueError(f"distillation.temperature={self.temperature} must be above 0; 1 changes nothing")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a teacher says of a batch, in the student's order."""

    logits: Tensor | None
    """(B, C) in the order of the student's classes; ``None`` where one of the two has no classes."""
    values: Tensor | None
    """(B, K) of the dimensions that both have, in the student's order; ``None`` without any."""


class Teacher:
    """A frozen recogniser in evaluation mode.

    Not an ``nn.Module``, so that a student that holds it neither trains, saves nor averages its weights.

    Args:
        recognizer: the trained model.
        spec: its input.
        targets: what the student learns.
        student_spec: the student's input; only ``image_size`` may be another.
        name: what errors call it.
        sha256: of the file of its weights.

    Raises:
        ValueError: other classes, nothing in common, or an input of another kind.
    """

    def __init__(
        self,
        recognizer: EmotionRecognizer,
        spec: InputSpec,
        *,
        targets: Targets,
        student_spec: InputSpec,
        name: str | Path,
        sha256: str,
    ) -> None:
        _check_same_input(spec, student_spec, name)
        self.recognizer = recognizer.eval().requires_grad_(False)
        self.spec = spec
        self.name = str(name)
        self.sha256 = sha256
        own = recognizer.targets
        self._classes = _class_order(own, targets, name)
        self.dimensions = tuple(d for d in targets.dimensions if d in own.dimensions)
        """Dimensions that the student learns from it."""
        if self._classes is None and not self.dimensions:
            raise ValueError(
                f"the teacher {name} predicts {[*own.classes, *own.dimensions]}, and the student learns "
                f"{[*targets.classes, *targets.dimensions]}: nothing in common; give another model.teacher"
            )
        self._columns = [own.dimensions.index(d) for d in self.dimensions]

    @classmethod
    def read(cls, path: str | Path, *, targets: Targets, student_spec: InputSpec) -> Self:
        """The teacher at ``path``: an exported recogniser, a checkpoint of fine-tuning, or a reference file.

        Raises:
            FileNotFoundError, ValueError: nothing there, a backbone without a head, or no teacher for this student.
        """
        path = Path(path)
        backbone = read_backbone(path)  # says what is wrong with a path
        recognizer = read_recognizer(path, backbone.config)
        if recognizer is None:
            raise ValueError(
                f"the teacher {path} holds a backbone without a head, which says nothing about emotion; fine-tune it "
                "first, and give its export as model.teacher"
            )
        weights = path / "model.safetensors" if path.is_dir() else path
        return cls(
            recognizer, backbone.spec, targets=targets, student_spec=student_spec, name=path, sha256=sha256_of(weights)
        )  # fmt: skip

    @property
    def knows_classes(self) -> bool:
        """Whether the student's classes are learnt from it."""
        return self._classes is not None

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What it sees and hears."""
        return self.recognizer.modalities

    def to(self, device: torch.device) -> Self:
        """Move its weights, in place."""
        self.recognizer.to(device)
        return self

    @torch.no_grad()
    def __call__(self, video: Tensor | None, log_mel: Tensor | None) -> Answer:
        """Its answer to a batch.

        Args:
            video: float (B, 3, T, S, S), colour-normalised, S at least the teacher's; ``None``: not looked at.
            log_mel: float (B, 1, frames, bins), normalised; ``None``: not listened to.
        """
        output = self.recognizer(None if video is None else resize_frames(video, self.spec.image_size), log_mel)
        logits = values = None
        if self._classes is not None:
            assert output.logits is not None
            logits = output.logits[:, self._classes]
        if self._columns:
            assert output.values is not None
            values = output.values[:, self._columns]
        return Answer(logits=logits, values=values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for an export's ``config.json``."""
        targets = self.recognizer.targets
        return {
            "name": Path(self.name).name,  # its folder says nothing elsewhere, and may be no one's business
            "sha256": self.sha256,
            "classes": list(targets.classes),
            "dimensions": list(targets.dimensions),
            "modalities": list(self.modalities),
            "image_size": self.spec.image_size,
        }


def resize_frames(video: Tensor, size: int) -> Tensor:
    """Frames of another size, (B, 3, T, S, S) to (B, 3, T, size, size), by the filter with which files are decoded
    (bilinear, antialiased). Whole frames that are decoded at S and reduced here differ from frames decoded at
    ``size`` by rounding alone, at most one level of 255, where they are stored at S; by a filter, where at more.
    """
    if video.shape[-1] == size:
        return video
    planes = F.interpolate(video.flatten(1, 2), size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return planes.unflatten(1, video.shape[1:3])


def both_see(first: tuple[Modality, ...], second: tuple[Modality, ...]) -> tuple[Modality, ...]:
    """Modalities that at least one of two models takes, in their usual order."""
    return tuple(m for m in MODALITIES if m in first or m in second)


def _class_order(own: Targets, wanted: Targets, name: str | Path) -> list[int] | None:
    if not own.classes or not wanted.classes:
        return None
    if missing := [c for c in wanted.classes if c not in own.classes]:
        raise ValueError(
            f"the teacher {name} does not know the classes {missing} that the student learns; it predicts "
            f"{list(own.classes)}. Give another model.teacher, or its classes as model.labels"
        )
    if extra := [c for c in own.classes if c not in wanted.classes]:
        raise ValueError(
            f"the teacher {name} also tells the classes {extra}, which the student does not learn (it learns "
            f"{list(wanted.classes)}). Give another model.teacher, or its classes as model.labels"
        )
    return [own.classes.index(c) for c in wanted.classes]


def _check_same_input(found: InputSpec, expected: InputSpec, name: str | Path) -> None:
    theirs, ours = found.to_dict(), expected.to_dict()
    differing = [field for field in theirs if field != "image_size" and theirs[field] != ours[field]]
    if differing:
        listed = ", ".join(f"{field} {theirs[field]}, the student's is {ours[field]}" for field in differing)
        timing = [field for field in differing if field in ("frame_interval_s", "audio_seconds")]
        remedy = ", ".join(f"{field}: {theirs[field]:g}" for field in timing)
        raise ValueError(
            f"the teacher {name} takes another input: {listed}; only image_size may differ. "
            + (f"Give the student --model.input '{{{remedy}}}'" if timing == differing else "Give the student the same")
        )
