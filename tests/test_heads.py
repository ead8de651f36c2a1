"""Heads: kinds of targets, shapes, initial weights."""

from __future__ import annotations

import pytest
import torch

from hicmae.heads import Head, Targets, categorical, dimensional


def test_kinds_of_targets():
    assert categorical(3).classes == ("0", "1", "2")
    assert categorical(["happy", "sad"]) == Targets(classes=["happy", "sad"])
    assert dimensional(["valence", "arousal"]) == Targets(dimensions=("valence", "arousal"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(), "a head needs classes, dimensions or both"),
        (dict(dimensions=["valence"], ranges={"power": (0, 1)}), r"ranges are given for \['power'\]"),
        (dict(classes=["happy"]), "one class 'happy' leaves nothing to tell apart"),
        (dict(classes=["happy", "sad", "happy"]), r"names given twice: \['happy'\]"),
        (dict(dimensions=["valence", "valence"]), r"names given twice: \['valence'\]"),
    ],
)
def test_targets_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Targets(**fields)


@pytest.mark.parametrize(
    ("targets", "classes", "dimensions"),
    [
        (categorical(6), 6, None),
        (dimensional(["valence"]), None, 1),
        (Targets(classes=("happy", "sad"), dimensions=("valence", "arousal", "dominance")), 2, 3),
    ],
)
def test_one_linear_layer_per_kind_on_normed_features(targets, classes, dimensions):
    torch.manual_seed(0)
    head = Head(8, targets)
    pooled = torch.randn(5, 8) * 4 + 2
    features, logits, values = head(pooled)
    expected = (pooled - pooled.mean(1, keepdim=True)) / pooled.std(1, keepdim=True, unbiased=False)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    for ours, layer, size in ((logits, head.classifier, classes), (values, head.regressor, dimensions)):
        if size is None:
            assert ours is None
            assert layer is None
        else:
            assert ours.shape == (5, size)
            torch.testing.assert_close(ours, features @ layer.weight.T + layer.bias)
    assert head.targets == targets


def test_init_scale_multiplies_the_initial_weights():
    targets = Targets(classes=("happy", "sad"), dimensions=("valence", "arousal"))
    torch.manual_seed(0)
    plain = Head(1000, targets)
    torch.manual_seed(0)
    small = Head(1000, targets, init_scale=1e-3)
    for name in ("classifier", "regressor"):
        ours, scaled = getattr(plain, name), getattr(small, name)
        assert ours.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not ours.bias.any()
        torch.testing.assert_close(scaled.weight, ours.weight * 1e-3)
