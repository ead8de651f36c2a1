"""The recogniser: which features its head reads, and what is refused."""

from __future__ import annotations

import pytest
import torch

from hicmae.backbone import Backbone
from hicmae.heads import Targets, categorical
from hicmae.recognition import EmotionRecognizer
from tests.tiny_model import TINY, clips, shake


def recognizer(*modalities: str, targets: Targets | None = None, **kwargs) -> EmotionRecognizer:
    torch.manual_seed(0)
    model = EmotionRecognizer(
        Backbone(TINY), targets or categorical(3), modalities=modalities or ("video", "audio"), **kwargs
    )
    shake(model)
    return model


def test_both_modalities():
    model, inputs = recognizer(), clips(2)
    output = model(*inputs)
    features, logits, _ = model.head(model.backbone(*inputs).pooled)
    assert output.features.shape == (2, 4 * 24)
    assert torch.equal(output.features, features)
    assert torch.equal(output.logits, logits)
    assert output.values is None


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_one_modality_ignores_the_other(modality):
    model, (video, log_mel) = recognizer(modality), clips(2)
    both = model(video, log_mel)
    one = model(video=video) if modality == "video" else model(log_mel=log_mel)
    assert one.features.shape == (2, 24)
    assert torch.equal(one.logits, both.logits)
    own = model.backbone(video=video) if modality == "video" else model.backbone(log_mel=log_mel)
    assert torch.equal(one.features, model.head.norm(own.pooled))


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_one_modality_trains_what_its_gradient_reaches(modality):
    model, (video, log_mel) = recognizer(modality), clips(2)
    model(video, log_mel).logits.sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert any(p.requires_grad for p in model.backbone.parameters())


def test_categories_and_dimensions_at_once():
    targets = Targets(classes=("happy", "sad", "angry"), dimensions=("valence", "arousal"))
    model = recognizer(targets=targets)
    output = model(*clips(2))
    assert output.logits.shape == (2, 3)
    assert output.values.shape == (2, 2)
    assert model.targets == targets


def test_training_reaches_every_parameter():
    model = recognizer()
    model(*clips(3)).logits.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("order", [("video", "audio"), ("audio", "video")])
def test_the_order_in_which_modalities_are_named_does_not_matter(order):
    model = recognizer(*order)
    assert model.modalities == ("video", "audio")
    assert torch.equal(model(*clips(1)).logits, recognizer()(*clips(1)).logits)


def test_init_scale_reaches_the_head():
    plain, small = (EmotionRecognizer(Backbone(TINY), categorical(3), init_scale=s).head for s in (1.0, 1e-3))
    assert small.classifier.weight.abs().max() < 0.01 * plain.classifier.weight.abs().max()


def test_a_missing_modality_is_refused():
    video, log_mel = clips(1)
    with pytest.raises(ValueError, match="built for video and audio, but audio is missing"):
        recognizer()(video=video)
    with pytest.raises(ValueError, match="built for video, but video is missing"):
        recognizer("video")(log_mel=log_mel)


@pytest.mark.parametrize("modalities", [(), ("video", "text"), "video"])
def test_unknown_modalities_are_refused(modalities):
    with pytest.raises(ValueError, match="must be video, audio or both"):
        EmotionRecognizer(Backbone(TINY), categorical(3), modalities=modalities)
