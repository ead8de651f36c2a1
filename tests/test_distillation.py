"""Teachers: their loss against its formula, their answers in the student's order and size, and whom they refuse."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hicmae.backbone import Backbone, Modality
from hicmae.checkpoint import save_export
from hicmae.config import InputSpec, ModelConfig
from hicmae.distillation import DistillationConfig, Teacher, resize_frames
from hicmae.heads import Targets
from hicmae.losses import distillation_divergence
from hicmae.media.crops import crop_and_normalize
from hicmae.media.square import SquareFrames
from hicmae.recognition import EmotionRecognizer
from tests.tiny_model import TINY, clips, shake

SPEC = InputSpec.for_model(TINY)
TARGETS = Targets(classes=("angry", "happy", "neutral"), dimensions=("valence", "arousal"))


def recognizer(
    targets: Targets = TARGETS, config: ModelConfig = TINY, modalities: tuple[Modality, ...] = ("video", "audio")
) -> EmotionRecognizer:
    torch.manual_seed(3)
    model = EmotionRecognizer(Backbone(config, drop_path=0.5), targets, modalities=modalities)
    shake(model)
    return model


def teacher(model: EmotionRecognizer, spec: InputSpec = SPEC, **student: Any) -> Teacher:
    student = {"targets": TARGETS, "student_spec": SPEC} | student
    return Teacher(model, spec, **student, name="T", sha256="0")


# ---------------------------------------------------------------- the loss


def test_the_divergence_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    student, taught = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))

    def probabilities(x: np.ndarray) -> np.ndarray:
        return np.exp(x / 3.0) / np.exp(x / 3.0).sum(axis=1, keepdims=True)

    p, q = probabilities(taught), probabilities(student)
    expected = 9.0 * (p * np.log(p / q)).sum(axis=1).mean()
    found = distillation_divergence(torch.tensor(student), torch.tensor(taught), temperature=3.0)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_divergence_is_zero_for_equals_and_gives_the_teacher_no_gradient() -> None:
    logits, taught = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    assert distillation_divergence(logits, logits + 5, temperature=2.0).item() == pytest.approx(0, abs=1e-6)
    distillation_divergence(logits, taught, temperature=2.0).backward()
    assert logits.grad is not None
    assert taught.grad is None


def test_gradients_keep_their_size_at_high_temperatures() -> None:
    """The reason for the factor (Hinton et al., 2015, section 2.1): without it they fall with T squared."""
    torch.manual_seed(0)
    student, taught = torch.randn(8, 5), torch.randn(8, 5)
    sizes = []
    for temperature in (20.0, 40.0):
        leaf = student.clone().requires_grad_(True)
        distillation_divergence(leaf, taught, temperature=temperature).backward()
        assert leaf.grad is not None
        sizes.append(leaf.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_the_divergence_is_float32_under_autocast() -> None:
    logits, taught = (torch.randn(4, 6).bfloat16() for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = distillation_divergence(logits, taught, temperature=2.0)
    assert torch.equal(found, distillation_divergence(logits.float(), taught.float(), temperature=2.0))


@pytest.mark.parametrize(("field", "value"), [("weight", 0.0), ("weight", 1.2), ("temperature", 0.0)])
def test_settings_without_sense_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"distillation.{field}={value}"):
        DistillationConfig(**{field: value})


# ---------------------------------------------------------------- its answers


def test_answers_come_in_the_students_order_and_without_gradients() -> None:
    model = recognizer(Targets(classes=("neutral", "angry", "happy"), dimensions=("arousal", "power", "valence")))
    answer = teacher(model)(*clips(2))
    output = model(*clips(2))  # evaluation mode: drop path would differ
    assert answer.logits is not None
    assert answer.values is not None
    torch.testing.assert_close(answer.logits, output.logits[:, [1, 2, 0]])
    torch.testing.assert_close(answer.values, output.values[:, [2, 0]])
    assert not answer.logits.requires_grad
    assert not any(p.requires_grad for p in model.parameters())


def test_it_gives_what_both_have() -> None:
    only_classes = teacher(recognizer(Targets(classes=TARGETS.classes)))
    assert only_classes.dimensions == ()
    assert only_classes(*clips(1)).values is None
    only_values = teacher(recognizer(Targets(dimensions=("arousal",))))
    assert only_values.dimensions == ("arousal",)
    assert not only_values.knows_classes
    assert only_values(*clips(1)).logits is None


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_it_takes_the_modalities_that_it_has(modality: Modality) -> None:
    model = recognizer(modalities=(modality,))
    video, log_mel = clips(2)
    found = teacher(model)(video, log_mel).logits  # and the model is in evaluation mode from here
    alone = model(video=video) if modality == "video" else model(log_mel=log_mel)
    assert found is not None
    torch.testing.assert_close(found, alone.logits)


def test_it_gets_frames_of_its_own_size() -> None:
    model = recognizer()
    large = torch.randn(2, 3, 4, 64, 64)
    answer = teacher(model)(large, clips(2)[1])
    torch.testing.assert_close(answer.logits, model(resize_frames(large, 32), clips(2)[1]).logits)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Targets(classes=("angry", "happy", "sad")), r"does not know the classes \['neutral'\]"),
        (Targets(classes=("angry", "happy", "neutral", "sad")), r"also tells the classes \['sad'\]"),
        (Targets(dimensions=("power",)), "nothing in common"),
    ],
)
def test_another_task_is_refused(given: Targets, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        teacher(recognizer(given))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"frame_interval_s": 0.12},
            r"frame_interval_s 0.12, the student's is 0.16.*input '\{frame_interval_s: 0.12\}'",
        ),
        ({"log_mel_mean": -3.0}, "log_mel_mean -3.0"),
        ({"num_frames": 8, "audio_seconds": 2.0}, "num_frames 8.*Give the student the same"),
    ],
)
def test_another_input_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        teacher(recognizer(), SPEC.with_(**changes))


def test_it_is_read_from_an_export_and_knows_its_hash(tmp_path: Path) -> None:
    model = recognizer()
    folder = save_export(tmp_path / "export", model, spec=SPEC, provenance={})
    found = Teacher.read(folder, targets=TARGETS, student_spec=SPEC)
    torch.testing.assert_close(found(*clips(1)).logits, model.eval()(*clips(1)).logits)
    assert found.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert found.to_dict()["classes"] == list(TARGETS.classes)
    backbone = save_export(tmp_path / "backbone", model.backbone, spec=SPEC, provenance={})
    with pytest.raises(ValueError, match="backbone without a head"):
        Teacher.read(backbone, targets=TARGETS, student_spec=SPEC)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        Teacher.read(tmp_path / "gone", targets=TARGETS, student_spec=SPEC)


# ---------------------------------------------------------------- frames of two sizes


@pytest.mark.parametrize(("stored", "levels"), [(160, 1.0), (224, 2.0)])
def test_reduced_frames_are_those_that_a_file_gives_at_the_students_size(stored: int, levels: float) -> None:
    """Training reduces frames decoded at the teacher's size, inference decodes at the student's. Stored at the
    teacher's size, they differ by rounding alone (the decoder rounds twice); stored larger, by the second filter. A
    smooth picture with an edge and a little noise stands for a face."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:stored, 0:stored] / stored
    picture = 120 + 60 * np.sin(7 * x)[..., None] * np.cos(5 * y)[..., None] + np.where(x > y, 30, 0)[..., None]
    frame = np.clip(picture + rng.normal(0, 2, (stored, stored, 3)), 0, 255).astype(np.uint8)

    def decoded(size: int) -> torch.Tensor:
        rows = np.empty((1, size, size, 3), dtype=np.uint8)
        squares = SquareFrames(rows, np.array([0]), pixel_aspect=None)
        squares(0, frame, 0)
        squares.flush()
        spec = InputSpec(image_size=size, image_mean=(0, 0, 0), image_std=(1, 1, 1))
        return 255 * crop_and_normalize(torch.from_numpy(rows)[None], None, spec)

    reduced, direct = resize_frames(decoded(160), 64), decoded(64)
    assert reduced.shape == direct.shape == (1, 3, 1, 64, 64)
    worst = (reduced - direct).abs().max().item()
    assert worst <= levels
