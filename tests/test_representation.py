"""Measures of features on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from hicmae.representation import (
    alignment,
    alignment_of_strangers,
    effective_rank,
    rank,
    uniformity,
    unit,
)


def test_ranks_count_ties_against_the_partner() -> None:
    same = np.ones((4, 2))
    assert rank(same, same).ranks.tolist() == [4] * 4
    own = np.eye(4)
    assert rank(own, own).ranks.tolist() == [1] * 4
    assert rank(own, np.roll(own, 1, axis=0)).recall(1) == 0
    assert rank(own, own * 7).median_rank == 1


def test_unit_rows_have_length_one_and_zeros_stay() -> None:
    np.testing.assert_allclose(unit(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]])


def test_alignment_is_the_squared_distance_on_the_sphere() -> None:
    first = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert alignment(first, first * 5) == pytest.approx(0)
    assert alignment(first, -first) == pytest.approx(4)
    assert alignment(first, first[::-1]) == pytest.approx(2)  # at right angles
    assert alignment(first, np.array([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx(1)  # one agrees, one at right angles


def test_strangers_are_all_pairs_but_the_partners() -> None:
    first = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    # six pairs: two of the same direction, four at right angles
    assert alignment_of_strangers(first, first) == pytest.approx((2 * 0 + 4 * 2) / 6)
    rng = np.random.default_rng(0)
    apart = rng.normal(size=(40, 64))
    assert alignment_of_strangers(apart, rng.normal(size=(40, 64))) == pytest.approx(2, abs=0.05)


def test_uniformity_of_equal_opposite_and_spread_features() -> None:
    assert uniformity(np.ones((5, 3))) == pytest.approx(0)
    assert uniformity(np.array([[1.0, 0.0], [-2.0, 0.0]])) == pytest.approx(-8)
    assert uniformity(np.eye(6)) == pytest.approx(-4)  # all at right angles: d^2 = 2
    rng = np.random.default_rng(0)
    spread, bunched = rng.normal(size=(50, 8)), rng.normal(size=(50, 8)) + 5
    assert uniformity(spread) < uniformity(bunched) < 0


def test_effective_rank_counts_directions() -> None:
    line = np.outer(np.arange(6.0), [1.0, 2.0, 3.0])
    assert effective_rank(line) == pytest.approx(1)
    assert effective_rank(line + 100) == pytest.approx(1), "what all have in common is no direction"
    plane = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    assert effective_rank(plane) == pytest.approx(2)
    assert effective_rank(np.eye(5)) == pytest.approx(4)  # centred: one less
    # singular values 3 : 1, entropy of (3/4, 1/4)
    uneven = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    assert effective_rank(uneven) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))
    assert effective_rank(np.full((4, 3), 0.1)) == 0
    noise = np.random.default_rng(0).normal(size=(40, 8))
    assert effective_rank(noise * 7) == pytest.approx(effective_rank(noise))


@pytest.mark.parametrize("measure", [uniformity, effective_rank, lambda x: alignment_of_strangers(x, x)])
def test_one_clip_has_no_pairs(measure) -> None:
    with pytest.raises(ValueError, match="1 clips have no pairs"):
        measure(np.ones((1, 4)))
