"""Exported files compute what the model computes, or are not kept."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from hicmae.backbone import Backbone
from hicmae.checkpoint import save_export
from hicmae.cli import export, main
from hicmae.config import InputSpec
from hicmae.heads import Targets
from hicmae.inference.items import media_item
from hicmae.media.decode import decode_clip
from hicmae.portable import formats, quantizing
from hicmae.portable.checking import deviations, largest_differences, run_eager
from hicmae.portable.clips import random_clips, read_clips, synthetic_clips
from hicmae.portable.folder import Written, write_folder
from hicmae.portable.graphs import BackboneGraph, Graph, RecognizerGraph, TransformGraph
from hicmae.recognition import EmotionRecognizer
from hicmae.transform import ClipTransform
from tests.media_files import make_clip
from tests.tiny_model import TINY, clips, shake

onnxruntime = pytest.importorskip("onnxruntime")
SMALL = replace(TINY, depth=2, fusion_depth=1, taps=(1,), decoder_depth=2)
"""An exporter's time goes by layers."""
SPEC = InputSpec.for_model(SMALL)
TARGETS = Targets(classes=("angry", "happy", "neutral"), dimensions=("valence",), ranges={"valence": (-1, 1)})


def recognizer(seed: int = 0, **settings: Any) -> EmotionRecognizer:
    torch.manual_seed(seed)
    model = EmotionRecognizer(Backbone(SMALL), TARGETS, **settings)
    shake(model)
    return model.eval()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    make_clip(path, size=(48, 48), seconds=0.4)  # the sound ends within the window of 0.65 s that the model looks at
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, film: Path) -> Path:
    """A recogniser as ONNX, by the command."""
    root = tmp_path_factory.mktemp("exported")
    save_export(root / "folder", recognizer(), spec=SPEC, provenance={"recipe": "none"})
    out = root / "onnx"
    assert main(["export", str(root / "folder"), str(out), "--format", "onnx", "--check-clips", str(film)]) == 0
    return out


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    """Writing ONNX copies the files of ``exported``, which takes no seconds."""

    def copy(graph: Graph, path: Path) -> None:
        shutil.copy(exported / path.name, path)

    monkeypatch.setitem(formats.FORMATS, "onnx", replace(formats.FORMATS["onnx"], write=copy))


def write(out: Path, model: EmotionRecognizer, **settings: Any) -> Written:
    given = {"modalities": ("video", "audio"), "format": "onnx", "real_clips": random_clips(SPEC, seed=1)}
    return write_folder(out, model, spec=SPEC, provenance={}, **(given | settings))


def session_outputs(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    return dict(zip([x.name for x in session.get_outputs()], session.run(None, inputs), strict=True))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnx_file_computes_what_the_recogniser_computes(exported: Path, batch: int) -> None:
    video, log_mel = clips(batch, seed=batch)
    found = session_outputs(exported / "model.onnx", {"video": video.numpy(), "log_mel": log_mel.numpy()})
    with torch.no_grad():
        said = recognizer()(video, log_mel)
    assert said.logits is not None
    assert said.values is not None
    assert list(found) == ["probabilities", "logits", "values", "features"]
    expected = (said.logits.softmax(-1), said.logits, said.values, said.features)
    for value, tensor in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(value, tensor.numpy(), rtol=0, atol=1e-4)


def test_a_variant_of_the_model_is_written_as_the_paper_is(tmp_path: Path) -> None:
    """Writing compares what the file computes with what the model does."""
    torch.manual_seed(0)
    config = replace(SMALL, feature_fusion="last", fusion_direction="to_video", skip_connections=False)
    model = EmotionRecognizer(Backbone(config), TARGETS).eval()
    written = write(tmp_path / "out", model, format="torch-export")
    assert json.loads((written.folder / "config.json").read_text())["model"] == config.to_dict()


def test_transform_file_gives_the_inputs_of_a_clip(exported: Path, film: Path) -> None:
    clip = decode_clip(film.read_bytes(), spec=SPEC, name="film")
    assert clip.sound_samples < SPEC.audio_samples
    decoded = {
        "frames": clip.video[None],
        "waveform": clip.waveform[None],
        "sound_samples": np.array([clip.sound_samples]),
    }
    found, expected = session_outputs(exported / "transform.onnx", decoded), ClipTransform(SPEC)(film)
    for name in ("video", "log_mel"):
        np.testing.assert_allclose(found[name], expected[name].numpy(), rtol=0, atol=1e-3)  # type: ignore[literal-required]


def test_a_file_read_without_this_library_gets_the_same_answer(exported: Path, film: Path) -> None:
    """As the folder's README.md says it: PyAV and Pillow, numpy and onnxruntime."""
    with av.open(str(film)) as container:
        pictures = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    times = np.array([time for time, _ in pictures])
    places = np.searchsorted(times, SPEC.frame_interval_s * np.arange(SPEC.num_frames) + 1e-6, side="right") - 1
    size = (SPEC.image_size, SPEC.image_size)
    resized = [np.asarray(Image.fromarray(pictures[i][1]).resize(size, Image.Resampling.BILINEAR)) for i in places]
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SPEC.sample_rate_hz)
    with av.open(str(film)) as container:
        parts = [
            part.to_ndarray()[0] for frame in [*container.decode(audio=0), None] for part in resampler.resample(frame)
        ]
    sound = np.concatenate(parts)[: SPEC.audio_samples]
    decoded = {
        "frames": np.stack(resized)[None],
        "waveform": np.pad(sound, (0, SPEC.audio_samples - len(sound)))[None],
        "sound_samples": np.array([len(sound)]),
    }
    inputs = session_outputs(exported / "transform.onnx", decoded)
    found = session_outputs(exported / "model.onnx", inputs)["probabilities"]
    with torch.no_grad():
        logits = recognizer()(**ClipTransform(SPEC)(film, position=0.0)).logits
    assert logits is not None
    np.testing.assert_allclose(found, logits.softmax(-1).numpy(), rtol=0, atol=1e-4)


def test_config_describes_the_files_and_their_check(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    for name, digest in config["sha256"].items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest
    assert set(config["files"]) == {"model.onnx", "transform.onnx"}
    assert set(config["sha256"]) == {"README.md", *config["files"]}
    assert config["targets"]["classes"] == list(TARGETS.classes)
    assert InputSpec.from_dict(config["input"]) == SPEC
    assert config["provenance"]["recipe"] == "none"
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    for side, tensors in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        shapes = {x.name: list(x.shape) for x in tensors}
        assert shapes == {name: x["shape"] for name, x in config["files"]["model.onnx"][side].items()}
    checks = config["check"]["float32"]
    assert {(row["clips"], row["batch"]) for row in checks} == {(c, b) for c in ("random", "given") for b in (1, 3)}
    assert all(0 <= row["largest"] <= row["tolerance"] for row in checks)


def test_lines_of_the_card_run_with_numpy_and_onnxruntime_alone(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (exported / "README.md").read_text()
    code = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)[0]
    assert set(re.findall(r"^import (\w+)", code, flags=re.MULTILINE)) == {"numpy", "onnxruntime"}
    assert "from " not in code
    monkeypatch.chdir(exported)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert "[[" in capsys.readouterr().out
    assert scope["inputs"]["video"].shape == (2, 3, 4, 32, 32)
    assert "angry, happy, neutral" in card
    assert "valence (labels from -1 to 1; outputs may lie beyond)" in card
    assert "Intended use" in card


@pytest.mark.usefixtures("copied")
def test_a_file_of_other_weights_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not compute what the model computes: output .* nothing was kept"):
        write(tmp_path / "out", recognizer(seed=1))
    assert not list(tmp_path.iterdir())


def test_an_export_that_is_stopped_leaves_nothing(
    exported: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_export(tmp_path / "source", recognizer(), spec=SPEC, provenance={})

    def stopped(graph: Graph, path: Path) -> None:
        path.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setitem(formats.FORMATS, "onnx", replace(formats.FORMATS["onnx"], write=stopped))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"):
        main(["export", str(tmp_path / "source"), str(tmp_path / "out"), "--format=onnx", "--check-clips", str(film)])
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_many_clips_are_checked_with_some_and_said(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        shutil.copy(film, tmp_path / f"{number}.mp4")
    monkeypatch.setattr(export, "MOST_CHECK_CLIPS", 2)
    found = export._check_clips(argparse.Namespace(check_clips=[tmp_path]), SPEC, ("video", "audio"))
    assert len(found.frames) == 2
    assert "checking with 2 of the 5 clips given" in caplog.text


@pytest.mark.usefixtures("copied")
def test_an_older_export_of_the_same_format_is_replaced_only_by_a_good_one(tmp_path: Path) -> None:
    write(tmp_path / "out", recognizer())
    before = (tmp_path / "out" / "config.json").read_text()
    with pytest.raises(ValueError, match="nothing was kept"):
        write(tmp_path / "out", recognizer(seed=1))
    assert (tmp_path / "out" / "config.json").read_text() == before
    write(tmp_path / "out", recognizer(), real_clips=random_clips(SPEC, seed=2))
    assert (tmp_path / "out" / "config.json").read_text() != before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_differences_that_are_no_numbers_or_other_outputs_are_seen() -> None:
    graph, transform = RecognizerGraph(recognizer(), SPEC), TransformGraph(SPEC, ("video", "audio"))

    last = run_eager(transform, list(random_clips(SPEC).batches(1))[-1])["video"][0, 0, 0, 0, 0]

    def spoilt(inputs: Any) -> Any:
        outputs = run_eager(graph, inputs)
        if inputs["video"][0, 0, 0, 0, 0] == last:
            outputs["values"][0] = np.nan
        return outputs

    found = list(deviations(graph, transform, spoilt, lambda raw: run_eager(transform, raw), [random_clips(SPEC)]))
    assert {one.output for one in found if not one.within} == {"values"}
    with pytest.raises(ValueError, match="outputs"):
        largest_differences({"a": np.zeros(2)}, {"b": np.zeros(2)})


@pytest.mark.usefixtures("copied")
def test_int8_is_smaller_and_says_what_it_costs(
    tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write(tmp_path / "out", recognizer(), int8=True)
    assert (tmp_path / "out" / "model.onnx").stat().st_size < 0.75 * (exported / "model.onnx").stat().st_size
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["precision"] == "int8"
    costs = {cost.output: cost for cost in written.int8_costs}
    assert [row["output"] for row in config["check"]["int8"]] == list(costs)
    assert 1e-6 < costs["features"].largest < 0.3
    assert 0.98 < costs["features"].least_cosine < 1
    monkeypatch.setattr(quantizing, "LEAST_COSINE", 1.0)
    with pytest.raises(ValueError, match="int8 spoils this model"):
        write(tmp_path / "spoilt", recognizer(), int8=True)
    assert not (tmp_path / "spoilt").exists()


def test_program_of_one_modality_computes_what_the_backbone_computes(tmp_path: Path) -> None:
    backbone = recognizer().backbone
    write_folder(
        tmp_path / "out", backbone, spec=SPEC, modalities=("audio",), format="torch-export",
        real_clips=random_clips(SPEC, seed=1), provenance={},
    )  # fmt: skip
    program = torch.export.load(tmp_path / "out" / "model.pt2")
    assert not any("video" in name or "fusion" in name for name in program.state_dict)
    with zipfile.ZipFile(tmp_path / "out" / "model.pt2") as archive:
        assert not [name for name in archive.namelist() if b".py" in archive.read(name)]
    _, log_mel = clips(4)
    with torch.no_grad():
        found, expected = program.module()(log_mel=log_mel), backbone(None, log_mel)
    assert list(found) == ["pooled", "audio_tokens", "audio_layer_means"]
    torch.testing.assert_close(found["pooled"], expected.pooled, rtol=0, atol=1e-5)
    torch.testing.assert_close(found["audio_tokens"], expected.audio_tokens, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        found["audio_layer_means"].transpose(0, 1), expected.layer_means["audio"], rtol=0, atol=1e-5
    )


def test_the_page_shows_the_figures_of_the_benchmark() -> None:
    from benchmarks.formats import page

    folder = Path(__file__).parent.parent / "docs" / "benchmarks"
    assert page(json.loads((folder / "formats.json").read_text())) == (folder / "formats.md").read_text()


def test_files_name_no_path_of_this_machine(exported: Path) -> None:
    for name in ("model.onnx", "transform.onnx"):
        assert b".py" not in (exported / name).read_bytes()


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_graphs_of_one_modality_equal_the_models(modality: Any) -> None:
    model = recognizer(modalities=(modality,))
    video, log_mel = clips(2)
    inputs = {"video": video} if modality == "video" else {"log_mel": log_mel}
    with torch.no_grad():
        said, features = model(**inputs), model.backbone(**inputs)
        graphs = RecognizerGraph(model, SPEC)(**inputs), BackboneGraph(model.backbone, SPEC, (modality,))(**inputs)
    torch.testing.assert_close(graphs[0]["logits"], said.logits)
    torch.testing.assert_close(graphs[1]["pooled"], features.pooled)


def test_synthetic_clips_have_face_and_voice() -> None:
    found = synthetic_clips(SPEC)
    assert found.frames.shape == (3, 4, 32, 32, 3)
    assert found.frames.float().std() > 10
    assert found.waveform.float().std() > 100


def test_every_clip_is_in_a_batch() -> None:
    some = random_clips(SPEC)
    ends = [batch["sound_samples"].tolist() for batch in some.batches(2)]
    first, second, third = some.sound_samples.tolist()
    assert ends == [[first, second], [third, first]]
    assert [len(batch["frames"]) for batch in some.batches(4)] == [4]


def test_what_cannot_be_exported_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], exported: Path, film: Path
) -> None:
    source = tmp_path / "source"
    save_export(source, recognizer(modalities=("video",)), spec=SPEC, provenance={})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    make_clip(tmp_path / "mute.mp4", size=(48, 48), with_audio=False)

    def fails(*arguments: str) -> str:
        assert main(["export", *arguments]) == 2
        return capsys.readouterr().err

    out = str(tmp_path / "out")
    assert "exists and is no export" in fails(str(source), str(tmp_path / "mine"), "--format", "onnx")
    assert "is the checkpoint itself" in fails(str(source), str(source))
    assert "exists and is an export as safetensors" in fails(str(exported), str(source), "--format", "onnx")
    assert "exists and is an export as onnx" in fails(str(source), str(exported))
    assert "is an export as onnx, which the README.md in it says how to run" in fails(str(exported), out)
    assert "was trained with video, not with audio" in fails(
        str(source), out, "--format", "torch-export", "--modalities", "both", "--backbone-only"
    )
    assert "--int8 is for --format onnx" in fails(str(source), out, "--format", "torch-export", "--int8")
    assert "--with-decoder is for" in fails(str(source), out, "--format", "onnx", "--with-decoder")
    assert "--check-clips is for" in fails(str(source), out, "--check-clips", str(film))
    assert "nowhere.mp4" in fails(str(source), out, "--format", "onnx", "--check-clips", "nowhere.mp4")
    with pytest.raises(ValueError, match=r"mute.mp4 has no audio, which this model takes"):
        read_clips([media_item(tmp_path / "mute.mp4")], SPEC, ("video", "audio"))
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'hicmae[onnx]'" in fails(str(source), out, "--format", "onnx")
    assert not (tmp_path / "out").exists()


def test_safetensors_stays_the_default_and_keeps_what_the_model_was_trained_with(tmp_path: Path) -> None:
    save_export(tmp_path / "source", recognizer(modalities=("video",)), spec=SPEC, provenance={"recipe": "none"})
    assert main(["export", str(tmp_path / "source"), str(tmp_path / "out"), "--backbone-only"]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["kind"] == "backbone"
    assert config["modalities"] == ["video"]
    assert config["provenance"]["derived_from"]["provenance"] == {"recipe": "none"}
