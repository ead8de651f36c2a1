"""What is said of a file: its windows, their mean, what is left out; the same as in the test of fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hicmae.backbone import Backbone
from hicmae.checkpoint import save_export
from hicmae.config import InputSpec
from hicmae.data.labels import LabelSpec
from hicmae.data.loader import LoaderSettings
from hicmae.data.source import ManifestSource
from hicmae.data.splits import TEST
from hicmae.heads import Targets
from hicmae.inference.items import MediaItem, find_items
from hicmae.inference.prediction_dicts import prediction_from_dict, prediction_to_dict, window_rows
from hicmae.inference.predictor import Predictor, model_name
from hicmae.media.clip import DecodeError
from hicmae.recognition import EmotionRecognizer
from hicmae.transform import ClipTransform
from tests.corpus import EMOTIONS, make_corpus
from tests.media_files import make_clip
from tests.tiny_model import TINY, shake

SPEC = InputSpec.for_model(TINY, frame_interval_s=0.4, audio_seconds=1.6)
"""Windows of 1.6 s."""


def recognizer(*modalities: str, targets: Targets | None = None) -> EmotionRecognizer:
    torch.manual_seed(0)
    targets = targets or Targets(classes=EMOTIONS, dimensions=("valence",))
    model = EmotionRecognizer(Backbone(TINY), targets, modalities=modalities or ("video", "audio"))  # type: ignore[arg-type]
    shake(model)
    with torch.no_grad():
        model.head.norm.weight.mul_(3)  # clips of time codes look much the same to random weights
    return model.eval()


def predictor(*modalities: str, **settings: object) -> Predictor:
    return Predictor(recognizer(*modalities), SPEC, name="tiny", device="cpu", **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    size = (48, 48)
    make_clip(folder / "talk.mp4", seconds=7.0, size=size)
    make_clip(folder / "silent.mp4", seconds=3.2, size=size, with_audio=False)
    make_clip(folder / "half.mp4", seconds=4.8, size=size, audio_end_s=1.4)
    make_clip(folder / "voice.wav", seconds=3.2, with_video=False, container="wav", audio_codec="pcm_s16le")
    make_clip(folder / "short.mp4", seconds=0.8, size=size)
    make_clip(folder / "wide.mp4", seconds=2.0, size=(96, 48))
    return folder


def test_each_window_is_what_the_model_says_of_it_and_the_file_is_their_mean(folder: Path) -> None:
    heard: list[tuple[float, int, int]] = []
    own = predictor(batch_size=2)
    found = own.predict(folder / "talk.mp4", lambda window, done, total: heard.append((window.start_s, done, total)))
    assert [w.start_s for w in found.windows] == pytest.approx([0, 1.6, 3.2, 4.8, 5.4], abs=0.041)
    assert heard == [(w.start_s, number + 1, 5) for number, w in enumerate(found.windows)]
    assert (found.name, found.model, found.warnings, found.left_out) == (str(folder / "talk.mp4"), "tiny", (), ())
    transform, model = ClipTransform(SPEC), recognizer()
    for window in found.windows:
        with torch.inference_mode():
            truth = model(**transform(folder / "talk.mp4", position=window.start_s / (7.0 - 1.6)))
        assert window.probabilities is not None
        assert window.values is not None
        np.testing.assert_allclose(window.probabilities, truth.logits.softmax(-1)[0], atol=1e-5)
        np.testing.assert_allclose(window.values, truth.values[0], atol=1e-5)
    rows = np.stack([w.probabilities for w in found.windows])
    assert np.ptp(rows, axis=0).max() > 1e-3  # windows differ, or the mean would prove nothing
    np.testing.assert_allclose(found.probabilities, rows.mean(axis=0), atol=1e-6)
    assert found.label == EMOTIONS[int(rows.mean(axis=0).argmax())]


def test_windows_come_as_they_are_known(folder: Path) -> None:
    stream = predictor(batch_size=1, hop_s=0.5).windows(folder / "talk.mp4")
    assert next(stream).end_s == pytest.approx(1.6)
    assert len(list(stream)) == 11  # 0.5, 1.0, ... 5.0, and the last one from 5.4
    stream.close()


def test_with_its_settings_files_score_as_in_the_test_of_fine_tuning(tmp_path: Path) -> None:
    from finetune.module import FinetuneModule
    from hicmae.data.evaluation import EvaluationLoader

    manifest = make_corpus(tmp_path, 3)
    # black and silence are the same too
    assert manifest.clips[1].video is not None
    assert manifest.clips[2].video is not None
    make_clip(manifest.clips[1].video, seconds=3.6, size=(48, 48), with_audio=False)
    make_clip(manifest.clips[2].video, seconds=2.8, with_video=False)
    labels = LabelSpec(classes={"emotion": EMOTIONS}, dimensions={"valence": (0, 1)})
    timing = {"frame_interval_s": 0.4, "audio_seconds": 1.6}
    tuned = FinetuneModule(labels=labels, architecture=TINY.to_dict(), input=timing).eval()
    tuned.model.load_state_dict(recognizer().state_dict())
    loader = EvaluationLoader(
        ManifestSource(manifest), spec=tuned.spec, labels=labels, segments=2,
        loader=LoaderSettings(batch_size=4, num_workers=0),
    )  # fmt: skip
    with torch.inference_mode():
        for batch in loader:
            tuned.test_step(batch, 0)
    truth = tuned._segments[TEST].gather().outputs[:, : len(EMOTIONS) + 1]
    assert np.ptp(truth, axis=0).min() > 1e-3  # or any clip could stand for any other
    own = predictor(segments=2, missing="blank")
    for item, row in zip(find_items([manifest.path]), truth, strict=True):
        found = own.predict(item)
        assert found.probabilities is not None
        assert found.values is not None
        np.testing.assert_allclose([*found.probabilities, *found.values], row, atol=1e-5)


def test_what_the_recogniser_was_built_for_must_be_there(folder: Path) -> None:
    for file, lacking, reason in (
        ("silent.mp4", "sound", "no_audio_stream"),
        ("voice.wav", "picture", "no_video_stream"),
    ):
        with pytest.raises(
            DecodeError, match=f"it has no {lacking}, and tiny was built for picture and sound"
        ) as raised:
            predictor().predict(folder / file)
        assert raised.value.reason == reason
        assert "--missing blank" in raised.value.remedy
    assert predictor("video").predict(folder / "silent.mp4").windows[0].modalities == ("video",)
    assert predictor("audio").predict(folder / "voice.wav").windows[0].modalities == ("audio",)


def test_a_recogniser_of_one_modality_uses_that_one_alone(folder: Path) -> None:
    both, silent = (predictor("video").predict(folder / f"{name}.mp4", None) for name in ("talk", "silent"))
    assert {window.modalities for window in both.windows} == {("video",)}
    assert both.windows[0].blanked == silent.windows[0].blanked == ()
    np.testing.assert_allclose(both.windows[0].values, silent.windows[0].values, atol=0.05)  # the same time code


def test_black_and_silence_stand_for_what_is_missing_if_asked_and_it_is_said(folder: Path) -> None:
    found = predictor(missing="blank").predict(folder / "silent.mp4")
    assert found.warnings == ("blanked: it has no sound, and the recogniser was given silence instead",)
    assert {(w.modalities, w.blanked) for w in found.windows} == {(("video",), ("audio",))}
    heard = predictor(missing="blank").predict(folder / "voice.wav")
    assert {(w.modalities, w.blanked) for w in heard.windows} == {(("audio",), ("video",))}


def test_windows_past_the_end_of_the_sound_are_left_out_or_blanked(folder: Path) -> None:
    found = predictor().predict(folder / "half.mp4")
    assert [(out.start_s, out.reason) for out in found.left_out] == [
        (1.6, "no_audio"),
        (pytest.approx(3.2), "no_audio"),
    ]
    assert len(found.windows) == 1
    assert found.warnings == ("left_out: 2 of 3 windows were left out (no_audio 2)",)
    blanked = predictor(missing="blank").predict(folder / "half.mp4")
    assert [w.blanked for w in blanked.windows] == [(), ("audio",), ("audio",)]
    assert [row["left_out"] for row in window_rows(found)] == ["", "no_audio", "no_audio"]
    assert window_rows(found)[1]["label"] is None


def test_sound_where_there_is_no_picture_is_not_passed_over_in_silence(folder: Path, tmp_path: Path) -> None:
    make_clip(tmp_path / "late.mp4", seconds=2.0, size=(48, 48), audio_end_s=6.0)
    said = "sound_left_out: 4.0"
    assert predictor().predict(tmp_path / "late.mp4").warnings[0].startswith(said)
    assert predictor("video").predict(tmp_path / "late.mp4").warnings == ()
    assert predictor().predict(MediaItem(name="a", video=tmp_path / "late.mp4", span_s=(0.0, 2.0))).warnings == ()


def test_numbers_that_are_not_finite_are_no_prediction(folder: Path) -> None:
    broken = predictor()
    with torch.no_grad():
        broken.model.head.norm.weight[0] = float("nan")
    with pytest.raises(ValueError, match="tiny gives numbers that are not finite"):
        broken.predict(folder / "short.mp4")


def test_a_file_shorter_than_a_window_is_one_padded_window_with_a_warning(folder: Path) -> None:
    found = predictor().predict(folder / "short.mp4")
    assert len(found.windows) == 1
    assert found.windows[0].end_s == pytest.approx(0.8, abs=0.05)
    assert found.warnings[0].startswith("padded: it lasts 0.80 s, less than a window of 1.60 s")


def test_a_picture_far_from_square_is_suspected_to_be_no_face_crop(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = "not_a_face_crop: its picture is 96 x 48, and only the square in its middle is looked at"
    assert predictor().predict(folder / "wide.mp4").warnings[0].startswith(wide)
    assert predictor("audio").predict(folder / "wide.mp4").warnings == ()
    chosen = MediaItem(name="x", video=folder / "wide.mp4", square=(0, 0, 48))
    assert predictor().predict(chosen).warnings == ()

    def not_installed(*_: object) -> None:
        raise ValueError("no cv2")

    monkeypatch.setattr("hicmae.inference.face_windows.make_detector", not_installed)
    assert predictor().predict(folder / "wide.mp4").warnings[0].startswith(wide)
    with pytest.raises(ValueError, match="no cv2"):
        predictor(faces=True)


def test_values_survive_json(folder: Path) -> None:
    found = predictor().predict(folder / "half.mp4")
    again = prediction_from_dict(json.loads(json.dumps(prediction_to_dict(found))), found.targets, "tiny")
    assert again.left_out == found.left_out
    assert again.label == found.label
    for one, other in zip(found.windows, again.windows, strict=True):
        assert (one.start_s, one.end_s, one.modalities) == (other.start_s, other.end_s, other.modalities)
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
        np.testing.assert_array_equal(one.values, other.values)


def test_loaded_from_its_folder_it_says_the_same(folder: Path, tmp_path: Path) -> None:
    save_export(tmp_path / "mine" / "export", recognizer(), spec=SPEC, provenance={})
    loaded = Predictor.load(tmp_path / "mine" / "export", device="cpu")
    assert loaded.name == model_name(tmp_path / "mine" / "export") == "mine/export"
    assert (loaded.targets.classes, loaded.modalities, loaded.spec) == (EMOTIONS, ("video", "audio"), SPEC)
    ours, theirs = loaded.predict(folder / "talk.mp4"), predictor().predict(folder / "talk.mp4")
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hop_s": 0.0}, "hop_s=0.0 must be a positive number"),
        ({"segments": 0}, "segments=0 must be at least 1 window"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"missing": "ignore"}, "missing='ignore': choose one of fail, blank"),
    ],
)
def test_options_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor(**settings)  # type: ignore[arg-type]
