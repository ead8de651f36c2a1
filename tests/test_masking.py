"""Masks: how many tokens, which, and the complement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hicmae.masking import complement, random_mask, take_tokens, tube_mask, visible_count


def test_the_papers_counts():
    rng = np.random.default_rng(0)
    assert tube_mask(rng, (8, 10, 10), 0.9).shape == (80,)
    assert random_mask(rng, 128, 0.8).shape == (26,)


@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(2, 200), ratio=st.floats(0.01, 0.99))
def test_a_random_mask_is_ascending_unique_and_masks_its_share(seed, tokens, ratio):
    masked = int(ratio * tokens)
    if masked == 0:
        with pytest.raises(ValueError, match="choose a ratio"):
            random_mask(np.random.default_rng(seed), tokens, ratio)
        return
    mask = random_mask(np.random.default_rng(seed), tokens, ratio)
    assert mask.dtype == np.int64
    assert len(mask) == tokens - masked
    assert (np.diff(mask) > 0).all()
    assert mask.min() >= 0
    assert mask.max() < tokens


@given(
    seed=st.integers(0, 2**32 - 1), time=st.integers(1, 8), rows=st.integers(2, 10), columns=st.integers(2, 10),
    ratio=st.floats(0.3, 0.95),
)  # fmt: skip
def test_a_tube_is_the_same_in_every_time_slot(seed, time, rows, columns, ratio):
    mask = tube_mask(np.random.default_rng(seed), (time, rows, columns), ratio)
    slots = mask.reshape(time, -1)
    assert slots.shape[1] == rows * columns - int(ratio * (rows * columns))
    assert (np.diff(mask) > 0).all()
    for slot in range(time):
        np.testing.assert_array_equal(slots[slot], slots[0] + slot * rows * columns)
    assert slots[0].max() < rows * columns


def test_every_token_is_equally_likely_to_be_seen():
    rng = np.random.default_rng(0)
    seen = np.zeros(16)
    for _ in range(4000):
        seen[random_mask(rng, 16, 0.75)] += 1
    assert seen / 4000 == pytest.approx(np.full(16, 0.25), abs=0.04)


def test_masks_belong_to_the_generator():
    one, same, other = (random_mask(np.random.default_rng(seed), 100, 0.5) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("ratio", [-0.5, 0.0, 0.05, 1.0, 1.5])
def test_a_ratio_that_masks_nothing_or_everything_is_refused(ratio):
    with pytest.raises(ValueError, match=f"mask ratio {ratio} leaves .* of 10 tokens visible"):
        visible_count(10, ratio)


@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(2, 300), batch=st.integers(1, 4))
def test_the_complement_is_the_rest_in_ascending_order(seed, tokens, batch):
    rng = np.random.default_rng(seed)
    visible = np.stack([random_mask(rng, tokens, 0.6) for _ in range(batch)])
    masked = complement(torch.from_numpy(visible), tokens)
    assert masked.dtype == torch.int64
    for row, hidden in zip(visible, masked.numpy(), strict=True):
        np.testing.assert_array_equal(hidden, np.setdiff1d(np.arange(tokens), row))


def test_take_tokens_takes_each_clips_own():
    tokens = torch.arange(2 * 5 * 3).reshape(2, 5, 3)
    taken = take_tokens(tokens, torch.tensor([[0, 4], [3, 1]]))
    assert torch.equal(taken, torch.stack([tokens[0, [0, 4]], tokens[1, [3, 1]]]))
