"""Masks: how many tokens, which, and the complement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hicmae.masking import (
    complement,
    decoded_count,
    random_decoded,
    random_mask,
    running_cells,
    take_tokens,
    tube_mask,
    visible_count,
)


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


# ---------------------------------------------------------------- which masked tokens are decoded


def test_half_of_the_papers_masked_tokens():
    rng = np.random.default_rng(0)
    video, audio = tube_mask(rng, (8, 10, 10), 0.9), random_mask(rng, 128, 0.8)
    assert running_cells(rng, (8, 10, 10), video, 0.5).shape == (360,)
    assert random_decoded(rng, 128, audio, 0.5).shape == (51,)


@given(
    seed=st.integers(0, 2**32 - 1), time=st.integers(1, 8), rows=st.integers(2, 10), columns=st.integers(2, 10),
    mask_ratio=st.floats(0.3, 0.95), ratio=st.floats(0.2, 1.0), tubes=st.booleans(),
)  # fmt: skip
def test_what_is_decoded_is_masked_and_exactly_so_many(seed, time, rows, columns, mask_ratio, ratio, tubes):
    rng, grid, tokens = np.random.default_rng(seed), (time, rows, columns), time * rows * columns
    visible = tube_mask(rng, grid, mask_ratio) if tubes else random_mask(rng, tokens, mask_ratio)
    masked = np.setdiff1d(np.arange(tokens), visible)
    if round(ratio * len(masked)) == 0:
        return
    for decoded in (running_cells(rng, grid, visible, ratio), random_decoded(rng, tokens, visible, ratio)):
        assert decoded.dtype == np.int64
        assert len(decoded) == round(ratio * len(masked))
        assert (np.diff(decoded) > 0).all()
        assert np.isin(decoded, masked).all()
    assert np.array_equal(running_cells(rng, grid, visible, 1.0), masked)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_cells_run_on_by_one_place_in_each_slot_and_come_round_to_every_place_equally_often(seed, quarters):
    rng, grid = np.random.default_rng(seed), (8, 10, 10)
    visible = tube_mask(rng, grid, 0.9)
    decoded = np.zeros(800, dtype=bool)
    decoded[running_cells(rng, grid, visible, quarters / 4)] = True
    hidden = np.ones(800, dtype=bool)
    hidden[visible] = False
    # (time, cell row, row within the cell, cell column, column within it) -> (time, place of the cell clockwise, cell)
    decoded, hidden = (
        x.reshape(8, 5, 2, 5, 2)[:, :, [0, 0, 1, 1], :, [0, 1, 1, 0]].transpose(1, 0, 2, 3).reshape(8, 4, 25)
        for x in (decoded, hidden)
    )
    chosen = decoded.any(axis=2)  # (time, place)
    assert (chosen.sum(axis=1) == quarters).all()
    assert np.array_equal(decoded, hidden & chosen[:, :, None])  # all that is masked there, and nothing else
    for slot in range(8):
        assert np.array_equal(chosen[slot], np.roll(chosen[0], slot))
        assert (chosen[slot] & ~np.roll(chosen[slot], 1)).sum() == 1  # neighbours on the way round
    assert (decoded.sum(axis=0)[hidden[0]] == 2 * quarters).all()


def test_cells_begin_anywhere():
    rng, grid = np.random.default_rng(0), (4, 4, 4)
    visible = tube_mask(rng, grid, 0.5)
    drawn = {running_cells(np.random.default_rng(seed), grid, visible, 0.5).tobytes() for seed in range(30)}
    assert len(drawn) == 4


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8])
def test_every_slot_gets_its_share(ratio):
    counts = np.zeros(8)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        decoded = running_cells(rng, (8, 10, 10), tube_mask(rng, (8, 10, 10), 0.9), ratio)
        per_slot = np.bincount(decoded // 100, minlength=8)
        counts += per_slot / 200
        assert abs(per_slot - 90 * ratio).max() < 12
    assert counts == pytest.approx(np.full(8, 90 * ratio), abs=0.6)


def test_every_masked_sound_token_is_equally_likely_to_be_decoded():
    counts = np.zeros(16)
    visible = np.array([1, 5, 6, 12])
    for seed in range(3000):
        counts[random_decoded(np.random.default_rng(seed), 16, visible, 0.25)] += 1
    assert not counts[visible].any()
    assert np.delete(counts, visible) / 3000 == pytest.approx(np.full(12, 0.25), abs=0.04)


@pytest.mark.parametrize("ratio", [-0.5, 0.0, 1.01, float("nan")])
def test_a_share_that_cannot_be_is_refused(ratio):
    with pytest.raises(ValueError, match=f"decode ratio {ratio} must be above 0 and at most 1"):
        decoded_count(10, ratio)


def test_a_share_that_decodes_nothing_is_refused():
    assert decoded_count(10, 0.1) == 1
    with pytest.raises(ValueError, match=r"decode ratio 0.04 decodes none of 10 masked tokens; choose at least 0.1"):
        decoded_count(10, 0.04)
