"""Options of fine-tuning: frozen layers, class weights, averaged weights, timing, a test without a modality."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from finetune.__main__ import main
from hicmae.checkpoint import read_export
from hicmae.data.augment import RecognitionAugment, RecognitionDraws
from hicmae.data.labels import LabelSpec
from hicmae.data.manifest import read_manifest, write_manifest
from hicmae.data.order import clip_generator, generator
from hicmae.drop_path import DropPath
from hicmae.losses import soft_cross_entropy
from hicmae.media.spec_augment import SpecAugment
from hicmae.mixing import MixConfig, draw_mix
from tests.corpus import EMOTIONS, make_corpus
from tests.test_finetune import arguments, batch, data, leave_out_figures, module, results, step

EVERYTHING = (
    "--model.freeze=1", "--model.class_weights=balanced", "--model.ema_decay=0.7", "--model.input.frame_interval_s=0.1",
    "--model.drop_path=0.3", "--data.augmentation.erase_probability=0.5", "--data.augmentation.waveform_gain=true",
    "--data.augmentation.spec_augment={time_stripes: 1}", "--data.augmentation.drop_video=0.3",
    "--data.augmentation.drop_audio=0.3", "--checkpoint.every_n_train_steps=1", "--checkpoint.keep=9",
    "--test_after_fit=false",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def no_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        leave_out_figures(patched)
        yield


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 clips; of the three training speakers' 12, some are angry more often than others."""
    made = make_corpus(tmp_path_factory.mktemp("options") / "corpus", 16)
    rows = [replace(clip, start_s=0.04 * i) for i, clip in enumerate(made.clips)]
    rows = [
        replace(row, labels={**row.labels, "emotion": "angry"}) if i % 5 == 4 else row for i, row in enumerate(rows)
    ]
    return write_manifest(made.path, rows)


@pytest.fixture(scope="module")
def run(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "everything"
    assert main(arguments(manifest, root, *EVERYTHING)) == 0
    return root


def checkpoint(root: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(root / "checkpoints" / f"{name}.ckpt", weights_only=True)


# ---------------------------------------------------------------- everything at once


def test_with_everything_on_a_resumed_run_ends_as_an_undisturbed_one(run: Path, manifest: Path, tmp_path: Path) -> None:
    few = arguments(manifest, tmp_path, *EVERYTHING)
    assert main([*few, "--trainer.max_steps=2"]) == 0
    torch.manual_seed(123)
    assert main([*few, "--ckpt_path=auto"]) == 0
    ours, expected = checkpoint(tmp_path), checkpoint(run)
    for state in ("state_dict", "current_model_state"):
        assert list(ours[state]) == list(expected[state])
        for name, value in expected[state].items():
            assert torch.equal(ours[state][name], value), (state, name)
    assert results(tmp_path)[0]["last"]["val"] == results(run)[0]["last"]["val"]


def test_the_average_moves_by_its_share_of_each_step(run: Path) -> None:
    saved = [checkpoint(run, f"step{number:08d}") for number in (1, 2, 3)]
    for name, value in saved[0]["current_model_state"].items():
        assert torch.equal(saved[0]["state_dict"][name], value)
    for before, after in itertools.pairwise(saved):
        for name, value in after["state_dict"].items():
            moved = torch.lerp(before["state_dict"][name], after["current_model_state"][name], 1 - 0.7)
            torch.testing.assert_close(value, moved, rtol=1e-5, atol=1e-7)
    name = "model.head.classifier.weight"
    assert not torch.equal(saved[2]["state_dict"][name], saved[2]["current_model_state"][name])


def test_the_average_is_what_is_validated_scored_and_exported(run: Path) -> None:
    logged = pd.read_csv(run / "logs" / "version_0" / "metrics.csv")
    scores, _ = results(run)
    for name in ("ccc", "rmse"):  # the last epoch's, against the last checkpoint loaded anew
        assert scores["last"]["val"][name] == pytest.approx(logged[f"val/{name}"].dropna().iloc[-1], abs=1e-6)
    assert read_export(run / "export").spec.frame_interval_s == 0.1
    averaged = {name: checkpoint(run, name)["state_dict"] for name in ("best", "last")}
    for name, value in load_file(run / "export" / "model.safetensors").items():
        assert torch.equal(value, averaged["best"][f"model.{name}"])


def test_what_is_frozen_stays_as_it_was_to_the_bit(run: Path) -> None:
    last = checkpoint(run)
    first = checkpoint(run, "step00000001")
    frozen = [n for n in last["state_dict"] if "encoder.embed" in n or "encoder.blocks.0" in n]
    assert len(frozen) > 10
    for state in ("state_dict", "current_model_state"):
        for name, value in last[state].items():
            assert torch.equal(value, first["current_model_state"][name]) == (name in frozen), name


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("--model.ema_decay=null", ("model.ema_decay 0.7", "to go on with None")),
        ("--model.freeze=backbone", ("model.freeze 1", "to go on with backbone")),
        (
            "--model.input.frame_interval_s=0.16",
            ("trained with frame_interval_s=0.1", "this run has frame_interval_s=0.16"),
        ),
    ],
)
def test_another_average_part_or_timing_than_the_checkpoints_is_refused(
    run: Path, manifest: Path, tmp_path: Path, settings: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    last = run / "checkpoints" / "last.ckpt"
    assert main(arguments(manifest, tmp_path, *EVERYTHING, settings, f"--ckpt_path={last}")) == 2
    message = capsys.readouterr().err
    for word in words:
        assert word in message


def test_an_exported_recogniser_is_tested_with_its_own_timing(
    run: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = (f"--model.init={run / 'export'}", "--model.preset=null", "--model.architecture=null")
    wrong = (*export, "--model.input.frame_interval_s=0.16")
    assert main(arguments(manifest, tmp_path, *wrong, command="test")) == 2
    assert "export was trained with frame_interval_s=0.1, but this run has frame_interval_s=0.16" in (
        capsys.readouterr().err
    )


def test_two_ranks_augment_clips_as_one_does(manifest: Path) -> None:
    augmentation = RecognitionAugment(
        erase_probability=0.5, waveform_gain=True, spec_augment=SpecAugment(), drop_video=0.3, drop_audio=0.3
    )
    tuned = module()
    settings = {"augmentation": augmentation, "max_train_subjects": 2}
    prepared = {size: data(manifest, batch_size=size, **settings) for size in (2, 4)}
    inputs: dict[int, dict[str, tuple[torch.Tensor, ...]]] = {1: {}, 2: {}}
    for world in inputs:
        loaded = prepared[4 // world]
        for rank in range(world):
            loaded._loader = replace(loaded._loader, rank=rank, world_size=world)
            for clips in loaded.train_dataloader():
                video, log_mel = tuned.inputs(clips)
                assert video is not None
                assert log_mel is not None
                for row, name in enumerate(clips.clip_ids):
                    inputs[world][name] = (video[row], log_mel[row])
    assert len(inputs[1]) >= 4
    assert inputs[1].keys() == inputs[2].keys()
    for name, (video, log_mel) in inputs[1].items():
        assert torch.equal(inputs[2][name][0], video), name
        torch.testing.assert_close(inputs[2][name][1], log_mel, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- a test without a modality


def test_a_test_without_sound_withholds_it_from_all_clips_and_says_so(
    run: Path, manifest: Path, tmp_path: Path
) -> None:
    given = f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
    assert main(arguments(manifest, tmp_path / "with", *EVERYTHING[:4], given, command="test")) == 0
    less = (*EVERYTHING[3:4], given, "--data.test_without=audio")  # what only training needs may be left out
    assert main(arguments(manifest, tmp_path / "without", *less, command="test")) == 0
    (whole, heard), (scores, deaf) = (results(tmp_path / name / "test") for name in ("with", "without"))
    assert (whole["about"]["test_without"], scores["about"]["test_without"]) == (None, "audio")
    assert scores["tested"]["test"]["clips_without_sound"] == scores["tested"]["test"]["clips"] == 4
    assert scores["tested"]["test"]["clips_without_picture"] == 0
    assert deaf.clip_id.tolist() == heard.clip_id.tolist()
    assert (deaf.valence_prediction != heard.valence_prediction).all()


@pytest.mark.parametrize("setting", ["--data.test_without=audio", "--data.augmentation.drop_video=0.1"])
def test_nothing_can_be_withheld_of_one_modality(
    setting: str, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(manifest, tmp_path, "--model.modalities=[video]", setting)) == 2
    assert "nothing can be withheld of one" in capsys.readouterr().err


# ---------------------------------------------------------------- one batch


def test_augmentation_mixing_smoothing_and_class_weights_compose() -> None:
    """Clips are augmented one by one, then mixed; the mixed label is smoothed, then weighted by class."""
    weight = [0.5, 1.0, 3.0]
    # A head that starts at a thousandth would hide what its input is.
    tuned = module(
        drop_path=0.0, head_init_scale=1.0, class_weights=weight, labels=LabelSpec(classes={"emotion": EMOTIONS})
    )
    drawn = [
        RecognitionDraws(
            image_size=32, augmentation=RecognitionAugment(erase_probability=1.0, spec_augment=SpecAugment())
        )(clip_generator(0, 0, f"c{number}"))
        for number in range(4)
    ]
    clips = replace(
        batch(),
        frame_ops=[one.frame_ops for one in drawn],
        erasures=[one.erasure for one in drawn],
        stripes=torch.from_numpy(np.stack([one.stripes for one in drawn if one.stripes is not None])),
    )
    loss = step(tuned, clips)["loss"]
    rng = generator("finetune", 0, 3, "c0")
    rng.integers(2**63)
    mix = draw_mix(rng, MixConfig(), image_size=32, audio_frames=tuned.spec.audio_frames)
    assert mix is not None
    video = tuned.transform.frames(
        clips.video, crop_box=clips.crop_box, flip=clips.flip, frame_ops=clips.frame_ops, erasures=clips.erasures
    )
    sound = tuned.transform.sound(clips.waveform, sound_samples=clips.sound_samples, stripes=clips.stripes)
    plain = tuned.transform(clips.video, clips.waveform, sound_samples=clips.sound_samples, crop_box=clips.crop_box)
    assert not torch.equal(video, plain[0])
    assert not torch.equal(sound, plain[1])
    logits = tuned.model(mix.video(video), mix.log_mel(sound)).logits
    target = mix.classes(clips.labels["emotion"], 3) * 0.9 + 0.1 / 3
    expected = -(torch.tensor(weight) * target * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(loss, expected)
    assert soft_cross_entropy(logits, target).item() != pytest.approx(loss.item(), rel=1e-3)


def test_balanced_class_weights_are_those_of_the_training_clips(
    manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "finetune.class_weights")
    short = ("--trainer.max_steps=1", "--model.optimizer.warmup_epochs=0", "--data.augmentation.rand_augment=null")
    assert main(arguments(manifest, tmp_path, *short, "--model.class_weights=balanced", "--test_after_fit=false")) == 0
    validated = set(results(tmp_path)[1].subject)
    trained = [
        str(clip.labels["emotion"])
        for clip in read_manifest(manifest).clips
        if clip.split == "train" and clip.subject not in validated
    ]
    expected = {name: len(trained) / (3 * trained.count(name)) for name in EMOTIONS}
    assert len(set(expected.values())) > 1
    said = next(record for record in caplog.records if record.message.startswith("class weights"))
    assert said.args == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weights": [1.0, 2.0]}, "has 2 values"),
        ({"class_weights": [1.0, 2.0, 0.0]}, "positive one for each of the 3 classes"),
        ({"class_weights": [1.0, float("nan"), 1.0]}, "positive one for each of the 3 classes"),
        ({"dimensional_weight": -1.0}, "dimensional_weight=-1.0"),
        ({"class_weights": "balanced", "labels": LabelSpec(dimensions={"valence": (0, 1)})}, "there are no classes"),
        ({"ema_decay": 1.0}, "ema_decay=1.0"),
        ({"freeze": 3}, "the encoders have 2 layers"),
        ({"input": {"num_frames": 8}}, r"model.input has \['num_frames'\]"),
        ({"input": {"frame_interval_s": 0.0}}, "frame_interval_s=0.0 must be positive"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(**settings)


def test_timing_changes_the_window_and_no_weight() -> None:
    slow, fast = module(), module(input={"frame_interval_s": 0.12})
    assert fast.spec == replace(slow.spec, frame_interval_s=0.12)
    for name, value in slow.state_dict().items():
        assert torch.equal(fast.state_dict()[name], value), name


# ---------------------------------------------------------------- frozen parts


@pytest.mark.parametrize("modalities", [("video", "audio"), ("audio",)])
@pytest.mark.parametrize("freeze", [0, 1, 2, "backbone"])
def test_freezing_stops_gradients_and_stochastic_depth_of_its_part_alone(freeze: Any, modalities: Any) -> None:
    tuned, whole = (module(freeze=one, modalities=modalities, drop_path=0.5) for one in (freeze, 0))
    step(tuned, batch())["loss"].backward()
    named = dict(whole.model.named_parameters())
    for name, parameter in tuned.model.named_parameters():
        layer = -1 if ".embed." in name else int(name.split(".")[3]) if "encoder.blocks" in name else 99
        frozen = "backbone" in name if freeze == "backbone" else freeze > 0 and layer < freeze
        assert parameter.requires_grad == (named[name].requires_grad and not frozen), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
    for (name, ours), theirs in zip(tuned.model.named_modules(), whole.model.modules(), strict=True):
        if isinstance(ours, DropPath) and isinstance(theirs, DropPath):
            frozen = freeze == "backbone" or ("encoder" in name and int(name.split(".")[3]) < freeze)
            assert ours.p == (0 if frozen else theirs.p)
