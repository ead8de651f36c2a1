"""Means, differences and their intervals, against cases that can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from finetune.study.intervals import Cell, Estimate, difference, estimate, t_interval
from finetune.study.results import Scores

CLASSES = ("a", "b")


def scored(right: Sequence[bool], subjects: Sequence[str], *, clips: Sequence[str] | None = None) -> Scores:
    """Predictions of class a and b in turn, right or wrong as told."""
    label = ["a", "b"] * (len(right) // 2)
    other = {"a": "b", "b": "a"}
    predicted = [name if good else other[name] for name, good in zip(label, right, strict=True)]
    names = clips or [f"c{number}" for number in range(len(right))]
    table = pd.DataFrame({"clip_id": names, "subject": subjects, "label": label, "predicted": predicted})
    war = float(np.mean(right))
    return Scores(
        checkpoint="best", values={"war": war}, predictions=table, classes=CLASSES, dimensions=(), protocol=""
    )


def pattern(speakers: Sequence[bool]) -> Scores:
    """Four clips a speaker, all right or all wrong."""
    right = [good for good in speakers for _ in range(4)]
    return scored(right, [f"s{number}" for number in range(len(speakers)) for _ in range(4)])


def mean_of(cell: Cell, metric: str) -> Estimate:
    found = estimate(cell, metric)
    assert found is not None
    return found


def test_t_interval_of_three_seeds() -> None:
    low, high = t_interval(np.array([0.5, 0.6, 0.7]), 0.95) or (0, 0)
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # Student's t, two degrees of freedom
    assert (low, high) == pytest.approx((0.6 - half, 0.6 + half))
    assert t_interval(np.array([0.5]), 0.95) is None


def test_two_speakers_one_right_one_wrong() -> None:
    # Draws of two from two: both the right one (1/4), one each (1/2), both the wrong one (1/4).
    found = mean_of({(0, None): pattern([True, False])}, "war")
    assert (found.mean, found.n, found.groups) == (0.5, 1, 2)
    assert found.speakers == (0.0, 1.0)
    assert found.sd is found.seeds is found.both is None


def test_speakers_are_the_same_in_all_seeds_and_seeds_are_drawn_in_both() -> None:
    # The second seed is right where the first is wrong: whoever is drawn, their mean is one half.
    cell = {(0, None): pattern([True, False] * 5), (1, None): pattern([False, True] * 5)}
    found = mean_of(cell, "war")
    assert found.speakers == pytest.approx((0.5, 0.5))
    assert found.seeds == pytest.approx((0.5, 0.5))
    assert found.both is not None
    assert found.both[0] < 0.4
    assert found.both[1] > 0.6


def test_a_difference_is_paired() -> None:
    subjects = [f"s{number // 8}" for number in range(40)]
    before = [clip < known for known in (0, 2, 4, 6, 7) for clip in range(8)]  # right of eight clips, by speaker
    after = [clip < known + 1 for known in (0, 2, 4, 6, 7) for clip in range(8)]  # one more of each
    a, b = {(0, None): scored(before, subjects)}, {(0, None): scored(after, subjects)}
    alone = mean_of(b, "war").speakers
    assert alone is not None
    assert alone[1] - alone[0] > 0.3
    for pair, expected in (((b, a), 0.125), ((a, b), -0.125), ((a, a), 0.0)):
        found = difference(*pair, "war")
        assert found is not None
        assert found.mean == pytest.approx(expected)
        assert found.speakers == pytest.approx((expected, expected))  # whoever is drawn


def test_seeds_that_one_of_two_lacks_are_left_out_of_the_difference() -> None:
    ours = {(0, None): pattern([True, True]), (1, None): pattern([True, False])}
    theirs = {(0, None): pattern([False, False]), (2, None): pattern([True, True])}
    found = difference(ours, theirs, "war")
    assert found is not None
    assert (found.mean, found.n, found.speakers) == (1.0, 1, (1.0, 1.0))
    assert difference(ours, {(3, None): pattern([True, True])}, "war") is None


def test_a_seed_is_the_mean_of_its_folds_and_counts_when_it_has_all() -> None:
    cell = {
        (0, 1): pattern([True, True]), (0, 2): pattern([False, False]), (1, 1): pattern([True, True]),
        (1, 2): pattern([True, True]), (2, 1): pattern([True, True]),
    }  # fmt: skip
    found = mean_of(cell, "war")
    assert found.n == 2
    assert found.mean == pytest.approx(0.75)
    assert found.sd == pytest.approx(np.std([0.5, 1.0], ddof=1))


def test_folds_are_drawn_apart() -> None:
    # Were the same draws used for both folds, they would cancel: a mean of one half whoever is drawn.
    cell = {(0, 1): pattern([True, False]), (0, 2): pattern([False, True])}
    found = mean_of(cell, "war")
    assert found.speakers == (0.0, 1.0)


def test_clips_that_one_of_two_lacks_do_not_count() -> None:
    few = scored([True] * 8, [f"s{number // 4}" for number in range(8)], clips=[f"c{number}" for number in range(8)])
    found = difference({(0, None): pattern([True, True, False])}, {(0, None): few}, "war")
    assert found is not None
    assert found.groups == 2
    assert found.speakers == (0.0, 0.0)
    assert found.mean == 0.0  # and not 2/3 - 1, of the scores that each has of its own clips


def test_no_seed_with_all_folds_has_no_mean() -> None:
    assert estimate({(0, 1): pattern([True, False]), (1, 2): pattern([True, False])}, "war") is None


def test_clips_without_speakers_are_said_to_be_drawn_themselves() -> None:
    named = {(0, None): pattern([True, False])}
    nameless = {(0, None): scored([True, False] * 4, [""] * 8)}
    found = estimate(named, "war"), estimate(nameless, "war"), difference(nameless, nameless, "war")
    assert [one and (one.over, one.groups) for one in found] == [("subjects", 2), ("clips", 8), ("clips", 8)]


def test_a_score_that_is_undefined_is_said_to_be() -> None:
    one = pattern([True, False])
    undefined = Scores(
        checkpoint="best", values={"war": None}, predictions=one.predictions, classes=CLASSES, dimensions=(),
        protocol="",
    )  # fmt: skip
    found = mean_of({(0, None): one, (1, None): undefined}, "war")
    assert math.isnan(found.mean)
    assert found.speakers is None
