"""Probes without settings: what they predict where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from hicmae.fixed_probes import balanced_weights, predict_by_neighbours, predict_linearly


def test_neighbours_vote_by_nearness_and_length_does_not_count() -> None:
    features = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3)
    targets = np.eye(2)[[0, 0, 0, 1, 1, 1]]
    for scale in (1, 9):
        shares = predict_by_neighbours(features, targets, scale * np.array([[1.0, 0.1], [0.1, 1.0]]))
        assert shares.argmax(axis=1).tolist() == [0, 1]
        np.testing.assert_allclose(shares.sum(axis=1), 1)
    even = predict_by_neighbours(features, targets, np.array([[1.0, 1.0]]))
    np.testing.assert_allclose(even, [[0.5, 0.5]])


def test_ten_neighbours_are_asked() -> None:
    angles = np.linspace(0, 0.01, 12)
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    values = np.array([1.0] * 10 + [1000.0, 1000.0])[:, None]
    assert predict_by_neighbours(features, values, features[:1])[0, 0] == pytest.approx(1)


@pytest.mark.parametrize("width", [4, 60])  # the two forms of the solution
def test_the_linear_model_is_ridge_on_standardised_features(width: int) -> None:
    rng = np.random.default_rng(0)
    x, queries = rng.normal(size=(30, width)) * rng.uniform(0.1, 9, width) + 3, rng.normal(size=(7, width))
    y = rng.normal(size=(30, 2))
    standard = [(part - x.mean(axis=0)) / x.std(axis=0) for part in (x, queries)]
    expected = Ridge(alpha=30).fit(standard[0], y).predict(standard[1])
    np.testing.assert_allclose(predict_linearly(x, y, queries), expected, rtol=1e-8)


def test_a_feature_that_does_not_vary_tells_nothing() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 1))
    constant = np.full((30, 1), 5.0)
    queries = np.hstack([x[:4], [[9.0]] * 4])
    np.testing.assert_allclose(
        predict_linearly(np.hstack([x, constant]), y, queries), predict_linearly(x, y, x[:4]), rtol=1e-9
    )


def test_weights_count_clips_as_if_they_were_there_so_often() -> None:
    rng = np.random.default_rng(0)
    x, y, queries = rng.normal(size=(6, 3)), rng.normal(size=(6, 1)), rng.normal(size=(4, 3))
    often = np.array([1, 2, 1, 3, 1, 1])
    repeated = [np.repeat(part, often, axis=0) for part in (x, y)]
    np.testing.assert_allclose(
        predict_linearly(x, y, queries, weights=often.astype(float)), predict_linearly(*repeated, queries), rtol=1e-9
    )
    np.testing.assert_allclose(balanced_weights(np.array([0, 2, 2, 0, 0])), [1 / 3, 1 / 2, 1 / 2, 1 / 3, 1 / 3])
