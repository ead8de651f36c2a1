"""Clips that share a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.evaluation import evaluate
from finetune.grouping import check_groups, refuse_shared_groups
from hicmae.data.labels import LabelSpec
from hicmae.data.manifest import Clip, Manifest
from hicmae.data.source import ClipSource, ManifestSource, SubsetSource
from hicmae.predictions import ClipOutputs

LABELS = LabelSpec(classes={"emotion": ("calm", "tense")}, dimensions={"valence": (0, 1)})


def source(**changes: dict[str, Any]) -> ManifestSource:
    """Five clips of three tasks, in an order that mixes them; ``changes`` are labels and subjects by clip."""
    clips = []
    for name, task, emotion in (("a", "t2", "calm"), ("b", "t1", "tense"), ("c", "t2", "calm"), ("d", "t3", "calm"),
                                ("e", "t2", "calm")):  # fmt: skip
        labels: dict[str, Any] = {"label:task": task, "emotion": emotion, "valence": 0.5}
        change = dict(changes.get(name, {}))
        subject = change.pop("subject", f"s-{task}")
        labels = {key: value for key, value in (labels | change).items() if value is not None}
        clips.append(Clip(clip_id=name, video=Path("x.mp4"), subject=subject, labels=labels))
    return ManifestSource(Manifest(path=Path("manifest.csv"), clips=tuple(clips)))


def outputs() -> ClipOutputs:
    """Of all clips but d: class probabilities, valence, whether there is picture and sound."""
    rows = [[0.9, 0.1, 0.2, 1, 1], [0.3, 0.7, 0.4, 1, 0], [0.2, 0.8, 0.5, 1, 1], [0.1, 0.9, 0.8, 0, 1]]
    index, segments = np.array([0, 1, 2, 4]), np.array([2, 2, 1, 2])
    return ClipOutputs(index=index, outputs=np.array(rows, dtype=np.float64), segments=segments)


def test_predictions_are_means_over_the_clips_of_a_group() -> None:
    ours = evaluate(outputs(), source(), LABELS, ("video", "audio"), average_over="label:task")
    table = ours.table
    assert table.clip_id.tolist() == ["t2", "t1"]
    assert table.subject.tolist() == ["s-t2", "s-t1"]
    assert table.label.tolist() == ["calm", "tense"]
    assert table.predicted.tolist() == ["tense", "tense"]  # t2: (0.9 + 0.2 + 0.1) / 3 = 0.4 for calm
    np.testing.assert_allclose(table.probability_calm, [0.4, 0.3])
    np.testing.assert_allclose(table.valence_prediction, [0.5, 0.4])
    assert table.n_clips.tolist() == [3, 1]
    assert table.n_segments.tolist() == [5, 2]
    values = ours.to_dict()
    assert values["war"] == 0.5
    assert (values["clips"], values["clips_not_decoded"], values["predictions"]) == (5, 1, 2)
    assert (values["clips_without_picture"], values["clips_without_sound"]) == (1, 1)
    assert (values["averaged_over"], ours.rows) == ("label:task", "2 groups of clips")


def test_without_it_each_clip_has_its_own() -> None:
    ours = evaluate(outputs(), source(), LABELS, ("video", "audio"))
    assert ours.table.clip_id.tolist() == ["a", "b", "c", "e"]
    assert "n_clips" not in ours.table
    assert "predictions" not in ours.to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c": {"emotion": "tense"}}, "label:task 't2': emotion is 'calm' of clip a and 'tense' of clip c"),
        ({"e": {"valence": 0.6}}, "valence is 0.5 of clip a and 0.6 of clip e"),
        ({"e": {"subject": "other"}}, "subject is 's-t2' of clip a and 'other' of clip e"),
        ({"d": {"label:task": None}}, r"1 of 5 clips have no such label \(d\); .*: emotion, label:task, valence"),
    ],
)
def test_clips_that_cannot_share_a_prediction(changes: dict[str, dict[str, Any]], message: str) -> None:
    assert check_groups(source(), LABELS, "label:task") == 3
    with pytest.raises(ValueError, match=message):
        check_groups(source(**changes), LABELS, "label:task")


def test_a_group_is_in_one_part() -> None:
    everything = source()

    def parts(*numbers: list[int]) -> dict[str, ClipSource]:
        return {name: SubsetSource(everything, own, name) for name, own in zip(("train", "val"), numbers, strict=True)}

    refuse_shared_groups(parts([0, 2, 4], [1, 3]), "label:task")
    with pytest.raises(ValueError, match=r"\(average_over=label:task\) are in train and in val: 't2'"):
        refuse_shared_groups(parts([0, 2], [1, 3, 4]), "label:task")
