"""A student's lesson: its teacher, clips that both can see, and what the difference between their answers costs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hicmae.backbone import Modality
from hicmae.config import InputSpec
from hicmae.distillation import Answer, DistillationConfig, Teacher, both_see
from hicmae.heads import Targets
from hicmae.losses import distillation_divergence
from hicmae.media.batch_transform import BatchTransform
from hicmae.recognition import Recognition

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A teacher, and the input from which both it and the student are fed: one clip, augmented and mixed once."""

    teacher: Teacher
    config: DistillationConfig
    transform: BatchTransform
    """Prepares frames at the larger of both sizes; either model gets them reduced to its own."""
    modalities: tuple[Modality, ...]
    """What at least one of the two takes."""
    targets: Targets
    """What the student learns."""

    @classmethod
    def of(
        cls,
        path: Path,
        config: DistillationConfig,
        spec: InputSpec,
        targets: Targets,
        modalities: tuple[Modality, ...],
    ) -> Lesson:
        """Read the teacher, hold it against its student, and log who teaches what.

        Args:
            path: of the teacher.
            config: how much it counts.
            spec, targets, modalities: the student's.

        Raises:
            FileNotFoundError, ValueError: no teacher for this student; says why.
        """
        teacher = Teacher.read(path, targets=targets, student_spec=spec)
        size = max(spec.image_size, teacher.spec.image_size if "video" in teacher.modalities else 0)
        lesson = cls(
            teacher=teacher,
            config=config,
            transform=BatchTransform(spec.with_(image_size=size)),
            modalities=both_see(modalities, teacher.modalities),
            targets=targets,
        )
        if config.weight == 1 and (untaught := lesson.untaught):
            raise ValueError(
                f"distillation.weight=1 gives labels no weight, and the teacher {path} does not know "
                f"{' and '.join(untaught)}, which nothing would teach then: give a weight below 1, or leave "
                f"{'it' if len(untaught) == 1 else 'them'} out of model.labels"
            )
        logger.info("%s", lesson.describe(spec.image_size))
        return lesson

    @property
    def image_size(self) -> int:
        """Side of the frames as they are decoded, in pixels."""
        return self.transform.spec.image_size

    @property
    def untaught(self) -> list[str]:
        """What the student learns from labels alone: ``classes``, and dimensions by name."""
        classes = ["classes"] if self.targets.classes and not self.teacher.knows_classes else []
        return classes + [name for name in self.targets.dimensions if name not in self.teacher.dimensions]

    def describe(self, shown: int) -> str:
        """A sentence on who teaches what, to a student with frames of ``shown`` pixels."""
        teacher = self.teacher
        kinds = [*(["class probabilities"] if teacher.knows_classes else []), *teacher.dimensions]
        text = f"the teacher {teacher.name} ({' and '.join(teacher.modalities)}) gives {', '.join(kinds)}"
        if self.untaught:
            text += f"; learnt from labels alone: {', '.join(self.untaught)}"
        if self.image_size != shown:
            text += f"; training frames are decoded at {self.image_size} pixels, the student sees {shown}"
        return text

    def losses(
        self, output: Recognition, answer: Answer, dimensional_loss: Callable[[Tensor, Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Distance of the student from its teacher, for each kind of target that both have.

        Args:
            output: of the student.
            answer: of the teacher, to the same clips.
            dimensional_loss: by which values are compared.
        """
        parts: dict[str, Tensor] = {}
        if answer.logits is not None:
            assert output.logits is not None
            parts["class_loss"] = distillation_divergence(
                output.logits, answer.logits, temperature=self.config.temperature
            )
        if answer.values is not None:
            assert output.values is not None
            columns = [self.targets.dimensions.index(name) for name in self.teacher.dimensions]
            parts["dimensional_loss"] = dimensional_loss(output.values[:, columns], answer.values)
        return parts

    def join(self, task: dict[str, Tensor], taught: dict[str, Tensor]) -> dict[str, Tensor]:
        """The step's losses from those of the labels and of the teacher: their weighted mean as ``loss``, and all parts
        by name."""
        loss = torch.lerp(task["loss"], taught["loss"], self.config.weight)
        parts = {name: value for name, value in task.items() if name != "loss"}
        return {"loss": loss, "task_loss": task["loss"]} | parts | {f"teacher_{k}": v for k, v in taught.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for checkpoints and exports."""
        return {"teacher": self.teacher.to_dict()} | asdict(self.config)


def settings_of(distilled: dict[str, Any] | None) -> dict[str, Any]:
    """What must not change in a training, by option: from ``Lesson.to_dict``, or from ``None`` without a teacher."""
    if distilled is None:
        return dict.fromkeys(("teacher", "distillation.weight", "distillation.temperature"))
    return {
        "teacher": f"of sha256 {distilled['teacher']['sha256']}",
        "distillation.weight": distilled["weight"],
        "distillation.temperature": distilled["temperature"],
    }
