"""Intervals against resampling by hand, against scipy, and against how often they should hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from hicmae.bootstrap import Resampling, score_intervals
from hicmae.metrics import CATEGORICAL, DIMENSIONAL, categorical_scores, dimensional_scores

NAMES = ("a", "b", "c", "d")


def predictions(
    seed: int, speakers: int = 12, clips: int = 9, *, spread: float = 0.3
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Speakers who differ in how well they are recognised."""
    rng = np.random.default_rng(seed)
    subjects = [f"s{i}" for i in range(speakers) for _ in range(clips)]
    ability = np.repeat(rng.normal(0.5, spread, speakers).clip(0.05, 0.95), clips)
    target = rng.integers(0, 4, len(subjects))
    return subjects, target, np.where(rng.random(len(subjects)) < ability, target, rng.integers(0, 4, len(subjects)))


def test_intervals_are_those_of_resampling_by_hand() -> None:
    """One resample after another, clips copied, scores from the ordinary functions."""
    subjects, target, predicted = predictions(0)
    rng = np.random.default_rng(7)
    values = rng.uniform(-1, 1, len(subjects))
    guesses = {"valence": values + rng.normal(0, 0.5, len(values)), "arousal": 0.3 * values + 5}
    settings = Resampling(resamples=60, level=0.8, seed=3)
    ours = score_intervals(
        subjects, classes=(target, predicted, 4),
        dimensions={name: (values, guess) for name, guess in guesses.items()}, settings=settings,
    )  # fmt: skip
    names = sorted(set(subjects))
    found: dict[str, list[float]] = {}
    for drawn in np.random.default_rng(3).integers(0, len(names), size=(60, len(names))):
        rows = np.concatenate([[i for i, own in enumerate(subjects) if own == names[k]] for k in drawn])
        classes = categorical_scores(target[rows], predicted[rows], NAMES)
        each = {name: dimensional_scores(values[rows], guess[rows]) for name, guess in guesses.items()}
        for name in CATEGORICAL:
            found.setdefault(name, []).append(getattr(classes, name))
        for name in DIMENSIONAL:
            found.setdefault(name, []).append(float(np.mean([getattr(one, name) for one in each.values()])))
            for dimension, one in each.items():
                found.setdefault(f"{name}_{dimension}", []).append(getattr(one, name))
    assert set(found) == set(ours.bounds)
    for name, sample in found.items():
        assert ours.bounds[name] == pytest.approx(tuple(np.quantile(sample, (0.1, 0.9))), abs=1e-9), name
    assert (ours.over, ours.groups) == ("subjects", 12)


def test_over_clips_it_is_scipys_bootstrap() -> None:
    rng = np.random.default_rng(1)
    target = rng.normal(size=150)
    predicted = 0.6 * target + rng.normal(0, 0.5, 150)
    ours = score_intervals([""] * 150, dimensions={"x": (target, predicted)})
    theirs = stats.bootstrap(
        (target, predicted), lambda a, b: stats.pearsonr(a, b).statistic, paired=True, vectorized=False,
        n_resamples=2000, method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert ours.over == "clips"
    assert ours.bounds["pcc"] == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Drawn clip by clip, they would not: the speakers' differences are left out."""
    truth, settings = 0.5 + 0.5 / 4, Resampling(resamples=300)
    held = {"speakers": 0, "clips": 0}
    for seed in range(200):
        subjects, target, predicted = predictions(seed, speakers=40, clips=25)
        for name, groups in (("speakers", subjects), ("clips", [""] * len(subjects))):
            bounds = score_intervals(groups, classes=(target, predicted, 4), settings=settings).bounds["war"]
            assert bounds is not None
            held[name] += bounds[0] <= truth <= bounds[1]
    assert 0.89 <= held["speakers"] / 200 <= 0.99
    assert held["clips"] < held["speakers"] - 15


def test_the_same_seed_gives_the_same_bits_and_the_order_of_clips_does_not_matter() -> None:
    subjects, target, predicted = predictions(2)
    first = score_intervals(subjects, classes=(target, predicted, 4))
    assert score_intervals(subjects, classes=(target, predicted, 4)) == first
    order = np.random.default_rng(0).permutation(len(subjects))
    shuffled = [subjects[i] for i in order]
    assert score_intervals(shuffled, classes=(target[order], predicted[order], 4)) == first
    other = Resampling(seed=1)
    assert score_intervals(subjects, classes=(target, predicted, 4), settings=other).bounds != first.bounds


def test_many_clips_are_drawn_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    subjects, target, predicted = predictions(4)
    whole = score_intervals(subjects, classes=(target, predicted, 4))
    monkeypatch.setattr("hicmae.bootstrap._DRAWS_AT_ONCE", 100)
    assert score_intervals(subjects, classes=(target, predicted, 4)) == whole


def test_a_class_of_one_speaker_is_absent_from_some_resamples() -> None:
    """Means are then over the classes that are there, as for the score itself."""
    ours = score_intervals(["a", "a", "b", "b"], classes=([0, 0, 1, 1], [0, 0, 0, 0], 3))
    assert ours.bounds["uar"] == (0.0, 1.0)


def test_where_there_is_no_interval() -> None:
    one = score_intervals(["a", "a", "a"], classes=([0, 1, 1], [0, 1, 0], 2))
    assert set(one.bounds.values()) == {None}
    constant = score_intervals(["a", "b", "c"], dimensions={"x": ([0.1, 0.2, 0.7], [0.3, 0.3, 0.3])})
    assert constant.bounds["pcc"] is None
    assert constant.bounds["ccc"] == (0.0, 0.0)
    assert one.to_dict()["uar"] is None
    mixed = score_intervals(["a", "", "", "a"], classes=([0, 1, 1, 0], [0, 1, 0, 0], 2))
    assert (mixed.groups, mixed.over) == (3, "subjects, and clips that have none")


def test_unusable_settings_and_nothing_to_score() -> None:
    for settings in ({"resamples": 0}, {"level": 95.0}):
        with pytest.raises(ValueError, match=r"resamples=-?\d+ must be"):
            Resampling(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no clip"):
        score_intervals([], classes=([], [], 2))
