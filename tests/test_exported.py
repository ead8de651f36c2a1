"""Exported folders: what they hold, what is said of them, and what becomes of damaged, older and newer ones."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import hicmae
from hicmae.backbone import Backbone
from hicmae.checkpoint import read_export, read_pretraining, read_recognizer, save_export
from hicmae.cli import main
from hicmae.config import InputSpec, ModelConfig
from hicmae.export_config import FIELDS, SCHEMA, SINCE_3, seal
from hicmae.heads import Targets
from hicmae.pretraining import HiCMAE, Objective
from hicmae.recognition import EmotionRecognizer
from tests.tiny_model import TINY, clips, pretraining_batch, pretraining_model, shake

SPEC = InputSpec.for_model(TINY, frame_interval_s=0.2, audio_seconds=0.66)
TARGETS = Targets(classes=("calm", "angry"), dimensions=("valence", "arousal"), ranges={"valence": (-1, 1)})
PROVENANCE = {
    "job": "finetune", "data": {"name": "clips.csv", "index": "c0ffee", "clips": 12}, "steps": 7,
    "init": {"name": "export", "sha256": "ab12", "provenance": {"job": "pretrain", "data": {"index": "f00d"}}},
    "recipe": {"trainer": {"max_epochs": 3}}, "metrics": {"test/uar": 0.51234, "val/uar": 0.6},
    "intervals": {"level": 0.95, "method": "percentile bootstrap", "over": "subjects", "groups": 9, "resamples": 2000,
                  "bounds": {"test/uar": [0.41, 0.62]}},
}  # fmt: skip


def made_recognizer(*modalities: Any) -> EmotionRecognizer:
    torch.manual_seed(0)
    model = EmotionRecognizer(Backbone(TINY), TARGETS, modalities=modalities or ("video", "audio"))
    shake(model)
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_export(tmp_path / "export", made_recognizer(), spec=SPEC, provenance=PROVENANCE)


def settings_of(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return settings


def rewrite(folder: Path, **changes: Any) -> None:
    settings = settings_of(folder) | changes
    if "digest" in settings:
        seal(settings)
    (folder / "config.json").write_text(json.dumps(settings))


# ---------------------------------------------------------------- what is written


def test_a_recogniser_comes_back_with_all_that_is_known_of_it(folder: Path) -> None:
    model, transform = hicmae.load_recognizer(folder)
    video, log_mel = clips(2)
    expected = made_recognizer()(video, log_mel)
    found = model(video, log_mel)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.values, expected.values)
    assert transform.spec == SPEC
    assert model.targets == TARGETS
    assert model.targets.ranges == {"valence": (-1.0, 1.0)}
    assert not model.training
    backbone, _ = hicmae.load_backbone(folder)
    assert torch.equal(backbone(video, log_mel).pooled, made_recognizer().backbone(video, log_mel).pooled)
    export = read_export(folder)
    assert (export.kind, export.config, export.spec, export.provenance) == ("recognizer", TINY, SPEC, PROVENANCE)


def test_every_file_has_its_sha256_and_the_decoder_is_left_out(folder: Path) -> None:
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    del digests["config.json"]
    assert set(digests) == {"model.safetensors", "README.md"}
    assert settings_of(folder)["sha256"] == digests == read_export(folder).sha256


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_one_modality_is_said_and_the_other_refused(tmp_path: Path, modality: str) -> None:
    folder = save_export(tmp_path / "export", made_recognizer(modality), spec=SPEC, provenance={})
    assert settings_of(folder)["modalities"] == [modality]
    backbone, transform = hicmae.load_backbone(folder)
    assert backbone.modalities == transform.modalities == (modality,)
    video, log_mel = clips(1)
    other = "audio" if modality == "video" else "video"
    for call in (backbone, backbone.get_intermediate_layers):
        with pytest.raises(ValueError, match=f"{other} was given, but this backbone was trained with {modality} alone"):
            call(video, log_mel)
    assert hicmae.load_recognizer(folder)[0](video, log_mel).logits.shape == (1, 2)  # it takes what it was built for


def test_decoders_go_along_when_asked_for(tmp_path: Path) -> None:
    model = pretraining_model(temperature=0.2, frame_difference=False).eval()
    folder = save_export(tmp_path / "export", model.backbone, spec=SPEC, provenance={}, decoder=model)
    assert not {name for name in load_file(folder / "decoder.safetensors") if name.startswith("backbone.")}
    loaded, transform = hicmae.load_pretraining(folder)
    assert loaded.objective == Objective(temperature=0.2, frame_difference=False)
    assert transform.spec == SPEC
    batch = pretraining_batch(2)
    assert torch.equal(loaded(*batch).loss, model(*batch).loss)
    assert torch.equal(hicmae.load_backbone(folder)[0](*clips(1)).pooled, model.backbone(*clips(1)).pooled)
    assert read_pretraining(folder) is not None
    assert read_recognizer(folder) is None
    (folder / "decoder.safetensors").write_bytes((folder / "decoder.safetensors").read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"decoder\.safetensors was altered or cut short"):
        hicmae.load_backbone(folder)


def test_without_decoders_the_way_to_them_is_said(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no decoder.*--with-decoder"):
        hicmae.load_pretraining(folder)
    assert read_pretraining(folder) is None
    with pytest.raises(ValueError, match="with the backbone that it was trained with alone"):
        save_export(folder, Backbone(TINY), spec=SPEC, provenance={}, decoder=pretraining_model())


def test_an_export_is_replaced_and_anything_else_is_not(folder: Path, tmp_path: Path) -> None:
    save_export(folder, Backbone(TINY), spec=SPEC, provenance={})
    assert read_export(folder).kind == "backbone"
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("...")
    with pytest.raises(ValueError, match="mine exists and is no exported folder"):
        save_export(tmp_path / "mine", Backbone(TINY), spec=SPEC, provenance={})


# ---------------------------------------------------------------- the description and the model card


def documented() -> dict[str, str]:
    """Types by field, from the tables of docs/export.md."""
    text = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
    types = "(?:object|array|string|integer|number|boolean)(?:, null)?"
    return dict(re.findall(rf"^\| `([a-z0-9_.]+)` \| ({types}) \|", text, flags=re.MULTILINE))


def test_the_written_description_has_every_field_and_its_type(folder: Path, tmp_path: Path) -> None:
    model = pretraining_model()
    other = save_export(tmp_path / "with_decoder", model.backbone, spec=SPEC, provenance={}, decoder=model)
    found = settings_of(folder) | {"decoder": settings_of(other)["decoder"]}
    written = documented()
    nested = {"model": ModelConfig, "input": InputSpec, "decoder.objective": Objective}
    expected = set(FIELDS) | {f"targets.{name}" for name in found["targets"]} | {"decoder.objective"}
    expected |= {f"{name}.{field.name}" for name, cls in nested.items() for field in fields(cls)}
    assert {name for name in written if not name.startswith("provenance.")} == expected
    types = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
             "null": type(None)}  # fmt: skip
    for name, names in written.items():
        if not name.startswith("provenance."):
            value: Any = found
            for part in name.split("."):
                value = value[part]
            kinds = tuple(types[one] for one in names.split(", "))
            assert any(isinstance(value, kind) for kind in kinds), f"{name} is {value!r}, described as {names}"


def test_the_model_card_is_one_that_hubs_read(folder: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "hicmae"
    assert card.data.pipeline_tag == "video-classification"
    assert {"emotion-recognition", "video", "audio"} <= set(card.data.tags)
    for text in ('hicmae.load_recognizer("FOLDER")', "| metric | value | 95% interval |",
                 "| test/uar | 0.5123 | 0.4100 to 0.6200 |", "| val/uar | 0.6000 |  |", "over 9 subjects",
                 "- dimension: valence, labels from -1 to 1\n- dimension: arousal\n", "acted or perceived", "Consent",
                 "Bias", "- data: name clips.csv, index c0ffee, clips 12",
                 "- init: name export, sha256 ab12; made by:\n  - job: pretrain\n  - data: index f00d",
                 '"max_epochs": 3'):  # fmt: skip
        assert text in card.content, text


def test_the_cards_lines_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code is not None
    inputs = dict(zip(("video", "log_mel"), clips(1), strict=True))
    monkeypatch.setattr("hicmae.transform.ClipTransform.__call__", lambda self, path: inputs)
    names: dict[str, Any] = {}
    exec(code[1].replace("FOLDER", str(folder)), names)
    assert names["recognition"].logits.shape == (1, 2)


# ---------------------------------------------------------------- what is damaged, altered, or of another time


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"export has no {re.escape(name)}.*copied incompletely"):
        hicmae.load_backbone(folder)


def test_no_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no exported folder at .*nothing"):
        hicmae.load_backbone(tmp_path / "nothing")


def test_altered_weights_are_refused_by_name(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["head.classifier.bias"] += 1
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors was altered or cut short.*copy the folder again"):
        hicmae.load_recognizer(folder)


def test_an_edited_card_and_foreign_files_are_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        hicmae.load_backbone(folder)
        assert not caplog.messages
        (folder / "README.md").write_text("# My model")
        (folder / "pytorch_model.bin").write_bytes(b"")
        (folder / ".gitattributes").write_text("")
        hicmae.load_backbone(folder)
    assert [message.replace(str(folder), "export") for message in caplog.messages] == [
        "export/README.md was edited after the export",
        "export holds pytorch_model.bin, which is not of the export and is not read",
    ]


def test_a_newer_schema_says_how_to_go_on(folder: Path) -> None:
    rewrite(folder, schema=SCHEMA + 1, hicmae="9.1.0", unheard_of={})
    with pytest.raises(ValueError, match=rf"schema {SCHEMA + 1}.*reads up to {SCHEMA}; update hicmae .*by 9\.1\.0"):
        read_export(folder)


def test_a_folder_of_schema_1_loads(folder: Path, tmp_path: Path) -> None:
    """As the first versions wrote it."""
    model = made_recognizer()
    old = tmp_path / "old"
    old.mkdir()
    save_file(dict(model.state_dict()), old / "model.safetensors")
    digest = hashlib.sha256((old / "model.safetensors").read_bytes()).hexdigest()
    (old / "config.json").write_text(json.dumps({
        "schema": 1, "hicmae": "0.1.0", "kind": "recognizer", "model": TINY.to_dict(), "input": SPEC.to_dict(),
        "modalities": ["video", "audio"], "classes": ["calm", "angry"], "dimensions": ["valence", "arousal"],
        "parameters": 1, "sha256": {"model.safetensors": digest},
        "provenance": {"job": "finetune", "data": {"name": "/home/ann/clips.csv"}, "init": "/home/ann/export"},
    }))  # fmt: skip
    (old / "README.md").write_text("# HiCMAE recognizer\n")
    found, transform = hicmae.load_recognizer(old)
    assert torch.equal(found(*clips(1)).logits, model(*clips(1)).logits)
    assert (found.targets, transform.spec) == (TARGETS, SPEC)
    assert read_export(old).objective is None
    assert read_export(old).provenance == {"job": "finetune", "data": {"name": "clips.csv"}, "init": {"name": "export"}}
    assert main(["export", str(old), str(tmp_path / "new")]) == 0
    assert settings_of(tmp_path / "new")["schema"] == SCHEMA
    assert torch.equal(hicmae.load_recognizer(tmp_path / "new")[0](*clips(1)).logits, found(*clips(1)).logits)
    settings = settings_of(old)
    del settings["classes"]
    (old / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="no export configuration: it has no 'classes'"):
        read_export(old)


def test_a_folder_of_schema_2_loads_as_the_papers_model(tmp_path: Path) -> None:
    """It had no switches; what it says of itself is held against its digest as it stands."""
    model = pretraining_model(temperature=0.2).eval()
    folder = save_export(tmp_path / "old", model.backbone, spec=SPEC, provenance={}, decoder=model)
    settings = settings_of(folder)
    for name in SINCE_3["model"]:
        del settings["model"][name]
    for name in SINCE_3["objective"]:
        del settings["decoder"]["objective"][name]
    rewrite(folder, **(settings | {"schema": 2}))
    assert read_export(folder).config == TINY
    loaded = hicmae.load_pretraining(folder)[0]
    assert loaded.objective == Objective(temperature=0.2)
    assert torch.equal(loaded(*pretraining_batch(2)).loss, model(*pretraining_batch(2)).loss)
    settings["model"]["depth"] += 1
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"no model\.skip_connections; no model\.feature_fusion"):
        read_export(folder)  # it says schema 3 here: there nothing may be missing


@pytest.mark.parametrize("modalities", [("video", "audio"), ("video",)])
def test_a_variant_comes_back_as_it_was(tmp_path: Path, modalities: Any) -> None:
    config = replace(TINY, skip_connections=False, decoder_depth=2, feature_fusion="last", fusion_direction="to_audio")
    model = HiCMAE(config, objective=Objective(contrast="top"), spec=SPEC, modalities=modalities).eval()
    folder = save_export(tmp_path / "export", model.backbone, spec=SPEC, provenance={}, decoder=model)
    settings = settings_of(folder)
    assert (settings["schema"], settings["modalities"]) == (3, list(modalities))
    assert {name: settings["model"][name] for name in SINCE_3["model"]} == config.switched
    loaded, transform = hicmae.load_pretraining(folder)
    assert (loaded.config, loaded.objective.contrast) == (config, "top")
    assert loaded.modalities == transform.modalities == modalities
    assert torch.equal(loaded(*pretraining_batch(2)).loss, model(*pretraining_batch(2)).loss)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": TINY.to_dict() | {"fusion_direction": "up"}}, "fusion_direction='up' must be one of both, to_video"),
        ({"model": TINY.to_dict() | {"skip_connections": 1}}, r"it has model\.skip_connections 1"),
        ({"schema": "2"}, "no number under 'schema'"),
        ({"schema": None}, "no number under 'schema'"),
        ({"surprise": 1}, "has 'surprise', which this schema has not"),
        ({"input": [1]}, "has list under 'input'"),
        ({"model": TINY.to_dict() | {"widht": 3}}, "unknown ModelConfig fields .'widht'."),
        ({"modalities": ["smell"]}, "must be video, audio or both"),
        ({"targets": {"labels": []}}, "labels"),
        ({"targets": None}, "a recognizer without targets"),
        ({"kind": "encoder"}, "kind is 'encoder', which is none of backbone, recognizer"),
        ({"decoder": {"objective": asdict(Objective())}}, r"no sha256 of decoder\.safetensors"),
        ({"model": TINY.to_dict() | {"heads": 1.0}}, r"it has model\.heads 1\.0"),
        ({"model": TINY.to_dict() | {"mlp_ratio": -1}}, "mlp_ratio=-1 must be positive"),
        ({"input": SPEC.to_dict() | {"log_mel_mean": "x"}}, r"it has input\.log_mel_mean 'x'"),
        ({"input": SPEC.to_dict() | {"log_mel_std": float("nan")}}, r"it has input\.log_mel_std nan"),
        ({"input": SPEC.to_dict() | {"num_frames": 16}}, r"model\.num_frames is 4, input\.num_frames 16"),
        ({"input": SPEC.to_dict() | {"image_mean": [0.5]}}, "not of three colours"),
        ({"input": {k: v for k, v in SPEC.to_dict().items() if k != "image_std"}}, r"it has no input\.image_std"),
        ({"decoder": {"objective": asdict(Objective()) | {"frame_difference": 1}}}, "objective.frame_difference 1"),
        ({"sha256": {"model.safetensors": 5}}, r"it has sha256\.model\.safetensors 5"),
        ({"sha256": {"model.safetensors": "0", "../../secret": "0"}}, r"\.\./\.\./secret is no name of a file"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    rewrite(folder, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        read_export(folder)
    assert str(folder / "config.json") in str(caught.value)


@pytest.mark.parametrize("where", ["classes", "heads", "metrics"])
def test_a_configuration_that_was_edited_and_still_makes_sense_is_refused(folder: Path, where: str) -> None:
    settings = settings_of(folder)
    if where == "classes":
        settings["targets"]["classes"].reverse()
    elif where == "heads":
        settings["model"]["heads"] *= 2
    else:
        settings["provenance"]["metrics"] = {"test/uar": 0.99}
    (folder / "config.json").write_text(json.dumps(settings, indent=4, sort_keys=True))
    with pytest.raises(ValueError, match=r"config\.json was altered after the export"):
        read_export(folder)


def test_another_layout_of_the_same_configuration_is_read(folder: Path) -> None:
    settings = settings_of(folder)
    (folder / "config.json").write_text(json.dumps(dict(reversed(settings.items())), indent=7))
    assert read_export(folder).provenance == settings["provenance"]


def test_text_that_is_no_json_is_refused(folder: Path) -> None:
    for text in ("{", "[]", "\xff"):
        (folder / "config.json").write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=r"config\.json is no export configuration"):
            read_export(folder)


def test_weights_of_another_shape_than_is_said_are_refused(folder: Path) -> None:
    rewrite(folder, model=TINY.to_dict() | {"width": 48})
    with pytest.raises(ValueError, match="do not fit what it says of them"):
        hicmae.load_recognizer(folder)


def test_a_pickle_in_the_folder_is_never_opened(folder: Path, tmp_path: Path) -> None:
    """Weights that are a pickle under the right name and with the right hash are no safetensors."""

    class Code:
        def __reduce__(self) -> Any:
            return Path.mkdir, (tmp_path / "made_by_a_pickle",)

    torch.save({"code": Code()}, folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    rewrite(folder, sha256={"model.safetensors": digest})
    with pytest.raises(ValueError, match=r"model\.safetensors is no safetensors file"):
        hicmae.load_backbone(folder)
    assert not (tmp_path / "made_by_a_pickle").exists()


def test_a_backbone_has_not_the_scores_of_the_recogniser_it_is_cut_from(folder: Path, tmp_path: Path) -> None:
    assert main(["export", str(folder), str(tmp_path / "cut"), "--backbone-only"]) == 0
    export = read_export(tmp_path / "cut")
    assert export.provenance == {"derived_from": {"sha256": read_export(folder).sha256, "provenance": PROVENANCE}}
    card = (tmp_path / "cut" / "README.md").read_text()
    assert "## Results" not in card
    assert "; made by:\n  - job: finetune\n" in card
    assert main(["export", str(folder), str(tmp_path / "whole")]) == 0
    assert read_export(tmp_path / "whole").provenance == PROVENANCE


# ---------------------------------------------------------------- where it is written


def test_files_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    model = pretraining_model()
    folder = save_export(tmp_path / "export", model.backbone, spec=SPEC, provenance={}, decoder=model)
    (tmp_path / "other").touch()
    expected = (tmp_path / "other").stat().st_mode
    assert {file.name: file.stat().st_mode for file in folder.iterdir()} == dict.fromkeys(
        ("config.json", "README.md", "model.safetensors", "decoder.safetensors"), expected
    )


def test_what_else_lies_in_an_export_stays_when_it_is_replaced(folder: Path, tmp_path: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (folder / "notes.txt").write_text("...")
    (tmp_path / "link").symlink_to(folder)
    save_export(tmp_path / "link", Backbone(TINY), spec=SPEC, provenance={})
    assert read_export(folder).kind == "backbone"
    assert (folder / ".git" / "HEAD").read_text() == "ref: refs/heads/main"
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "README.md", "config.json", "model.safetensors", "notes.txt"
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "link"]


@pytest.mark.parametrize("held", ['{"model_type": "vivit"}', "{", "[]", '{"schema": 1, "hicmae": "0.1", "kind": "x"}'])
def test_a_config_json_of_another_project_is_no_export(tmp_path: Path, held: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(held)
    (tmp_path / "mine" / "thesis.tex").write_text("...")
    with pytest.raises(ValueError, match="mine exists and is no exported folder"):
        save_export(tmp_path / "mine", Backbone(TINY), spec=SPEC, provenance={})
    assert (tmp_path / "mine" / "thesis.tex").exists()
