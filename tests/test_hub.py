"""``from_pretrained``, ``save_pretrained`` and ``push_to_hub``, without a network."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelHubMixin
from huggingface_hub.errors import LocalEntryNotFoundError

import hicmae
from hicmae.backbone import Backbone
from hicmae.checkpoint import read_export, save_export
from hicmae.config import InputSpec
from hicmae.recognition import EmotionRecognizer
from tests.test_exported import PROVENANCE, SPEC, made_recognizer
from tests.tiny_model import TINY, clips, pretraining_batch, pretraining_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_export(tmp_path / "export", made_recognizer("video", "audio"), spec=SPEC, provenance=PROVENANCE)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_models_have_the_hubs_methods_and_the_old_names() -> None:
    assert issubclass(Backbone, ModelHubMixin)
    assert [name for name in Backbone(TINY).state_dict() if "hub" in name] == []


def test_a_folder_gives_the_model_and_its_transform(folder: Path) -> None:
    model = EmotionRecognizer.from_pretrained(folder)
    assert torch.equal(model(*clips(2)).logits, made_recognizer()(*clips(2)).logits)
    assert not model.training
    assert model.transform.spec == SPEC
    backbone = Backbone.from_pretrained(str(folder))
    assert torch.equal(backbone(*clips(2)).pooled, hicmae.load_backbone(folder)[0](*clips(2)).pooled)


def test_saving_what_was_loaded_writes_the_same_folder(folder: Path, tmp_path: Path) -> None:
    EmotionRecognizer.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    assert names(tmp_path / "copy") == names(folder)
    for name in names(folder):
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes(), name


def test_changed_weights_are_said_to_be_derived(folder: Path, tmp_path: Path) -> None:
    model = EmotionRecognizer.from_pretrained(folder)
    with torch.no_grad():
        model.head.classifier.bias += 1
    model.save_pretrained(tmp_path / "changed")
    derived = read_export(tmp_path / "changed").provenance
    assert list(derived) == ["derived_from"]
    assert derived["derived_from"] == {"sha256": read_export(folder).sha256, "provenance": PROVENANCE}
    assert "## Results" not in (tmp_path / "changed" / "README.md").read_text()
    again = EmotionRecognizer.from_pretrained(tmp_path / "changed")
    assert torch.equal(again.head.classifier.bias, model.head.classifier.bias)


def test_a_new_model_is_saved_over_an_older_export_and_over_nothing_else(folder: Path, tmp_path: Path) -> None:
    model = pretraining_model().eval()
    model.save_pretrained(folder)
    assert "decoder.safetensors" in names(folder)
    batch = pretraining_batch(1)
    assert torch.equal(hicmae.HiCMAE.from_pretrained(folder)(*batch).loss, model(*batch).loss)
    backbone = Backbone(TINY)
    backbone.spec = InputSpec.for_model(TINY, frame_interval_s=0.1)
    backbone.save_pretrained(folder)
    assert names(folder) == ["README.md", "config.json", "model.safetensors"]
    assert Backbone.from_pretrained(folder).transform.spec.frame_interval_s == 0.1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my own words")
    with pytest.raises(ValueError, match="is no exported folder"):
        backbone.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "README.md").read_text() == "my own words"


def test_a_repository_is_fetched_without_foreign_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def fetch(repository: str, **options: Any) -> str:
        calls.append((repository, options))
        return str(folder)

    monkeypatch.setattr("hicmae.hub.snapshot_download", fetch)
    model = EmotionRecognizer.from_pretrained("someone/hicmae-tiny", revision="v1", local_files_only=True)
    assert torch.equal(model(*clips(1)).logits, made_recognizer()(*clips(1)).logits)
    [(repository, options)] = calls
    assert (repository, options["revision"], options["local_files_only"]) == ("someone/hicmae-tiny", "v1", True)
    assert set(options["allow_patterns"]) == {"config.json", "model.safetensors", "decoder.safetensors", "README.md"}


def test_what_the_folder_decides_is_not_to_be_given(folder: Path) -> None:
    with pytest.raises(TypeError, match=r"from_pretrained got \['modalities'\]"):
        Backbone.from_pretrained(folder, modalities=("audio",))


def test_errors_are_those_of_the_folder(folder: Path) -> None:
    with pytest.raises(ValueError, match="holds no decoder"):
        hicmae.HiCMAE.from_pretrained(folder)
    for text in ("{", "[]"):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"config\.json is no export configuration"):
            Backbone.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        Backbone.from_pretrained(folder)
    with pytest.raises(FileNotFoundError, match=r"no exported folder at .*nothing"):
        Backbone.from_pretrained(folder / "nothing")


def test_a_name_that_is_no_folder_and_no_repository_says_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("cannot find the requested files in the local cache")

    monkeypatch.setattr("hicmae.hub.snapshot_download", offline)
    with pytest.raises(LocalEntryNotFoundError) as caught:
        Backbone.from_pretrained("exportd")
    assert caught.value.__notes__ == [
        "There is no folder exportd here, so it was taken for a repository of a model hub."
    ]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301
def test_a_copied_model_is_the_same_with_all_that_is_known_of_it(folder: Path, tmp_path: Path, copied: Any) -> None:
    model = EmotionRecognizer.from_pretrained(folder)
    other = copied(model)
    assert torch.equal(other(*clips(1)).logits, model(*clips(1)).logits)
    other.save_pretrained(tmp_path / "copy")
    for name in names(folder):
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes(), name


def test_pushing_uploads_an_exported_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hub:
        """What of ``HfApi`` a push uses."""

        def __init__(self, token: str | None = None) -> None:
            assert token == "secret"

        def create_repo(self, *, repo_id: str, private: bool | None, exist_ok: bool) -> Any:
            return type("Repository", (), {"repo_id": f"someone/{repo_id}"})

        def upload_folder(self, *, repo_id: str, folder_path: Path, revision: str, **more: Any) -> str:
            shutil.copytree(folder_path, tmp_path / "hub" / repo_id)
            return f"{repo_id}@{revision}"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    model = EmotionRecognizer.from_pretrained(folder)
    assert model.push_to_hub("hicmae-tiny", token="secret", branch="v2") == "someone/hicmae-tiny@v2"
    pushed = tmp_path / "hub" / "someone" / "hicmae-tiny"
    assert names(pushed) == names(folder)
    assert json.loads((pushed / "config.json").read_text())["kind"] == "recognizer"
    assert torch.equal(EmotionRecognizer.from_pretrained(pushed)(*clips(1)).logits, model(*clips(1)).logits)


def test_an_older_export_survives_a_save_that_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: (folder / name).read_bytes() for name in names(folder)}

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("hicmae.exported.write_weights", full)
    with pytest.raises(OSError, match="no space left"):
        Backbone(TINY).save_pretrained(folder)
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before
