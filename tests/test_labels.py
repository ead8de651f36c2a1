from __future__ import annotations

import pytest

from hicmae.data.labels import LabelSpec

SPEC = LabelSpec(classes={"emotion": ("angry", "happy")}, dimensions={"valence": (-1.0, 1.0)})


def test_encode_follows_the_order_of_the_classes() -> None:
    assert SPEC.encode({"emotion": "happy", "valence": 0.25, "other": "x"}, clip_id="c") == {
        "emotion": 1,
        "valence": 0.25,
    }


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"emotion": "bored", "valence": 0.0}, r"'c1'.*'bored'.*\['angry', 'happy'\].*correct the manifest"),
        ({"valence": 0.0}, "'c1' has no label 'emotion'"),
        ({"emotion": "happy"}, "'c1' has no label 'valence'"),
        ({"emotion": "happy", "valence": 3.0}, "3.0.*from -1 to 1"),
        ({"emotion": "happy", "valence": "much"}, "'much'.*from -1 to 1"),
    ],
)
def test_unusable_labels_name_clip_value_and_remedy(labels: dict[str, str | float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPEC.encode(labels, clip_id="c1")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no labels chosen"),
        ({"classes": {"emotion": ("a", "a")}}, "each once"),
        ({"dimensions": {"valence": (1, -1)}}, "lowest value comes first"),
        ({"classes": {"x": ("a", "b")}, "dimensions": {"x": (0, 1)}}, "both in classes and in dimensions"),
    ],
)
def test_contradictory_choices(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelSpec(**settings)


def test_filler_is_valid() -> None:
    assert SPEC.filler() == {"emotion": 0, "valence": -1.0}
