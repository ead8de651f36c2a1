"""What training clips look like where a teacher looks on: large enough for both, with picture and sound for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from hicmae.backbone import Modality
from hicmae.config import InputSpec
from hicmae.distillation import Answer, Teacher, both_see
from hicmae.heads import Targets
from hicmae.losses import distillation_divergence
from hicmae.media.batch_transform import BatchTransform


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A teacher, and the input from which both it and the student are fed: one clip, augmented and mixed once."""

    teacher: Teacher
    transform: BatchTransform
    """Prepares frames at the larger of both sizes; either model gets them reduced to its own."""
    modalities: tuple[Modality, ...]
    """What at least one of the two takes."""

    @classmethod
    def of(cls, path: Path, spec: InputSpec, targets: Targets, modalities: tuple[Modality, ...]) -> Lesson:
        """Read the teacher and hold it against its student.

        Args:
            path: of the teacher.
            spec, targets, modalities: the student's.

        Raises:
            FileNotFoundError, ValueError: no teacher for this student; says why.
        """
        teacher = Teacher.read(path, targets=targets, student_spec=spec)
        size = max(spec.image_size, teacher.spec.image_size if "video" in teacher.modalities else 0)
        return cls(
            teacher=teacher,
            transform=BatchTransform(spec.with_(image_size=size)),
            modalities=both_see(modalities, teacher.modalities),
        )

    @property
    def image_size(self) -> int:
        """Side of the frames as they are decoded, in pixels."""
        return self.transform.spec.image_size

    def describe(self, targets: Targets, spec: InputSpec) -> str:
        """A sentence on who teaches what, for the log."""
        teacher, kinds = self.teacher, []
        if teacher.knows_classes:
            kinds.append("class probabilities")
        kinds += list(teacher.dimensions)
        alone = [d for d in targets.dimensions if d not in teacher.dimensions]
        if targets.classes and not teacher.knows_classes:
            alone.insert(0, "classes")
        text = f"the teacher {teacher.name} ({' and '.join(teacher.modalities)}) gives {', '.join(kinds)}"
        if alone:
            text += f"; {', '.join(alone)} are learnt from labels alone"
        if self.image_size != spec.image_size:
            text += f"; training frames are decoded at {self.image_size} pixels and shown at {spec.image_size}"
        return text

    def losses(
        self,
        logits: Tensor | None,
        values: Tensor | None,
        answer: Answer,
        *,
        temperature: float,
        dimensions: tuple[str, ...],
        dimensional_loss: Callable[[Tensor, Tensor], Tensor],
    ) -> dict[str, Tensor]:
        """Distance of the student from its teacher, for each kind of target that both have.

        Args:
            logits: (B, C) of the student; ``None`` without classes.
            values: (B, K) of the student; ``None`` without dimensions.
            answer: the teacher's.
            temperature: of the class probabilities.
            dimensions: the student's K, by name.
            dimensional_loss: by which values are compared.
        """
        parts: dict[str, Tensor] = {}
        if logits is not None and answer.logits is not None:
            parts["class_loss"] = distillation_divergence(logits, answer.logits, temperature=temperature)
        if values is not None and answer.values is not None:
            columns = [dimensions.index(name) for name in self.teacher.dimensions]
            parts["dimensional_loss"] = dimensional_loss(values[:, columns], answer.values)
        return parts
