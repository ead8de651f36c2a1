"""`hicmae convert`: the authors' files to exported folders and back, every name accounted for."""

from __future__ import annotations

import argparse
import csv
import json
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

import hicmae
from hicmae import reference
from hicmae.checkpoint import read_backbone
from hicmae.cli import main
from hicmae.heads import Targets, categorical, dimensional
from hicmae.patches import sinusoid_positions
from hicmae.pretraining import Objective
from hicmae.reference.report import write_rows
from tests.goldens_data import FINETUNE_STATE, MICRO, PRETRAIN_STATE
from tests.tiny_model import TINY, shake

# What the shapes of the micro models do not tell.
KNOWN = ["image_size=32", "audio_frames=64", "mel_bins=32", "heads=2"]
PRETRAINED = ["--config", *KNOWN, "decoder_heads=2", "taps=1,2"]
FINETUNED = ["--config", *KNOWN, "taps=1,2", "decoder_depth=3"]


def convert(*words: str | Path) -> int:
    return main(["convert", *map(str, words)])


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[n].dtype == other[n].dtype and torch.equal(one[n], other[n]) for n in one
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_finetuned_goldens_go_to_a_folder_and_back_bit_for_bit(tmp_path, capsys, ending):
    classes = "ang,dis,fea,hap,neu,sad"
    assert convert(FINETUNE_STATE, tmp_path / "folder", "--classes", classes, *FINETUNED) == 0
    model, _ = hicmae.load_recognizer(tmp_path / "folder")
    assert model.targets.classes == tuple(classes.split(","))
    assert "214 converted" in capsys.readouterr().out
    back = tmp_path / f"back{ending}"
    assert convert(tmp_path / "folder", back, "--to", "reference") == 0
    state = load_file(FINETUNE_STATE)
    found = load_file(back) if ending == ".safetensors" else torch.load(back, weights_only=True)["model"]
    assert same(found, state)


def test_pretrained_goldens_keep_their_decoders_when_asked_and_go_back_bit_for_bit(tmp_path, capsys):
    assert convert(PRETRAIN_STATE, tmp_path / "folder", "--with-decoder", *PRETRAINED) == 0
    assert convert(tmp_path / "folder", tmp_path / "back.safetensors") == 0
    state = load_file(PRETRAIN_STATE)
    assert same(load_file(tmp_path / "back.safetensors"), state)
    assert convert(PRETRAIN_STATE, tmp_path / "encoders", *PRETRAINED) == 0
    assert convert(tmp_path / "encoders", tmp_path / "encoders.safetensors") == 0
    assert "encoders and fusion alone" in capsys.readouterr().out
    encoders = load_file(tmp_path / "encoders.safetensors")
    assert same(encoders, {n: v for n, v in state.items() if n.startswith("encoder") and "to_decoder" not in n})
    weights = read_backbone(tmp_path / "encoders.safetensors", MICRO)
    assert same(weights.state, reference.load_pretraining(PRETRAIN_STATE, MICRO).backbone.state_dict())


@pytest.mark.parametrize("job", ["pretrain", "finetune"])
def test_our_checkpoints_go_to_files_that_read_as_the_same_model(tmp_path, job):
    torch.manual_seed(0)
    model = (
        hicmae.HiCMAE(TINY) if job == "pretrain" else hicmae.EmotionRecognizer(hicmae.Backbone(TINY), categorical(3))
    )
    about = {"job": job, "model": TINY.to_dict(), "input": hicmae.InputSpec.for_model(TINY).to_dict()}
    if job == "finetune":
        about |= {"targets": {"classes": ["a", "b", "c"], "dimensions": []}, "modalities": ["video", "audio"]}
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"hicmae": about, "state_dict": state}, tmp_path / "last.ckpt")
    assert convert(tmp_path / "last.ckpt", tmp_path / "theirs.pth") == 0
    load = reference.load_pretraining if job == "pretrain" else reference.load_recognizer
    assert same(load(tmp_path / "theirs.pth", TINY).state_dict(), model.state_dict())


def test_report_names_every_name_of_both_sides_once(tmp_path):
    assert convert(PRETRAIN_STATE, tmp_path / "folder", *PRETRAINED, "--report", tmp_path / "names.csv") == 0
    rows, state = table(tmp_path / "names.csv"), load_file(PRETRAIN_STATE)
    assert sorted(row["theirs"] for row in rows if row["theirs"]) == sorted(state)
    ours = hicmae.load_backbone(tmp_path / "folder")[0].state_dict()
    assert sorted(row["ours"] for row in rows if row["ours"]) == sorted(f"backbone.{name}" for name in ours)
    for row in rows:
        assert row["fate"] in ("converted", "dropped")
        assert row["note"] or row["fate"] == "converted"
        if row["theirs"]:
            assert row["shape"] == "x".join(map(str, state[row["theirs"]].shape))
    dropped = {row["theirs"] for row in rows if row["fate"] == "dropped" and row["theirs"]}
    assert dropped == {n for n in state if n.startswith(("decoder", "mask_token", "encoder_to_decoder"))}


def test_report_is_written_as_json_and_markdown(tmp_path):
    rows = [reference.report.NameRow(theirs="a|b", ours="", shape=(1, 2), fate="dropped", note="why")]
    assert json.loads(write_rows(rows, tmp_path / "r.json").read_text())[0]["shape"] == [1, 2]
    assert r"| a\|b |  | 1x2 | dropped | why |" in write_rows(rows, tmp_path / "r.md").read_text()
    with pytest.raises(ValueError, match=r"must end in \.csv, \.json, \.md"):
        write_rows(rows, tmp_path / "r.txt")


def test_what_does_not_fit_is_an_error_and_still_reported(tmp_path, capsys):
    state = load_file(FINETUNE_STATE)
    state["encoder.extra"] = state.pop("encoder.norm.bias")
    state["fc_norm.bias"] = torch.zeros(3)
    torch.save({"model": {f"module.{n}": v for n, v in state.items()}, "epoch": 4}, tmp_path / "odd.pth")
    status = convert(tmp_path / "odd.pth", tmp_path / "folder", *FINETUNED, "--report", tmp_path / "names.csv")
    assert status == 2
    assert not (tmp_path / "folder").exists()
    message = capsys.readouterr().err
    for part in ("missing: encoder.norm.bias", "unknown: module.encoder.extra", "module.fc_norm.bias has (3,)"):
        assert part in message
    fates = {row["theirs"]: row["fate"] for row in table(tmp_path / "names.csv")}
    assert (fates["encoder.norm.bias"], fates["module.encoder.extra"]) == ("missing", "unknown")
    assert fates["module.fc_norm.bias"] == "misshapen"
    assert fates["epoch"] == "dropped"


def test_mixed_prefixes_and_a_name_that_is_there_twice(tmp_path):
    state = load_file(FINETUNE_STATE)
    prefixes = ("module.", "model.", "", "module.model.", "_orig_mod.", "encoder.")
    mixed = {prefixes[i % (6 if n.startswith("encoder") else 5)] + n: v for i, (n, v) in enumerate(state.items())}
    assert any(name.startswith("encoder.encoder") for name in mixed)
    save_file(mixed, tmp_path / "mixed.safetensors")
    assert same(reference.read_state(tmp_path / "mixed.safetensors"), state)
    save_file(state | {"module.head.bias": state["head.bias"].clone()}, tmp_path / "twice.safetensors")
    with pytest.raises(ValueError, match=r"'head\.bias' twice, as 'head\.bias' and as 'module\.head\.bias'"):
        reference.read_file(tmp_path / "twice.safetensors")


def test_a_regression_head_becomes_dimensions(tmp_path):
    state = load_file(FINETUNE_STATE)
    state |= {"head.weight": state["head.weight"][:2].clone(), "head.bias": state["head.bias"][:2].clone()}
    save_file(state, tmp_path / "regression.safetensors")
    assert convert(tmp_path / "regression.safetensors", tmp_path / "out", "--dimensions", "v,a", *FINETUNED) == 0
    model, _ = hicmae.load_recognizer(tmp_path / "out")
    assert model.targets == dimensional(["v", "a"])
    assert same(reference.to_reference(model), state)
    state |= {"head.weight": state["head.weight"][:1].clone(), "head.bias": state["head.bias"][:1].clone()}
    save_file(state, tmp_path / "one.safetensors")  # one output is no choice between classes
    assert reference.load_recognizer(tmp_path / "one.safetensors", MICRO).targets == dimensional(["0"])


# ---------------------------------------------------------------- other sizes


def positions(config: hicmae.ModelConfig) -> dict[str, Tensor]:
    return {
        "encoder.pos_embed": sinusoid_positions(config.video_tokens, config.width)[None],
        "encoder_audio.pos_embed": sinusoid_positions(config.audio_tokens, config.width)[None],
    }


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    side=st.integers(1, 4), frames=st.sampled_from([4, 16]), seconds=st.integers(1, 5), depth=st.integers(2, 4),
    fusion=st.integers(0, 2), kind=st.sampled_from(["pretraining", "recognizer", "backbone"]), seed=st.integers(0, 9),
)  # fmt: skip
def test_any_architecture_survives_the_way_there_and_back(tmp_path, side, frames, seconds, depth, fusion, kind, seed):
    config = hicmae.ModelConfig(
        image_size=16 * side, num_frames=frames, audio_frames=16 * seconds, width=64, heads=1, depth=depth,
        fusion_depth=fusion, decoder_width=64, decoder_heads=1, decoder_depth=depth, taps=tuple(range(1, depth)),
    )  # fmt: skip
    torch.manual_seed(seed)
    model: hicmae.HiCMAE | hicmae.EmotionRecognizer | hicmae.Backbone = hicmae.Backbone(config)
    if kind == "recognizer":
        model = hicmae.EmotionRecognizer(hicmae.Backbone(config), categorical(3))
    elif kind == "pretraining":
        model = hicmae.HiCMAE(config)
    shake(model)
    if kind == "pretraining":  # the mix of layers is not part of it
        for weights in (model.backbone.video_layer_weights, model.backbone.audio_layer_weights):
            weights.data.fill_(1 / depth)
    state = reference.to_reference(model)
    path = tmp_path / "any.safetensors"
    save_file({f"module.{name}": value for name, value in (state | positions(config)).items()}, path)
    found = reference.read_file(path)
    told = {"num_frames": frames, "taps": config.taps, "decoder_depth": depth}
    inferred = reference.infer_architecture(found.state, {}, told).config
    if kind == "pretraining":
        assert inferred == config
    load = {"pretraining": "load_pretraining", "recognizer": "load_recognizer", "backbone": "load_backbone"}[kind]
    back = getattr(reference, load)(path, config)
    assert same(back.state_dict(), model.state_dict())
    assert same(reference.to_reference(back), state)


def test_position_tables_tell_sizes_and_must_be_ours(tmp_path):
    config = hicmae.ModelConfig.preset("tiny", image_size=96, audio_frames=512)
    with torch.device("meta"):
        state = reference.to_reference(hicmae.HiCMAE(config))
    assert reference.infer_config(state | positions(config)) == config
    assert reference.infer_config(state).image_size == 160
    longer = positions(hicmae.ModelConfig.preset("tiny", image_size=160, num_frames=32))
    assert reference.infer_config(state | longer).num_frames == 32
    micro = load_file(FINETUNE_STATE)
    for table, complaint in (
        (sinusoid_positions(MICRO.video_tokens, 24)[None] + 0.01, "is not the fixed sinusoid table"),
        (sinusoid_positions(MICRO.video_tokens + 1, 24)[None], "expected 32 tokens of width 24"),
    ):
        save_file(micro | {"encoder.pos_embed": table}, tmp_path / "table.safetensors")
        with pytest.raises(ValueError, match=complaint):
            reference.load_recognizer(tmp_path / "table.safetensors", MICRO)
    save_file(micro | positions(MICRO), tmp_path / "table.safetensors")
    reference.load_recognizer(tmp_path / "table.safetensors", MICRO)


def test_settings_in_the_file_tell_sizes_and_timing(tmp_path, capsys):
    args = argparse.Namespace(
        input_size=32, num_frames=16, input_size_audio=64, num_mel_bins=32, sampling_rate=3, data_path=Path("x"), lr=0.1
    )
    torch.save({"model": load_file(FINETUNE_STATE), "args": args, "optimizer": {}}, tmp_path / "run.pth")
    known = ["--config", "heads=2", "taps=1,2", "decoder_depth=3"]
    assert convert(tmp_path / "run.pth", tmp_path / "folder", *known) == 0
    model, transform = hicmae.load_recognizer(tmp_path / "folder")
    assert model.backbone.config.differences(MICRO).keys() <= {"decoder_width", "decoder_heads"}
    assert (transform.spec.frame_interval_s, transform.spec.audio_seconds) == (0.12, 1.96)
    assert read_backbone(tmp_path / "run.pth", MICRO).spec.frame_interval_s == 0.12
    out = capsys.readouterr().out
    assert "from settings in the file: image_size=32, num_frames=16, audio_frames=64, mel_bins=32" in out
    assert "from given: heads=2" in out
    assert vars(reference.read_file(tmp_path / "run.pth"))["settings"].keys() == vars(args).keys() - {"data_path"}


def test_settings_of_pretraining_tell_taps_and_what_the_decoders_predict(tmp_path):
    state = load_file(PRETRAIN_STATE)
    told = {"return_intermediate_features": [1, 2], "inter_contrastive_temperature": 0.1, "loss_weight": 0.5}
    args = argparse.Namespace(
        input_size=32, input_size_audio=64, num_mel_bins=32, use_frame_diff_as_target=False, betas=[Path("x")], **told
    )
    torch.save({"model": state, "args": args}, tmp_path / "run.pth")
    known = ["--with-decoder", "--config", "heads=2", "decoder_heads=2"]
    assert convert(tmp_path / "run.pth", tmp_path / "folder", *known) == 0
    model, _ = hicmae.load_pretraining(tmp_path / "folder")
    expected = Objective(contrastive_weight=0.5, temperature=0.1, frame_difference=False)
    assert (model.config.taps, model.objective) == ((1, 2), expected)
    assert reference.load_pretraining(tmp_path / "run.pth", MICRO).objective == expected
    assert "betas" not in reference.read_file(tmp_path / "run.pth").settings


# ---------------------------------------------------------------- what is refused


def test_a_head_that_ends_in_a_function_is_not_taken_for_one_without(tmp_path, capsys):
    args = argparse.Namespace(head_activation_func="sigmoid")
    torch.save({"model": load_file(FINETUNE_STATE), "args": args}, tmp_path / "run.pth")
    assert convert(tmp_path / "run.pth", tmp_path / "folder", *FINETUNED) == 2
    assert "head_activation_func='sigmoid'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="ends in a function that recognisers here do not have"):
        reference.load_recognizer(tmp_path / "run.pth", MICRO)
    assert convert(tmp_path / "run.pth", tmp_path / "folder", "--backbone-only", *FINETUNED) == 0


def small(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}


VIDEO_MAE = small(
    encoder__patch_embed__proj__weight=(8, 3, 2, 4, 4),
    encoder__blocks__0__norm1__weight=(8,),
    decoder__blocks__0__norm1__weight=(8,),
    encoder_to_decoder__weight=(4, 8),
)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"model": VIDEO_MAE}, "pre-training of VideoMAE"),
        ({"module": VIDEO_MAE | small(encoder__lg_region_tokens=(8, 8))}, "looks like MAE-DFER"),
        ({"model": small(cls_token=(1, 1, 8), patch_embed__proj__weight=(8, 1, 4, 4), decoder_embed__weight=(4, 8),
                         decoder_blocks__0__norm1__weight=(4,))}, "such as MAE or AudioMAE"),
        (small(patch_embed__proj__weight=(8, 3, 2, 4, 4), blocks__0__norm1__weight=(8,)), "one plain transformer"),
        (small(module__blocks_a__0__norm1_a__weight=(8,), module__blocks_v__0__norm1_v__weight=(8,)), "CAV-MAE"),
        ({"optimizer_state_dict": {"single_partition_of_fp32_groups": [torch.zeros(3)]}, "ds_version": "0.9"},
         "DeepSpeed ZeRO file with a rank's share"),
        ({"module": {"encoder.norm.weight": torch.zeros(0)}, "ds_version": "0.9"}, "weights are partitioned"),
        ({"optimizer": {"state": {0: torch.zeros(3)}, "param_groups": []}, "epoch": 1}, "state of an optimiser"),
        ({"state": {}, "param_groups": []}, "state of an optimiser"),
        ({"hicmae": {"job": "finetune"}, "state_dict": small(model__backbone__x=(1,))}, "training checkpoint of this"),
    ],
)  # fmt: skip
def test_files_of_others_are_named(tmp_path, capsys, content, complaint):
    torch.save(content, tmp_path / "x.pth")
    assert convert(tmp_path / "x.pth", tmp_path / "folder") == 2
    assert complaint in capsys.readouterr().err


def test_weights_of_an_exported_folder_alone_are_sent_back_to_it(tmp_path, capsys):
    save_file(hicmae.Backbone(TINY).state_dict(), tmp_path / "model.safetensors")
    assert convert(tmp_path / "model.safetensors", tmp_path / "folder") == 2
    assert "give the exported folder that they lie in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["folder", "--classes", "a,b"], "6 outputs, but 2 names"),
        (["folder", "--classes", "a,b", "--dimensions", "c"], "classes or dimensions"),
        (["folder", "--backbone-only", "--classes", "a"], "no head to name"),
        (["folder", "--with-decoder"], "has no decoder"),
        (["folder", "--to", "reference"], "only --to hicmae is possible"),
        (["folder", "--config", "size=3"], "give field=value; fields are image_size"),
        (["folder", "--config", "heads=two"], "'two' is no value like 8"),
        (["folder", "--report", "x.txt"], "must end in"),
    ],
)
def test_wishes_that_do_not_fit(tmp_path, monkeypatch, capsys, words, complaint):
    monkeypatch.chdir(tmp_path)
    given = [] if "--config" in words else FINETUNED
    assert convert(FINETUNE_STATE, *words, *given) == 2
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_shapes_alone_do_not_tell_the_heads_of_an_unpublished_width(capsys, tmp_path):
    assert convert(FINETUNE_STATE, tmp_path / "folder") == 2
    assert "heads must be given" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage", [b"", b"\x00" * 90, b"\x80\x02X\xff\xff\xff\x7f", b"\x80\x02cos\nsystem\n", b"\x80\x02}(K"]
)
def test_a_damaged_pickle_is_said(tmp_path, capsys, damage):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", damage)
        archive.writestr("x/version", "3")
    assert convert(tmp_path / "x.pth", tmp_path / "folder") == 2
    assert "damaged" in capsys.readouterr().err


def test_values_that_are_no_numbers_are_refused(tmp_path, capsys):
    state = load_file(FINETUNE_STATE)
    state["head.bias"][2] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    assert convert(tmp_path / "nan.safetensors", tmp_path / "folder", *FINETUNED) == 2
    assert "no finite numbers, in head.bias" in capsys.readouterr().err


def test_recognisers_that_the_reference_cannot_hold():
    audio = hicmae.EmotionRecognizer(hicmae.Backbone(TINY), categorical(3), modalities=["audio"])
    with pytest.raises(ValueError, match="recogniser was trained with audio alone"):
        reference.to_reference(audio)
    both = Targets(classes=("a", "b"), dimensions=("v",))
    with pytest.raises(ValueError, match="classes and dimensions"):
        reference.to_reference(hicmae.EmotionRecognizer(hicmae.Backbone(TINY), both))


def test_nothing_is_overwritten_and_other_endings_are_refused(tmp_path, capsys):
    (tmp_path / "there.pth").write_text("x")
    assert convert(tmp_path, tmp_path / "there.pth") == 2
    assert "exists already" in capsys.readouterr().err
    assert convert(tmp_path, tmp_path / "there.bin") == 2
    assert "must end in .pth or .safetensors" in capsys.readouterr().err
