"""``hicmae embed``: the table, what is bad in its input, and a kill."""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from hicmae.backbone import Backbone, Modality
from hicmae.checkpoint import load_backbone, save_export
from hicmae.cli import embed as embed_command
from hicmae.cli import main
from hicmae.config import InputSpec
from hicmae.export_config import seal
from hicmae.heads import Targets
from hicmae.inference import embedding_job
from hicmae.inference.embedder import Embedder, EmbedSettings
from hicmae.inference.embedding_files import table_schema
from hicmae.inference.journal import Journal, journal_folder
from hicmae.inference.record_file import RecordFile
from hicmae.recognition import EmotionRecognizer
from tests.corpus import clip_bytes, make_corpus
from tests.media_files import make_clip
from tests.tiny_model import TINY, shake

SPEC = InputSpec.for_model(TINY, audio_seconds=0.68)
BAD = (7, 12, 20, 33, 40)


def _export(folder: Path, modalities: Sequence[Modality] = ("video", "audio")) -> Path:
    torch.manual_seed(0)
    model = EmotionRecognizer(Backbone(TINY), Targets(classes=("a", "b")), modalities=modalities)
    shake(model)
    return save_export(folder, model, spec=SPEC, provenance={"job": "test"})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and 50 clips, 5 of them bad."""
    folder = tmp_path_factory.mktemp("embed")
    _export(folder / "model")
    make_corpus(folder / "clips", 50, corrupt=BAD[:3], text=BAD[3:4])
    (folder / "clips" / "clip040.mp4").write_bytes(b"")
    return folder


def _embed(place: Path, out: Path | str, *options: str, paths: Sequence[str] = ("clips",), model: str = "model") -> int:
    where = [str(place / path) for path in paths]
    return main(
        ["embed", *where, "--model", str(place / model), "-o", str(out), "--device", "cpu", "--workers", "1", *options]
    )


def test_fifty_clips_of_which_five_are_bad(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.parquet"
    assert _embed(place, out, "--middle") == 1
    table = pd.read_parquet(out)
    assert list(table.name) == [str(place / "clips" / f"clip{i:03d}.mp4") for i in range(50) if i not in BAD]
    with (tmp_path / "out.parquet.failures.csv").open(newline="") as file:
        failures = [(Path(row["name"]).stem, row["reason"]) for row in csv.DictReader(file)]
    assert failures == [("clip007", "truncated"), ("clip012", "truncated"), ("clip020", "truncated"),
                        ("clip033", "unknown_format"), ("clip040", "empty_file")]  # fmt: skip
    said = capsys.readouterr().out
    assert "45 windows of 45 files" in said
    assert "5 of 50 files failed (3 truncated, 1 empty_file, 1 unknown_format)" in said
    assert not journal_folder(out).exists()
    # Again: nothing is left to do, and the status is the same.
    before = out.stat()
    assert _embed(place, out, "--middle") == 1
    assert "all of it was computed before" in capsys.readouterr().out
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_killed_and_repeated_it_gives_the_same_file_and_computes_nothing_twice(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, whole = tmp_path / "killed.parquet", tmp_path / "whole.parquet"
    command = [sys.executable, "-m", "hicmae", "embed", str(place / "clips"), "--model", str(place / "model"),
               "-o", str(killed), "--device", "cpu", "--workers", "2"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    records = journal_folder(killed) / "records"
    deadline = time.monotonic() + 400
    while not records.exists() or records.read_bytes().count(b"HCMJ") < 10:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    journal = Journal(journal_folder(killed))
    names = [str(path) for path in sorted((place / "clips").glob("*.mp4"))]
    done = [name for name in names if name in journal.names()]
    journal.close()
    assert 10 <= len(done) < 50
    assert not killed.exists()

    computed: list[str] = []
    parts = Embedder.parts
    monkeypatch.setattr(Embedder, "parts", lambda self, item, *a: computed.append(item.name) or parts(self, item, *a))
    assert _embed(place, killed) == 1
    assert sorted(computed + done) == names
    assert _embed(place, whole) == 1
    assert killed.read_bytes() == whole.read_bytes()
    tables = [tmp_path / f"{name}.parquet.failures.csv" for name in ("killed", "whole")]
    assert tables[0].read_bytes() == tables[1].read_bytes()


def test_a_long_file_goes_on_where_it_was(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, options = "clips/clip001.mp4", ("--hop-s", "0.1", "--batch-size", "4")
    assert _embed(place, tmp_path / "whole.parquet", *options, paths=[clip]) == 0
    rows = len(pd.read_parquet(tmp_path / "whole.parquet"))
    monkeypatch.setattr(embedding_job, "LONG", 20)
    seen: list[int] = []
    features = Embedder._features

    def interrupted(self: Embedder, batch: Any) -> Any:
        if sum(seen) == 12 and not resumed:
            raise KeyboardInterrupt
        seen.append(len(batch))
        return features(self, batch)

    monkeypatch.setattr(Embedder, "_features", interrupted)
    for resumed in (False, True):
        assert _embed(place, tmp_path / "out.parquet", *options, paths=[clip]) == (0 if resumed else 130)
        if not resumed:  # on GPUs the last digits would differ
            assert json.loads((journal_folder(tmp_path / "out.parquet") / "job.json").read_text())["device"] == "cpu"
    assert sum(seen) == rows > 24
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_features_are_the_models_own(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    clip = "clips/clip000.mp4"
    assert _embed(place, out, "--features", "pooled,video,audio,fused", "--layers", "all", paths=[clip]) == 0
    table = pd.read_parquet(out)
    backbone, transform = load_backbone(place / "model")
    length = 2.8 - SPEC.window_seconds
    for row in table.itertuples():
        with torch.inference_mode():
            features = backbone(**transform(place / clip, position=min(1.0, row.window * SPEC.window_seconds / length)))
        np.testing.assert_allclose(row.pooled, features.pooled[0], atol=1e-5)
        np.testing.assert_allclose(row.fused_audio, features.fused_audio[0].mean(dim=0), atol=1e-5)
        for layer in range(TINY.depth):
            mean = features.layer_means["video"][layer, 0]
            np.testing.assert_allclose(getattr(row, f"video_layer_{layer}"), mean, atol=1e-5)
    np.testing.assert_array_equal(np.stack(table.pooled)[:, : TINY.width], np.stack(table.video))
    about = json.loads(pq.read_schema(out).metadata[b"hicmae"])
    weights = json.loads((place / "model/config.json").read_text())["sha256"]["model.safetensors"]
    assert about["settings"]["weights_sha256"] == weights
    assert about["model"]["provenance"] == {"job": "test"}
    assert about["columns"]["pooled"] == 4 * TINY.width


@pytest.fixture(scope="module")
def odd(place: Path) -> Path:
    """Clips that lack something, and models of one modality."""
    make_clip(place / "silent.mp4", seconds=2.0, with_audio=False, size=(48, 48))
    make_clip(place / "short.mp4", seconds=0.4, size=(48, 48), rate=8000)
    (place / "sound.wav").write_bytes(clip_bytes(sound_only=True))
    for modality in ("video", "audio"):
        _export(place / modality, [modality])  # type: ignore[list-item]
    return place


def test_what_a_file_lacks_is_null(odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = ["silent.mp4", "sound.wav", "short.mp4"]
    assert _embed(odd, tmp_path / "a.parquet", "--features", "pooled,video,fused", "--middle", paths=paths) == 0
    assert "1 of them with picture alone, 1 of them with sound alone" in capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "a.parquet")
    assert list(table.modalities) == ["video", "audio", "video+audio"]
    assert list(table.padded) == [False, False, True]
    assert list(table.video.isna()) == [False, True, False]
    assert list(table.fused_video.isna()) == [True, True, False]
    silent = table.pooled[0].reshape(4, TINY.width)
    assert np.isfinite(silent[0]).all()
    assert np.isnan(silent[1:]).all()
    assert _embed(odd, tmp_path / "a.npz", "--features", "pooled,video,fused", "--middle", paths=paths) == 0
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["pooled"], np.stack(table.pooled))
        assert list(arrays["name"]) == list(table.name)
        assert np.isnan(arrays["video"][1]).all()
        assert (arrays["video"].dtype, arrays["window"].dtype) == (np.float32, np.int32)
        assert json.loads(str(arrays["about"]))["windows"] == {"video": 1, "audio": 1, "video+audio": 1}


@pytest.mark.parametrize(
    ("model", "fails", "reason"),
    [("video", "sound.wav", "no_video_stream"), ("audio", "silent.mp4", "no_audio_stream")],
)
def test_a_model_of_one_modality(model: str, fails: str, reason: str, odd: Path, tmp_path: Path) -> None:
    paths = ["silent.mp4", "sound.wav", "short.mp4"]
    assert _embed(odd, tmp_path / "a.parquet", "--middle", paths=paths, model=model) == 1
    table = pd.read_parquet(tmp_path / "a.parquet")
    assert [Path(name).name for name in table.name] == [path for path in paths if path != fails]
    assert set(table.modalities) == {model}
    assert all(len(row) == TINY.width for row in table.pooled)
    assert reason in (tmp_path / "a.parquet.failures.csv").read_text()


def _bad_input(place: Path, tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    out = str(tmp_path / "out.parquet")
    clip, model = str(place / "short.mp4"), str(place / "model")
    (tmp_path / "taken.parquet").write_bytes(b"someone's")
    (tmp_path / "file").write_bytes(b"")
    return {
        "path": ([str(tmp_path / "gone.mp4"), "--model", model, "-o", out], "no file or folder"),
        "suffix": ([clip, "--model", model, "-o", "out.csv"], "must end in .parquet or .npz"),
        "model": ([clip, "--model", str(tmp_path / "none"), "-o", out], "no exported folder at"),
        "features": ([clip, "--model", model, "-o", out, "--features", "mean"], "choose some of pooled, video"),
        "fused": ([clip, "--model", str(place / "video"), "-o", out, "--features", "fused"], "with video alone"),
        "layers": ([clip, "--model", model, "-o", out, "--layers", "4"], "layers 0 to 3"),
        "hop": ([clip, "--model", model, "-o", out, "--hop-s", "-1"], "hop_s=-1.0 must be"),
        "workers": ([clip, "--model", model, "-o", out, "--workers", "0"], "workers=0 must be"),
        "device": ([clip, "--model", model, "-o", out, "--device", "cuda:9"], "give cpu or auto"),
        "foreign": ([clip, "--model", model, "-o", str(tmp_path / "taken.parquet")], "is no table of features"),
        "unwritable": ([clip, "--model", model, "-o", str(tmp_path / "file" / "out.parquet")], "file"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "case",
    ["path", "suffix", "model", "features", "fused", "layers", "hop", "workers", "device", "foreign", "unwritable"],
)
def test_wrong_use_is_said_before_anything_is_computed(
    case: str, odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, complaint = _bad_input(odd, tmp_path)[case]
    monkeypatch.setattr(Embedder, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    assert main(["embed", *arguments]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out.parquet").exists()


def test_a_table_of_other_settings_or_files_is_not_replaced(odd: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out.parquet"
    assert _embed(odd, out, paths=["short.mp4"]) == 0
    assert _embed(odd, out, "--middle", paths=["short.mp4"]) == 2
    assert "was made with other settings (middle: False there, True now)" in capsys.readouterr().err
    assert _embed(odd, out, paths=["short.mp4", "silent.mp4"]) == 2
    assert "was made of other files" in capsys.readouterr().err
    os.utime(odd / "short.mp4", (1, 1))
    assert _embed(odd, out, paths=["short.mp4"]) == 2


def test_weights_that_are_given_another_input_are_another_model(odd: Path, tmp_path: Path, capsys: Any) -> None:
    model, out = _export(tmp_path / "model"), tmp_path / "out.parquet"
    command = ["embed", str(odd / "short.mp4"), "--model", str(model), "-o", str(out)]
    assert main(command) == 0
    config = json.loads((model / "config.json").read_text())
    config["input"]["log_mel_mean"] += 1.0
    seal(config)  # as an export with other settings would be
    (model / "config.json").write_text(json.dumps(config))
    assert main(command) == 2
    assert "was made with other settings (input_sha256: " in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a disk that is always full")
def test_a_full_disk_is_said_in_a_line(odd: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    start = RecordFile.__init__

    def start_full(self: RecordFile, path: Path) -> None:
        start(self, path)
        self._file = Path("/dev/full").open("wb")  # noqa: SIM115

    monkeypatch.setattr(RecordFile, "__init__", start_full)
    assert _embed(odd, tmp_path / "o.npz", paths=["short.mp4"]) == 2
    assert "No space left on device: '/dev/full'" in capsys.readouterr().err


def test_an_altered_model_is_refused(odd: Path, tmp_path: Path, capsys: Any) -> None:
    weights = _export(tmp_path / "model") / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert (
        main(["embed", str(odd / "short.mp4"), "--model", str(tmp_path / "model"), "-o", str(tmp_path / "o.npz")]) == 2
    )
    assert "was altered or cut short" in capsys.readouterr().err


def test_features_that_are_not_finite_are_refused(odd: Path) -> None:
    backbone = Backbone(TINY)
    with torch.no_grad():
        backbone.video_layer_weights[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        Embedder(backbone, SPEC, EmbedSettings()).embed(odd / "short.mp4")


def test_the_page_tells_every_option_and_column() -> None:
    page = (Path(__file__).parents[1] / "docs" / "embed.md").read_text()
    parser = argparse.ArgumentParser(add_help=False)
    embed_command.add_arguments(parser)
    options = {name for action in parser._actions for name in action.option_strings}
    columns = EmbedSettings(features=("pooled", "video", "audio", "fused"), layers=(3,)).widths(
        TINY, ("video", "audio")
    )  # fmt: skip
    names = set(table_schema(columns).names) - {"audio_layer_3"}
    assert [name for name in sorted(options | names) if name not in page] == []
