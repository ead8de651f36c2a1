"""Fine-tuning with ``model.teacher``: what is learnt, what is written, and what goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from benchmarks.student import speed_table, train_table
from finetune.__main__ import main
from finetune.fold_results import _teachers
from finetune.lesson import Lesson
from finetune.module import FinetuneModule
from hicmae.backbone import Backbone, Modality
from hicmae.benchmarks import card
from hicmae.checkpoint import read_export, read_provenance, save_export
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.batch import ClipBatch
from hicmae.data.manifest import read_manifest, write_manifest
from hicmae.data.source import ManifestSource
from hicmae.data.splits import content_digest
from hicmae.distillation import DistillationConfig, resize_frames
from hicmae.heads import Targets
from hicmae.losses import ccc_loss, distillation_divergence, soft_cross_entropy
from hicmae.mixing import Mix, MixConfig
from hicmae.recognition import EmotionRecognizer
from tests import test_finetune, test_folds
from tests.corpus import EMOTIONS, make_corpus
from tests.test_finetune import SMALL, arguments, batch, leave_out_figures, module, weights
from tests.test_folds import jobs  # noqa: F401
from tests.test_folds import no_figures as no_fold_figures  # noqa: F401
from tests.tiny_model import shake

LARGE = {**SMALL, "image_size": 64, "depth": 3, "taps": [0, 2]}


def make_teacher(
    folder: Path,
    *,
    seed: int = 7,
    modalities: tuple[Modality, ...] = ("video", "audio"),
    provenance: dict[str, Any] | None = None,
    **architecture: Any,
) -> Path:
    """A recogniser of larger frames whose classes come in another order."""
    torch.manual_seed(seed)
    config = ModelConfig.preset("micro", **(LARGE | architecture))
    targets = Targets(classes=EMOTIONS[::-1], dimensions=("valence",))
    model = EmotionRecognizer(Backbone(config), targets, modalities=modalities)
    shake(model)
    return save_export(folder, model, spec=InputSpec.for_model(config), provenance=provenance or {})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("teacher") / "export")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 clips, two of each of four speakers; the fourth is the test."""
    made = make_corpus(tmp_path_factory.mktemp("student") / "corpus", 8)
    return write_manifest(made.path, [replace(clip, start_s=0.04 * i) for i, clip in enumerate(made.clips)])


def taught(teacher: Path, **settings: Any) -> FinetuneModule:
    """A student as a training begins."""
    student = module(teacher=teacher, mixing=MixConfig(probability=0.0), drop_path=0.0, **settings)
    student._trainer = SimpleNamespace(  # type: ignore[assignment]
        datamodule=SimpleNamespace(seed=0, prepare_for=lambda **given: None), global_step=3, lightning_module=student
    )
    student.setup("fit")
    return student


def large_batch(side: int = 64) -> ClipBatch:
    clips = batch()
    video = torch.randint(0, 256, (4, 16, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return replace(clips, video=video, crop_box=torch.tensor([[4.0, 2.0, 50.0, 40.0]]).expand(4, 4))


# ---------------------------------------------------------------- a step


def test_both_see_the_same_augmented_and_mixed_clips(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student, clips = taught(teacher), large_batch()
    student.mixing = MixConfig(probability=1.0, cutmix_alpha=0.0)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    assert student.lesson is not None
    for name, model in (("student", student.model), ("teacher", student.lesson.teacher.recognizer)):
        monkeypatch.setattr(
            model, "forward", lambda v, a, name=name, run=model.forward: (seen.update({name: (v, a)}), run(v, a))[1]
        )
    student.training_step(clips, 0)
    assert seen["teacher"][0].shape[-1] == 64
    torch.testing.assert_close(seen["student"][0], resize_frames(seen["teacher"][0], 32))
    torch.testing.assert_close(seen["student"][1], seen["teacher"][1])
    unmixed = taught(teacher)
    assert unmixed.lesson is not None
    plain, _ = unmixed._inputs(clips, None, unmixed.lesson.transform, unmixed.modalities)
    assert plain is not None
    share = ((seen["teacher"][0] - plain.flip(0)) / (plain - plain.flip(0))).nanmedian().item()
    assert 0 < share < 1
    torch.testing.assert_close(seen["teacher"][0], torch.lerp(plain.flip(0), plain, share), atol=1e-4, rtol=1e-4)


def test_the_loss_is_the_weighted_mean_of_labels_and_teacher(teacher: Path) -> None:
    settings = DistillationConfig(weight=0.3, temperature=3.0)
    student = taught(teacher, distillation=settings, dimensional_loss="ccc", dimensional_weight=2.0).eval()
    clips, mix = large_batch(), Mix(share=0.7)
    assert student.lesson is not None
    lesson = student.lesson
    video, log_mel = student._inputs(clips, mix, lesson.transform, lesson.modalities)
    said = lesson.teacher.recognizer(video, log_mel)
    assert video is not None
    own = student.model(resize_frames(video, 32), log_mel)
    shares = mix.classes(clips.labels["emotion"], 3)
    values = mix.values(clips.labels["valence"][:, None])
    task = soft_cross_entropy(own.logits, shares, label_smoothing=0.1) + 2 * ccc_loss(own.values, values)
    divergence = distillation_divergence(own.logits, said.logits[:, [2, 1, 0]], temperature=3.0)
    other = divergence + 2 * ccc_loss(own.values, said.values)
    found = student.lesson_losses(lesson, clips, mix)
    torch.testing.assert_close(found["loss"], 0.7 * task + 0.3 * other)
    torch.testing.assert_close(found["task_loss"], task)
    torch.testing.assert_close(found["teacher_loss"], other)
    torch.testing.assert_close(found["teacher_class_loss"], divergence)


def test_a_teacher_alone_is_followed_and_stays_as_it_is(teacher: Path) -> None:
    """Random labels at weight 1: the student comes to its teacher's answers, and nothing of the teacher moves."""
    student, clips = taught(teacher, distillation=DistillationConfig(weight=1.0)), large_batch()
    assert student.lesson is not None
    model = student.lesson.teacher.recognizer
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=3e-3)
    student.train()
    losses = []
    for _ in range(25):
        losses.append(student.training_step(clips, 0)["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any("teacher" in name or "lesson" in name for name in student.state_dict())
    assert set(student.state_dict()) == set(module().state_dict())


@pytest.mark.parametrize(("teachers", "students"), [("video", ("audio",)), ("audio", ("video", "audio"))])
def test_a_teacher_may_see_what_its_student_does_not(
    teachers: Modality, students: tuple[Modality, ...], tmp_path: Path
) -> None:
    student = taught(make_teacher(tmp_path / "one", modalities=(teachers,)), modalities=students)
    assert student.lesson is not None
    assert set(student.lesson.modalities) == {"video", "audio"}
    assert student.lesson.image_size == (64 if teachers == "video" else 32)
    losses = student.training_step(large_batch(student.lesson.image_size), 0)
    losses["loss"].backward()
    for name, parameter in student.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_a_teacher_of_smaller_frames_gets_them_reduced(tmp_path: Path) -> None:
    student = taught(make_teacher(tmp_path / "small", image_size=32), architecture={**SMALL, "image_size": 64})
    assert student.lesson is not None
    assert student.lesson.image_size == 64
    student.training_step(large_batch(), 0)


def teacher_of(folder: Path, targets: Targets) -> Path:
    torch.manual_seed(0)
    config = ModelConfig.preset("micro", **SMALL)
    model = EmotionRecognizer(Backbone(config), targets)
    return save_export(folder, model, spec=InputSpec.for_model(config), provenance={})


def test_what_the_teacher_does_not_know_is_learnt_from_labels_and_said(tmp_path: Path) -> None:
    path = teacher_of(tmp_path / "classes", Targets(classes=EMOTIONS))
    with pytest.raises(ValueError, match=r"weight=1 gives labels no weight, and the teacher .* does not know valence"):
        taught(path, distillation=DistillationConfig(weight=1.0))
    student = taught(path)
    assert student.lesson is not None
    assert "learnt from labels alone: valence" in student.lesson.describe(32)
    losses = student.training_step(batch(), 0)
    assert {"class_loss", "dimensional_loss", "task_loss", "teacher_loss"} <= set(losses)
    assert "teacher_dimensional_loss" not in losses


def test_dimensions_alone_are_weighed_against_the_teacher_as_against_labels(tmp_path: Path) -> None:
    path = teacher_of(tmp_path / "valence", Targets(dimensions=("valence",)))
    losses = {weight: taught(path, dimensional_weight=weight).training_step(batch(), 0) for weight in (1.0, 3.0)}
    torch.testing.assert_close(losses[3.0]["teacher_loss"], 3 * losses[1.0]["teacher_loss"])


# ---------------------------------------------------------------- a run


def test_the_page_shows_the_figures_of_the_benchmark() -> None:
    docs = Path(__file__).parent.parent / "docs"
    result, page = (
        json.loads((docs / "benchmarks" / "student.json").read_text()),
        (docs / "distillation.md").read_text(),
    )
    for table in (speed_table(result["speed"]), train_table(result["train"])):
        assert table in page


def test_the_shipped_settings_teach_a_student_of_the_size_that_the_page_measures(
    manifest: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_figures(monkeypatch)
    path = Path(__file__).parent.parent / "configs" / "finetune" / "student.yaml"
    shipped = yaml.safe_load(path.read_text())
    benchmark = card("crema_d").labels.classes
    assert {name: tuple(names) for name, names in shipped["model"]["labels"]["classes"].items()} == dict(benchmark)
    assert shipped["model"]["preset"] == "mini"
    given = {
        "model.teacher": teacher, "model.labels.classes": json.dumps({"emotion": EMOTIONS}),
        "model.architecture": json.dumps({**SMALL, "image_size": 64}), "data.shards": "null", "data.manifest": manifest,
        "data.test_fold": "null", "data.batch_size": 2, "data.num_workers": 0, "trainer.default_root_dir": tmp_path,
        "trainer.max_steps": 1, "trainer.accelerator": "cpu", "trainer.precision": "32-true", "wandb": "off",
        "test_after_fit": "false",
    }  # fmt: skip
    assert main(["fit", "--config", str(path), *(f"--{name}={value}" for name, value in given.items())]) == 0
    distilled = read_export(tmp_path / "export").provenance["distillation"]
    assert {name: distilled[name] for name in ("weight", "temperature")} == shipped["model"]["distillation"]


@pytest.fixture(scope="module")
def run(teacher: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("students") / "run"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_figures(patch)
        assert main(student_arguments(manifest, root, teacher)) == 0
    return root


def student_arguments(manifest: Path, root: Path, teacher: Path, *more: str) -> list[str]:
    given = (f"--model.teacher={teacher}", "--model.distillation.weight=0.7", "--data.batch_size=2")
    return arguments(manifest, root, *given, "--data.test_segments=1", *more)


def test_the_export_says_who_taught_it_and_holds_the_student_alone(run: Path, teacher: Path) -> None:
    export = read_export(run / "export")
    distilled = export.provenance["distillation"]
    expected = json.loads((teacher / "config.json").read_text())
    assert distilled["teacher"]["sha256"] == expected["sha256"]["model.safetensors"]
    assert distilled["teacher"]["classes"] == list(EMOTIONS[::-1])
    assert (distilled["weight"], distilled["temperature"]) == (0.7, 2.0)
    assert export.targets == Targets(classes=EMOTIONS, dimensions=("valence",))
    assert export.spec.image_size == 32
    assert set(weights(run / "checkpoints" / "last.ckpt")) == set(module().state_dict())
    assert f"Taught by {teacher}, weight 0.7." in (run / "report.md").read_text()
    assert str(teacher.parent) not in (run / "export" / "config.json").read_text()
    assert read_provenance(run / "checkpoints" / "last.ckpt")["distillation"] == distilled
    assert "sha256" in (run / "export" / "README.md").read_text()


def test_its_scores_are_those_of_inference_with_its_export(run: Path, manifest: Path) -> None:
    """The teacher's frames are larger; validation and test must not be fed from them."""
    import hicmae

    model, transform = hicmae.load_recognizer(run / "export")
    _, table = test_finetune.results(run)
    rows = table[(table.checkpoint == "best") & (table.split == "test")].set_index("clip_id")
    assert len(rows) == 2
    for clip in read_manifest(manifest).clips:
        if clip.clip_id in rows.index:
            span = (clip.start_s or 0.0, 60.0)
            output = model(**transform(clip.video, span_s=span))
            assert output.logits is not None
            found = rows.loc[clip.clip_id, [f"probability_{name}" for name in EMOTIONS]].to_numpy(dtype=float)
            torch.testing.assert_close(output.logits.softmax(1)[0].double(), torch.tensor(found), atol=1e-5, rtol=1e-4)


def test_a_resumed_student_ends_as_an_undisturbed_one_and_keeps_its_teacher(
    run: Path,
    manifest: Path,
    teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    leave_out_figures(monkeypatch)
    few = student_arguments(manifest, tmp_path / "run", teacher, "--test_after_fit=false")
    assert main([*few, "--trainer.max_steps=2"]) == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    resume = f"--ckpt_path={last}"
    another = make_teacher(tmp_path / "another", seed=8)
    plain = arguments(manifest, tmp_path / "run", "--data.batch_size=2", resume)
    for wrong, words in (
        (student_arguments(manifest, tmp_path / "run", another, resume), ("model.teacher of sha256", "set the same")),
        ([*few, resume, "--model.distillation.temperature=4"], ("model.distillation.temperature 2.0", "4.0")),
        (plain, ("model.teacher of sha256", "to go on with None")),
    ):
        assert main(wrong) == 2
        message = capsys.readouterr().err
        assert all(word in message for word in words), message[-500:]
    torch.manual_seed(123)
    assert main([*few, resume]) == 0
    ours, expected = weights(last), weights(run / "checkpoints" / "last.ckpt")
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name


def test_a_student_is_tested_without_its_teacher(
    run: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_figures(monkeypatch)
    given = student_arguments(manifest, tmp_path, tmp_path / "gone", f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}")
    assert main(["test", *given[1:]]) == 0
    about = test_finetune.results(tmp_path / "test")[0]["about"]
    assert about["distillation"]["weight"] == 0.7


@pytest.mark.usefixtures("no_fold_figures")
def test_each_fold_has_its_own_teacher_and_one_that_knows_other_folds_is_refused(
    tmp_path: Path,
    jobs: list[Any],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = test_folds.folded(tmp_path / "corpus", 8, 2)
    content = content_digest(ManifestSource(corpus))
    for fold in (1, 2):
        protocol = {"test_fold": fold, "paper": False, "content": content}
        make_teacher(tmp_path / f"fold{fold}" / "export", provenance={"protocol": protocol})
    out, each = tmp_path / "out", f"--model.teacher={tmp_path}/fold{{fold}}/export"
    assert main(test_folds.arguments(corpus, out, f"--model.teacher={tmp_path}/fold1/export")) == 2
    assert "so fold 2 was among its training clips" in capsys.readouterr().err
    assert main(test_folds.arguments(corpus, out, each)) == 0
    given = {fold: [one for one in line if one.startswith("--model.teacher")][-1] for fold, line in jobs}
    assert given == {fold: f"--model.teacher={tmp_path}/fold{fold}/export" for fold in (1, 2)}
    make_teacher(tmp_path / "fold2" / "export", seed=9, provenance={"protocol": protocol})
    assert main(test_folds.arguments(corpus, out, each)) == 2
    assert "model.teacher.content" in capsys.readouterr().err


def test_folds_name_their_teachers() -> None:
    about = {
        fold: {"teacher": f"runs/fold{fold}", "distillation": {"teacher": {"sha256": f"{fold}f"}, "weight": 0.5}}
        for fold in (1, 2)
    }
    found = _teachers(about)
    assert found["teacher"] == "runs/fold1, runs/fold2"
    assert found["distillation"] == {"weight": 0.5, "teachers": {"1": {"sha256": "1f"}, "2": {"sha256": "2f"}}}
    assert _teachers({1: about[1], 2: about[1]})["teacher"] == "runs/fold1"
    assert _teachers({1: {"teacher": None}}) == {"teacher": None, "distillation": None}


def test_a_checkpoint_of_fine_tuning_teaches_too(run: Path) -> None:
    student = module()
    lesson = Lesson.of(
        run / "checkpoints" / "last.ckpt", DistillationConfig(), student.spec, student.targets, student.modalities
    )
    assert lesson.teacher.knows_classes
    expected = weights(run / "checkpoints" / "last.ckpt")
    for name, value in lesson.teacher.recognizer.state_dict().items():
        assert torch.equal(value, expected[f"model.{name}"]), name


def test_teachers_that_cannot_teach_or_know_the_test_are_refused_before_training(
    manifest: Path, tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol = read_export(run / "export").provenance["protocol"]
    knows = make_teacher(tmp_path / "knows", provenance={"protocol": protocol | {"test_fold": 3}})
    chosen = make_teacher(tmp_path / "chosen", provenance={"protocol": protocol | {"paper": True}})
    parent = {"name": "old", "provenance": {"protocol": protocol | {"test_fold": 3}}}
    descends = make_teacher(
        tmp_path / "descends", provenance={"protocol": protocol | {"content": "other"}, "teacher": parent}
    )
    for path, more, words in (
        (tmp_path / "gone", (), "no checkpoint at"),
        (knows, (), "fold None was among its training clips"),
        (chosen, (), "was chosen on the test clips"),
        (descends, (), f"{tmp_path}/descends, whose teacher old was trained with fold 3 as its test"),
        (run / "export", ("--model.input={frame_interval_s: 0.2}",), "frame_interval_s 0.16, the student's is 0.2"),
        (run / "export", ("--model.distillation.weight=0",), "distillation.weight"),
    ):
        try:
            status = main(student_arguments(manifest, tmp_path / "refused", path, *more))
        except SystemExit as stop:  # the parser's own
            status = int(str(stop.code))
        assert status == 2, more
        message = capsys.readouterr().err
        assert words in message, (words, message[-500:])
    assert not (tmp_path / "refused" / "checkpoints").exists()
