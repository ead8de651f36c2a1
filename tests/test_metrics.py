"""Scores against scikit-learn and scipy, and where they are not defined."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from hicmae.metrics import CATEGORICAL, categorical_scores, confusion_matrix, confusion_scores, dimensional_scores

NAMES = ("angry", "happy", "neutral", "sad", "calm")


@pytest.mark.parametrize("seed", range(5))
def test_categories_equal_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.choice(5, 200, p=(0.4, 0.3, 0.2, 0.07, 0.03))
    predicted = np.where(rng.random(200) < 0.4, target, rng.integers(0, 5, 200))
    ours = categorical_scores(target, predicted, NAMES)
    assert ours.uar == pytest.approx(sk.balanced_accuracy_score(target, predicted), abs=1e-12)
    assert ours.war == pytest.approx(sk.accuracy_score(target, predicted), abs=1e-12)
    assert ours.macro_f1 == pytest.approx(sk.f1_score(target, predicted, average="macro"), abs=1e-12)
    assert ours.weighted_f1 == pytest.approx(sk.f1_score(target, predicted, average="weighted"), abs=1e-12)
    np.testing.assert_allclose(ours.recall, sk.recall_score(target, predicted, average=None), atol=1e-12)
    np.testing.assert_allclose(ours.f1, sk.f1_score(target, predicted, average=None), atol=1e-12)
    np.testing.assert_array_equal(ours.confusion, sk.confusion_matrix(target, predicted, labels=range(5)))


def test_absent_classes_are_left_out_of_means_and_named(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    target, predicted = rng.choice([0, 1, 3], 60), rng.integers(0, 5, 60)  # 2 and 4 are only ever predicted
    with caplog.at_level(logging.WARNING):
        ours = categorical_scores(target, predicted, NAMES)
    present = [0, 1, 3]
    assert ours.absent == ("neutral", "calm")
    assert "neutral, calm" in caplog.text
    assert ours.uar == pytest.approx(sk.recall_score(target, predicted, labels=present, average="macro"))
    assert ours.macro_f1 == pytest.approx(sk.f1_score(target, predicted, labels=present, average="macro"))
    assert ours.weighted_f1 == pytest.approx(sk.f1_score(target, predicted, average="weighted", zero_division=0))
    assert [math.isnan(value) for value in ours.recall] == [False, False, True, False, True]
    assert [math.isnan(value) for value in ours.f1] == [False, False, True, False, True]
    each = sk.f1_score(target, predicted, labels=present, average=None)
    np.testing.assert_allclose([ours.f1[i] for i in present], each)
    assert ours.war == sk.accuracy_score(target, predicted)


def test_many_confusion_matrices_at_once_score_as_each_alone() -> None:
    rng = np.random.default_rng(0)
    confusions = rng.integers(0, 6, (2, 3, 5, 5))
    confusions[1, 2, 3] = 0  # no clip of a class
    together = confusion_scores(confusions)
    for place in np.ndindex(2, 3):
        target, predicted = (np.repeat(axis, confusions[place].ravel()) for axis in np.indices((5, 5)).reshape(2, -1))
        alone = categorical_scores(target, predicted, NAMES)
        for name in (*CATEGORICAL, "recall", "f1"):
            np.testing.assert_allclose(together[name][place], getattr(alone, name), rtol=1e-14)
    assert np.isnan(confusion_scores(np.zeros((5, 5)))["uar"])


def test_every_class_wrong_scores_zero() -> None:
    ours = categorical_scores([0, 1], [1, 0], NAMES[:2])
    assert (ours.uar, ours.war, ours.macro_f1, ours.weighted_f1) == (0, 0, 0, 0)


def test_rows_of_the_confusion_are_the_truth() -> None:
    assert confusion_matrix([0, 0, 1], [1, 1, 1], 2).tolist() == [[0, 2], [0, 1]]


@pytest.mark.parametrize("seed", range(3))
def test_dimensions_equal_scipy_and_lin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.uniform(-1, 1, 150)
    predicted = 0.5 * target + 0.2 + rng.normal(0, 0.3, 150)
    ours = dimensional_scores(target, predicted)
    pearson = stats.pearsonr(target, predicted).statistic
    lin = 2 * pearson * target.std() * predicted.std()
    lin /= target.var() + predicted.var() + (target.mean() - predicted.mean()) ** 2
    assert ours.pcc == pytest.approx(pearson, abs=1e-12)
    assert ours.ccc == pytest.approx(lin, abs=1e-12)
    assert ours.mae == pytest.approx(sk.mean_absolute_error(target, predicted), abs=1e-12)
    assert ours.rmse == pytest.approx(sk.root_mean_squared_error(target, predicted), abs=1e-12)


def test_constant_predictions() -> None:
    ours = dimensional_scores([0.1, 0.2, 0.7], [0.1, 0.1, 0.1])
    assert ours.ccc == 0
    assert math.isnan(ours.pcc)
    assert math.isnan(dimensional_scores([0.1, 0.1], [0.1, 0.1]).ccc)


@pytest.mark.parametrize(
    ("target", "predicted", "message"),
    [([], [], "no clip"), ([0, 1], [0], "one value a clip"), ([0, 2], [0, 0], r"expected 0\.\.1")],
)
def test_unusable_predictions(target: list[int], predicted: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        categorical_scores(np.array(target, dtype=int), np.array(predicted, dtype=int), NAMES[:2])
