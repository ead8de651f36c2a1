"""The video encoder through timm: built and loaded timm's way, with the backbone's features."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import timm.optim
import torch

import hicmae.timm_models  # noqa: F401  registers
from hicmae.backbone import Backbone
from hicmae.checkpoint import load_backbone, save_export
from hicmae.config import PRESETS, InputSpec, ModelConfig
from hicmae.heads import categorical
from hicmae.portable.formats import open_program, write_program
from hicmae.portable.graphs import BackboneGraph
from hicmae.recognition import EmotionRecognizer
from tests.media_files import make_clip

MICRO = ModelConfig.preset("micro")
SPEC = InputSpec.for_model(MICRO)
NAME = "hicmae_micro.mae"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(MICRO).eval()


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return torch.randn(2, 3, 16, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def export(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_export(tmp_path_factory.mktemp("timm") / "export", backbone, spec=SPEC, provenance={})


def test_features_equal_the_exported_backbones(backbone, export, video):
    model = timm.create_model(NAME, folder=export).eval()
    features = model.forward_features(video)
    assert torch.equal(features, backbone(video=video).video_tokens)
    assert torch.equal(features, Backbone.from_pretrained(export)(video=video).video_tokens)
    assert torch.equal(model(video), features.mean(dim=1))
    assert torch.equal(timm.create_model(NAME, folder=export, global_pool="").eval()(video), features)


def test_the_video_encoder_of_a_variant_is_the_papers(backbone, tmp_path, video):
    config = ModelConfig.preset("micro", fusion_direction="to_audio", feature_fusion="last", skip_connections=False)
    variant = Backbone(config)
    variant.video_encoder.load_state_dict(backbone.video_encoder.state_dict())
    folder = save_export(tmp_path / "export", variant, spec=SPEC, provenance={})
    found = timm.create_model(NAME, folder=folder).eval().forward_features(video)
    assert torch.equal(found, backbone(video=video).video_tokens)


def test_timm_hub_and_exported_program_give_the_same_features_of_a_clip(tmp_path, monkeypatch):
    small = PRESETS["micro"] | {"depth": 2, "fusion_depth": 1, "taps": (1,), "decoder_depth": 2}
    monkeypatch.setitem(PRESETS, "micro", small)  # an exporter's time goes by layers
    export = save_export(tmp_path / "export", Backbone(ModelConfig.preset("micro")), spec=SPEC, provenance={})
    make_clip(tmp_path / "clip.mp4", size=(96, 96))
    hub = Backbone.from_pretrained(export)
    video = hub.transform(tmp_path / "clip.mp4")["video"]
    loaded, _ = load_backbone(export)
    write_program(BackboneGraph(loaded, SPEC, ("video",)), tmp_path / "model.pt2")
    program = open_program(tmp_path / "model.pt2")({"video": video.numpy()})
    with torch.no_grad():
        features, of_timm = hub(video=video), timm.create_model(NAME, folder=export).eval().forward_features(video)
    assert features.video_tokens.std() > 0.1
    torch.testing.assert_close(of_timm, features.video_tokens, rtol=0, atol=1e-5)
    for name in ("video_tokens", "pooled"):
        torch.testing.assert_close(torch.from_numpy(program[name]), getattr(features, name), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["backbone", "recogniser"])
def test_the_file_loads_as_timm_loads_files_with_a_head_or_without(backbone, video, tmp_path, kind):
    model = backbone if kind == "backbone" else EmotionRecognizer(backbone, categorical(3))
    folder = save_export(tmp_path / "export", model, spec=SPEC, provenance={})
    source = {"file": str(folder / "model.safetensors")}
    for classes in (0, 4):
        loaded = timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=source, num_classes=classes).eval()
        assert torch.equal(loaded.forward_features(video), backbone(video=video).video_tokens)
        assert loaded(video).shape == (2, classes or MICRO.width)


def test_intermediates_are_the_backbones_layers(backbone, export, video):
    model = timm.create_model(NAME, folder=export).eval()
    last, some = model.forward_intermediates(video, indices=[1, -1], norm=True)
    expected = backbone.get_intermediate_layers(video=video, layers=[1, 3]).video
    assert all(torch.equal(one, other) for one, other in zip(some, expected, strict=True))
    assert torch.equal(last, some[-1])
    raw = backbone.get_intermediate_layers(video=video, layers=2, norm=False).video
    found = model.forward_intermediates(video, indices=2, intermediates_only=True)
    assert all(torch.equal(one, other) for one, other in zip(found, raw, strict=True))


def test_features_only_gives_tokens_at_their_places(backbone, export, video):
    model = timm.create_model(NAME, folder=export, features_only=True, out_indices=(1, 3)).eval()
    raw = backbone.get_intermediate_layers(video=video, layers=[1, 3], norm=False).video
    for found, tokens in zip(model(video), raw, strict=True):
        assert found.shape == (2, 96, 8, 4, 4)
        assert torch.equal(found[:, :, 3, 2, 1], tokens[:, 3 * 16 + 2 * 4 + 1])
    assert model.feature_info.channels() == [96, 96]


def test_what_timm_knows_of_it(export):
    assert timm.list_models("hicmae*") == [f"hicmae_{size}" for size in ("base", "large", "micro", "small", "tiny")]
    model = timm.create_model(NAME, folder=export)
    assert (model.pretrained_cfg["tag"], model.pretrained_cfg["architecture"]) == ("mae", "hicmae_micro")
    data = timm.data.resolve_model_data_config(model)
    assert (data["input_size"], data["mean"], data["std"]) == ((3, 64, 64), SPEC.image_mean, SPEC.image_std)
    assert "state_dict" not in model.pretrained_cfg
    groups = timm.optim.param_groups_layer_decay(model, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.5)
    assert sorted({group["lr_scale"] for group in groups}) == [0.5**n for n in range(4, -1, -1)]


def test_a_head_can_be_put_on_and_replaced(video):
    model = timm.create_model("hicmae_micro", num_classes=5)
    assert model(video).shape == (2, 5)
    assert model.get_classifier().out_features == 5
    model.eval().reset_classifier(3)
    assert model(video).shape == (2, 3)
    assert not model.head.training
    model.reset_classifier(0, "")
    assert model(video).shape == (2, 128, 96)


def test_drop_rates_reach_the_model():
    model = timm.create_model("hicmae_micro", drop_path_rate=0.3, drop_rate=0.4)
    assert model.head_drop.p == 0.4
    rates = [getattr(block.drop_path, "p", 0.0) for block in model.encoder.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


def test_what_does_not_fit_is_refused(backbone, export, tmp_path, video):
    with pytest.raises(ValueError, match="width is 96, expected 256"):
        timm.create_model("hicmae_tiny.mae", folder=export)
    with pytest.raises(ValueError, match="no weights on a hub"):
        timm.create_model(NAME, pretrained=True)
    with pytest.raises(ValueError, match="in_chans=1"):
        timm.create_model(NAME, in_chans=1)
    with pytest.raises(ValueError, match="global_pool='token'"):
        timm.create_model(NAME, global_pool="token")
    with pytest.raises(ValueError, match="no gradient checkpointing"):
        timm.create_model(NAME).set_grad_checkpointing()
    with pytest.raises(ValueError, match="output_fmt"):
        timm.create_model(NAME).forward_intermediates(video, output_fmt="NHWC")
    hearing = EmotionRecognizer(backbone, categorical(3), modalities=("audio",))
    folder = save_export(tmp_path / "hearing", hearing, spec=SPEC, provenance={})
    with pytest.raises(ValueError, match="trained with audio alone"):
        timm.create_model(NAME, folder=folder)
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"no weights of this video encoder: encoder\.blocks\.0"):
        timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "other.pth")},
                          num_classes=2)  # fmt: skip
