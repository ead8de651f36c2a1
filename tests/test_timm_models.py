"""The video encoder through timm equals the backbone's."""

from __future__ import annotations

import pytest
import timm
import torch

import hicmae.timm_models  # noqa: F401  registers
from hicmae.backbone import Backbone
from hicmae.checkpoint import save_export
from hicmae.config import InputSpec, ModelConfig

MICRO = ModelConfig.preset("micro")


def test_features_equal_the_exported_backbones(tmp_path):
    torch.manual_seed(0)
    backbone = Backbone(MICRO).eval()
    save_export(tmp_path / "export", backbone, spec=InputSpec.for_model(MICRO), provenance={})
    model = timm.create_model("hicmae_micro", folder=tmp_path / "export").eval()
    video = torch.randn(2, 3, 16, 64, 64)
    features = model.forward_features(video)
    assert torch.equal(features, backbone(video=video).video_tokens)
    assert torch.equal(model(video), features.mean(dim=1))


def test_a_head_can_be_put_on():
    model = timm.create_model("hicmae_micro", num_classes=5)
    assert model(torch.randn(1, 3, 16, 64, 64)).shape == (1, 5)
    model.reset_classifier(3)
    assert model(torch.randn(1, 3, 16, 64, 64)).shape == (1, 3)


def test_weights_of_another_size_and_hub_weights_are_refused(tmp_path):
    save_export(tmp_path / "export", Backbone(MICRO), spec=InputSpec.for_model(MICRO), provenance={})
    with pytest.raises(ValueError, match="width is 96, expected 256"):
        timm.create_model("hicmae_tiny", folder=tmp_path / "export")
    with pytest.raises(ValueError, match="no weights on a hub"):
        timm.create_model("hicmae_micro", pretrained=True)
