"""Two numbers about attention, on matrices whose answer is known."""

from __future__ import annotations

import pytest
import torch

from hicmae.attention_measures import attention_distance, attention_entropy, distance_of_even_attention


def test_entropy_is_a_share_of_the_most_there_can_be() -> None:
    assert attention_entropy(torch.full((2, 3, 6, 6), 1 / 6)) == pytest.approx(1)
    assert attention_entropy(torch.eye(6).expand(2, 3, 6, 6)) == 0
    halves = torch.tensor([[0.5, 0.5, 0, 0]]).expand(1, 1, 4, 4)
    assert attention_entropy(halves) == pytest.approx(0.5)


def test_distance_is_that_of_the_tokens_on_their_grid() -> None:
    alone = torch.eye(6).reshape(1, 1, 6, 6)
    assert attention_distance(alone, (2, 3)) == 0
    # tokens 0 and 5 of a grid of 2 x 3 lie one row and two columns apart
    across = torch.zeros(1, 1, 6, 6)
    across[..., 5] = 1
    steps = [(1 + 4) ** 0.5, (1 + 1) ** 0.5, 1.0, 2.0, 1.0, 0.0]
    assert attention_distance(across, (2, 3)) == pytest.approx(sum(steps) / 6)
    even = torch.full((2, 2, 6, 6), 1 / 6)
    assert attention_distance(even, (2, 3)) == pytest.approx(distance_of_even_attention((2, 3)))
    assert distance_of_even_attention((3,)) == pytest.approx((0 + 1 + 2 + 1 + 0 + 1 + 2 + 1 + 0) / 9)
