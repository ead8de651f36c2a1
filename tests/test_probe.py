"""The probe of frozen features: features, chosen settings, what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from finetune.__main__ import main
from finetune.data import FinetuneData
from finetune.module import FinetuneModule
from finetune.probe import extract
from hicmae.backbone import Backbone
from hicmae.data.splits import TEST
from hicmae.feature_parts import named_features
from hicmae.metrics import dimensional_scores
from hicmae.probing import probe_classes, probe_dimensions
from hicmae.transform import ClipTransform
from tests.corpus import make_corpus
from tests.test_finetune import arguments, data, module
from tests.tiny_model import TINY, clips

# ---------------------------------------------------------------- models on features


def blobs(count: int, *, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 6) of three classes that differ in direction, not in length."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    x = np.eye(6)[labels] * 4 + rng.normal(size=(count, 6)) * noise
    return x * rng.uniform(0.2, 5, size=(count, 1)), labels


@pytest.mark.parametrize("method", ["knn", "linear"])
def test_classes_are_found_and_the_setting_is_the_best_on_validation(method: Any) -> None:
    train, val, test = blobs(90, seed=0), blobs(60, seed=1), blobs(90, seed=2)
    fitted = probe_classes(train, val, classes=4, method=method)
    probabilities = fitted.predict(test[0])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities[:, 3] == 0).all()  # a class without training clips
    accuracy = (probabilities.argmax(axis=1) == test[1]).mean()
    assert accuracy > 0.9
    # Where many labels are wrong, many neighbours are better than few.
    rng = np.random.default_rng(3)
    noisy = np.where(rng.random(90) < 0.4, rng.integers(3, size=90), train[1])
    many = probe_classes((train[0], noisy), val, classes=4, method="knn").setting
    assert int(many.removeprefix("k=")) >= 10
    with pytest.raises(ValueError, match="all of one class"):
        probe_classes((train[0], np.zeros(90, dtype=int)), val, classes=4, method=method)


def test_cosine_neighbours_ignore_length() -> None:
    train, val = blobs(90, seed=0), blobs(60, seed=1)
    fitted = probe_classes(train, val, classes=3, method="knn")
    np.testing.assert_array_equal(fitted.predict(val[0]), fitted.predict(val[0] * 7))


def test_the_linear_model_is_a_logistic_regression_on_standardised_features() -> None:
    train, val = blobs(90, seed=0, noise=3.0), blobs(60, seed=1, noise=3.0)
    fitted = probe_classes(train, val, classes=3, method="linear")
    scaler = StandardScaler().fit(train[0])
    scores = {}
    for strength in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        model = LogisticRegression(C=strength, max_iter=2000).fit(scaler.transform(train[0]), train[1])
        guess = model.predict(scaler.transform(val[0]))
        scores[f"C={strength:g}"] = np.mean([(guess[val[1] == c] == c).mean() for c in range(3)])
    assert scores[fitted.setting] == max(scores.values())


def test_values_are_found_by_ridge_and_by_neighbours() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5))
    y = x @ rng.normal(size=(5, 2)) + rng.normal(size=(300, 2)) * 0.1
    train, val, test = ((x[part], y[part]) for part in (slice(150), slice(150, 225), slice(225, 300)))
    linear = probe_dimensions(train, val, method="linear")
    scaler = StandardScaler().fit(train[0])
    expected = Ridge(alpha=float(linear.setting.removeprefix("alpha="))).fit(scaler.transform(train[0]), train[1])
    np.testing.assert_allclose(linear.predict(test[0]), expected.predict(scaler.transform(test[0])))
    for method, least in (("linear", 0.98), ("knn", 0.6)):
        values = probe_dimensions(train, val, method=method).predict(test[0])  # type: ignore[arg-type]
        assert min(dimensional_scores(test[1][:, i], values[:, i]).ccc for i in range(2)) > least
    one = probe_dimensions((train[0], train[1][:, :1]), (val[0], val[1][:, :1]), method="linear")
    assert one.predict(test[0]).shape == (75, 1)


# ---------------------------------------------------------------- features


@pytest.mark.parametrize("modalities", [("video", "audio"), ("audio",)])
def test_features_are_those_of_the_backbone_under_their_names(modalities: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    backbone = Backbone(TINY).eval()
    video, log_mel = clips(2)
    features = backbone(video if "video" in modalities else None, log_mel)
    named = named_features(features, layers=True)
    parts = [*modalities, *(f"fused_{name}" for name in modalities if len(modalities) == 2)]
    assert list(named) == parts + [f"{m}_layer{number}" for m in modalities for number in (1, 2, 3, 4)]
    assert torch.equal(torch.cat([named[name] for name in parts], dim=1), features.pooled)
    assert torch.equal(named["audio_layer2"], features.layer_means["audio"][1])
    if "video" in modalities:
        assert features.fused_audio is not None
        torch.testing.assert_close(named["fused_audio"], features.fused_audio.mean(dim=1))
    assert list(named_features(features, layers=False)) == parts


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("probe") / "corpus", 24, corrupt=[7]).path


def test_a_clips_features_are_the_means_over_its_windows(manifest: Path) -> None:
    tuned: FinetuneModule = module()
    prepared: FinetuneData = data(manifest, max_skip_fraction=0.5)
    assert prepared.splits is not None
    test = prepared.splits.test
    assert test is not None
    found, columns = extract(tuned, prepared, TEST, test, device=torch.device("cpu"), layers=False)
    assert {test.info(int(number)).clip_id for number in found.clips.index} == {
        f"clip{n:03d}" for n in (3, 11, 15, 19, 23)
    }
    assert columns["all"] == [*columns["video"], *columns["audio"], *columns["fused"]] == list(range(4 * 32))
    transform = ClipTransform(tuned.spec)
    clip = test.read(int(found.clips.index[0]))
    with torch.inference_mode():
        alone = []
        for position in (0.0, 1.0):
            inputs = transform(clip.video, position)
            alone.append(tuned.model.backbone(inputs["video"], inputs["log_mel"]).pooled[0])
    np.testing.assert_allclose(
        found.clips.outputs[0, columns["all"]], torch.stack(alone).mean(dim=0).numpy(), atol=1e-5
    )


# ---------------------------------------------------------------- the job


def test_the_job_writes_scores_and_a_table_and_touches_no_weight(manifest: Path, tmp_path: Path) -> None:
    options = arguments(manifest, tmp_path, "--layers=false", "--data.label_fraction=0.75", command="probe")
    assert main(options) == 0
    written = json.loads((tmp_path / "probe" / "probe.json").read_text())
    features = ["video", "audio", "fused_video", "fused_audio", "fused", "all"]
    assert [(r["feature"], r["task"], r["method"]) for r in written["rows"]] == [
        (name, task, method) for name in features for task in ("emotion", "valence") for method in ("knn", "linear")
    ]
    for row in written["rows"]:
        assert row["test"]["clips"] == 6
        assert row["test"]["clips_not_decoded"] == 1
        names = ("uar", "war") if row["task"] == "emotion" else ("ccc", "pcc")
        for part in ("val", "test"):
            assert all(name in row[part] for name in names)
    assert written["about"]["splits"]["test"] == {"clips": 6, "subjects": 1}
    table = (tmp_path / "probe" / "probe.md").read_text()
    kept, labels = written["about"]["splits"]["train"]["clips"], written["about"]["labelled_clips"]
    assert kept < labels
    assert f"Trained with {kept} of {labels} labels (label_fraction 0.75). Neighbours" in table
    best = next(r for r in written["rows"] if (r["feature"], r["task"], r["method"]) == ("all", "emotion", "linear"))
    assert f"| all | 128 | linear | {best['setting']} | {100 * best['val']['uar']:.2f} |" in table
    assert f"{100 * best['test']['war']:.2f}" in table
    assert not (tmp_path / "checkpoints").exists()
    before = (tmp_path / "probe" / "probe.json").read_text()
    assert main(options) == 0
    assert (tmp_path / "probe" / "probe.json").read_text() == before
    assert main([*options, f"--model.init={tmp_path / 'gone'}", "--model.preset=null"]) == 2
