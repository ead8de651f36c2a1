"""Calibration errors and temperature scaling, on predictions whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize

from hicmae.calibration import (
    COLDEST,
    HOTTEST,
    SCORES,
    calibration_errors,
    calibration_intervals,
    ece_by_chance,
    fit_temperature,
    reliability,
    scaled,
)


def calibrated(clips: int = 20000, classes: int = 5, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Labels drawn from the probabilities themselves."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(clips, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (probabilities.cumsum(axis=1) < rng.random((clips, 1))).sum(axis=1).clip(max=classes - 1)
    return probabilities, label


def test_a_calibrated_model_has_no_error_but_that_of_chance() -> None:
    below = []
    for seed in range(10):
        probabilities, label = calibrated(2000, seed=seed)
        below.append(calibration_errors(probabilities, label)["ece"] < ece_by_chance(probabilities, draws=200)[1])
    assert sum(below) >= 8  # of 95%
    assert ece_by_chance(probabilities[:100], draws=200)[0] > 3 * ece_by_chance(probabilities, draws=200)[0]
    many, many_label = calibrated(20000)
    errors = calibration_errors(many, many_label)
    assert max(errors["ece"], errors["ece_equal_mass"]) < 0.015


def test_errors_by_hand() -> None:
    probabilities = [[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.3, 0.7]]
    label = [0, 1, 0, 1]
    errors = calibration_errors(probabilities, label)
    assert errors["ece"] == pytest.approx((2 * 0.4 + 2 * 0.3) / 4)  # 0.9 against 1/2, 0.7 against 2/2
    assert errors["mce"] == pytest.approx(0.4)
    assert errors["brier"] == pytest.approx((0.02 + 1.62 + 0.18 + 0.18) / 4)
    assert errors["nll"] == pytest.approx(-np.log([0.9, 0.1, 0.7, 0.7]).mean())
    bins = reliability(probabilities, label)
    assert bins.clips.sum() == 4
    assert bins.accuracy[bins.clips > 0].tolist() == [1.0, 0.5]
    assert bins.confidence[bins.clips > 0] == pytest.approx([0.7, 0.9])


def test_bins_of_equal_mass_hold_equally_many_clips() -> None:
    probabilities, label = calibrated(1500)
    clips = reliability(probabilities, label, equal_mass=True).clips
    assert len(clips) == 15
    assert clips.min() >= 99
    assert clips.max() <= 101
    same = reliability([[0.6, 0.4]] * 10, [0] * 10, equal_mass=True)  # one confidence fills one bin
    assert same.clips.sum() == 10
    assert calibration_errors([[0.6, 0.4]] * 10, [0] * 10)["ece_equal_mass"] == pytest.approx(0.4)


@pytest.mark.parametrize("planted", [0.4, 1.0, 2.5])
def test_a_planted_temperature_is_recovered(planted: float) -> None:
    truth, label = calibrated(4000)
    shown = scaled(truth, 1 / planted)  # too sure by that much
    found = fit_temperature(shown, label)
    assert found.value == pytest.approx(planted, rel=0.06)
    assert not found.at_limit
    best = optimize.minimize_scalar(
        lambda log: -np.log(scaled(shown, np.exp(log))[np.arange(len(label)), label]).mean(),
        bounds=(-3, 3),
        method="bounded",
        options={"xatol": 1e-6},
    )
    assert np.log(found.value) == pytest.approx(best.x, abs=1e-4)
    before, after = calibration_errors(shown, label), calibration_errors(scaled(shown, found.value), label)
    for name in SCORES if planted != 1 else ():
        assert after[name] < before[name]
    assert (scaled(shown, found.value).argmax(axis=1) == shown.argmax(axis=1)).all()


def test_scaling_probabilities_of_one_window_is_scaling_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 4)) * 3
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    divided = np.exp(logits / 1.7) / np.exp(logits / 1.7).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scaled(softmax, 1.7), divided, atol=1e-12)
    assert np.isfinite(scaled([[1.0, 0.0]], 0.01)).all()


def test_temperatures_without_an_optimum_say_so() -> None:
    right = fit_temperature([[0.8, 0.2]] * 5, [0] * 5)
    wrong = fit_temperature([[0.8, 0.2]] * 5, [1] * 5)
    assert (right.value, right.at_limit) == (COLDEST, True)
    assert (wrong.value, wrong.at_limit) == (HOTTEST, True)


def test_intervals_are_over_speakers_and_differences_are_paired() -> None:
    truth, label = calibrated(2000)
    shown = scaled(truth, 0.5)
    subjects = [f"s{i % 40}" for i in range(len(label))]
    intervals = calibration_intervals(subjects, label, {"before": shown, "after": scaled(shown, 2.0)})
    assert (intervals.over, intervals.groups) == ("subjects", 40)
    for version, given in (("before", shown), ("after", truth)):
        errors = calibration_errors(given, label)
        for name in ("brier", "nll"):
            low, high = intervals.bounds[f"{version}/{name}"]  # type: ignore[misc]
            assert low < errors[name] < high
    low, high = intervals.bounds["difference/nll"]  # type: ignore[misc]
    assert low < high < 0
    wide = intervals.bounds["before/nll"]
    assert high - low < wide[1] - wide[0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("probabilities", "label", "message"),
    [
        ([[0.5, 0.5]], [0, 1], "expected"),
        ([[0.5, 0.2]], [0], "sum of 1"),
        ([[0.5, 0.5]], [2], "class 2"),
    ],
)
def test_what_are_no_predictions(probabilities: list, label: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibration_errors(probabilities, label)
    with pytest.raises(ValueError, match="above 0"):
        scaled([[0.5, 0.5]], 0.0)
