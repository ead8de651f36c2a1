"""Windows, convolutions, fusion, loss and merging of the continuous head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hicmae.continuous.leader_follower import LeaderFollower, LeaderFollowerConfig
from hicmae.continuous.loss import masked_ccc_loss
from hicmae.continuous.merging import agreement, centre_folds
from hicmae.continuous.temporal_convolution import TemporalConvolution
from hicmae.continuous.windows import WindowSettings, cut_window, merge_windows, window_starts
from hicmae.losses import ccc_loss
from hicmae.metrics import dimensional_scores


@pytest.mark.parametrize("steps", [1, 7, 299, 300, 301, 499, 500, 501, 700, 1234])
def test_windows_hold_every_step_and_the_last_ends_with_the_sequence(steps: int) -> None:
    settings = WindowSettings()
    starts = window_starts(steps, settings)
    held = np.concatenate([np.arange(start, min(start + 300, steps)) for start in starts])
    assert set(held.tolist()) == set(range(steps))
    assert starts[-1] + 300 == max(steps, 300)
    assert (np.diff(starts) > 0).all()
    assert (np.diff(starts) <= 200).all()
    sequence = np.arange(steps, dtype=np.float64)[:, None]
    windows = np.stack([cut_window(sequence, start, 300) for start in starts])
    np.testing.assert_array_equal(merge_windows(windows, starts, steps), sequence)


def test_overlapping_windows_are_averaged() -> None:
    outputs = np.stack([np.full((3, 1), 1.0), np.full((3, 1), 5.0)])
    np.testing.assert_array_equal(merge_windows(outputs, np.array([0, 2]), 5)[:, 0], [1, 1, 3, 5, 5])
    with pytest.raises(ValueError, match="step 3 of 7 lies in no window"):
        merge_windows(outputs, np.array([0, 4]), 7)


@pytest.mark.parametrize(("settings", "message"), [({"hop": 301}, "hop=301"), ({"length": 0}, "length=0"),
                                                   ({"hop": 0}, "hop=0")])  # fmt: skip
def test_windows_that_would_leave_steps_out_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowSettings(**settings)


@pytest.mark.parametrize("causal", [True, False])
def test_a_step_sees_the_receptive_field_and_no_more(causal: bool) -> None:
    torch.manual_seed(0)
    network = TemporalConvolution(3, 8, causal=causal).double().eval()
    assert network.receptive_steps == 121
    x = torch.randn(1, 300, 3, dtype=torch.float64, requires_grad=True)
    network(x, torch.ones(1, 300, dtype=torch.bool))[0, 150].sum().backward()
    assert x.grad is not None
    seen = torch.nonzero(x.grad[0].abs().sum(dim=1)).flatten()
    first, last = (30, 150) if causal else (90, 210)
    assert (int(seen.min()), int(seen.max())) == (first, last)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_is_like_the_end_of_the_sequence(causal: bool) -> None:
    torch.manual_seed(0)
    network = TemporalConvolution(3, 8, causal=causal).eval()
    x = torch.randn(2, 90, 3)
    alone = network(x, torch.ones(2, 90, dtype=torch.bool))
    padded = torch.cat([x, torch.full((2, 40, 3), torch.nan)], dim=1)
    result = network(padded, torch.arange(130).expand(2, 130) < 90)
    torch.testing.assert_close(result[:, :90], alone)
    assert not result[:, 90:].any()


def _inputs(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(seed)
    features = {name: torch.randn(2, 50, width, generator=rng) for name, width in (("video", 6), ("audio", 5))}
    return features, {name: torch.ones(2, 50, dtype=torch.bool) for name in features}


def test_the_head_has_the_shapes_of_the_paper() -> None:
    model = LeaderFollower({"video": 6, "audio": 5, "fused_audio": 5}, 2, LeaderFollowerConfig())
    features, present = _inputs()
    features["fused_audio"], present["fused_audio"] = features["audio"], present["audio"]
    output = model(features, present)
    assert output.values.shape == (2, 50, 2)
    assert output.attention is not None
    assert output.attention.shape == (2, 50, 3, 3)
    torch.testing.assert_close(output.attention.sum(dim=-1), torch.ones(2, 50, 3))
    assert model.head.in_features == 128 + 3 * 32  # the leader, and what attention makes of every stream
    alone = LeaderFollower({"audio": 5}, 1, LeaderFollowerConfig())
    output = alone({"audio": features["audio"]}, {"audio": present["audio"]})
    assert output.values.shape == (2, 50, 1)
    assert output.attention is None


def test_a_missing_stream_is_not_read() -> None:
    torch.manual_seed(0)
    model = LeaderFollower({"video": 6, "audio": 5}, 2, LeaderFollowerConfig()).eval()
    features, present = _inputs()
    present["audio"][:, 20:] = False
    before = model(features, present)
    features["audio"] = features["audio"].masked_fill(~present["audio"].unsqueeze(-1), torch.nan)
    after = model(features, present)
    torch.testing.assert_close(after.values, before.values)
    assert before.attention is not None
    assert not before.attention[:, 20:, :, 1].any()
    assert before.attention[:, :20, :, 1].all()
    neither = {name: torch.zeros_like(there) for name, there in present.items()}
    assert model(features, neither).values.isfinite().all()


def test_streams_are_standardised_and_constant_ones_dropped() -> None:
    torch.manual_seed(0)
    model = LeaderFollower({"video": 6, "audio": 5}, 1, LeaderFollowerConfig()).eval()
    features, present = _inputs()
    plain = model(features, present).values
    scaled = {name: 40 * value + 7 for name, value in features.items()}
    model.set_statistics({n: torch.full((v.shape[2],), 7.0) for n, v in features.items()},
                         {n: torch.full((v.shape[2],), 40.0) for n, v in features.items()})  # fmt: skip
    torch.testing.assert_close(model(scaled, present).values, plain, rtol=1e-4, atol=1e-4)
    model.set_statistics({"video": torch.zeros(6), "audio": torch.zeros(5)},
                         {"video": torch.zeros(6), "audio": torch.ones(5)})  # fmt: skip
    first = model(features, present).values
    torch.testing.assert_close(model(features | {"video": features["video"] + 9}, present).values, first)


def test_masked_steps_do_not_matter() -> None:
    torch.manual_seed(0)
    model = LeaderFollower({"video": 6, "audio": 5}, 2, LeaderFollowerConfig(dropout=0.0))
    features, present = _inputs()
    for there in present.values():
        there[1, 30:] = False  # padding
    labelled = torch.rand(2, 50, 2) > 0.3
    labelled[1, 30:] = False
    target = torch.randn(2, 50, 2)

    def gradients(features: dict[str, Tensor], target: Tensor) -> list[Tensor]:
        model.zero_grad()
        loss = masked_ccc_loss(model(features, present).values, target, labelled)
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    before = gradients(features, target)
    assert before[0] > 0.1
    for value in features.values():
        value[1, 30:] = 1e4
    after = gradients(features, target.masked_fill(~labelled, -5.0))
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other)
    labelled[0, 0] = ~labelled[0, 0]
    assert not torch.equal(gradients(features, target)[0], before[0])


def test_the_loss_is_that_of_the_labelled_steps_alone() -> None:
    rng = torch.Generator().manual_seed(0)
    values, target = (torch.randn(3, 20, 2, generator=rng) for _ in range(2))
    labelled = torch.rand(3, 20, generator=rng) > 0.4
    expected = ccc_loss(values[labelled], target[labelled])
    both = labelled.unsqueeze(-1).expand(3, 20, 2)
    torch.testing.assert_close(masked_ccc_loss(values, target.masked_fill(~both, torch.nan), both), expected)
    first = both.clone()
    first[..., 1] = False  # one target without any label leaves the other's loss
    torch.testing.assert_close(
        masked_ccc_loss(values, target, first), ccc_loss(values[labelled][:, :1], target[labelled][:, :1])
    )
    assert masked_ccc_loss(values, target, torch.zeros_like(both)) == 0


def test_centring_matches_a_case_by_hand() -> None:
    # CCC of (0, 1) with (0, 1) is 1; variances and covariance are 1/4: with (1/2, 3/2) it is 2/4 / (3 * 1/4) = 2/3.
    x = np.array([[0.0, 1.0], [0.0, 1.0], [0.5, 1.5]])
    np.testing.assert_allclose(agreement(x), [5 / 6, 5 / 6, 2 / 3])
    # Means 1/2, 1/2, 1; common mean (5/6 * 1/2 * 2 + 2/3 * 1) / (5/6 * 2 + 2/3) = (3/2) / (7/3) = 9/14.
    np.testing.assert_allclose(centre_folds(x, limits=(-2, 2)), [9 / 14 - 0.5, 9 / 14 + 0.5])
    np.testing.assert_allclose(centre_folds(x), [9 / 14 - 0.5, 1.0])  # cut to the limits
    np.testing.assert_array_equal(centre_folds(x[:1]), x[0])


def test_negative_agreement_counts_as_the_formula_says_unless_the_mean_leaves_the_folds() -> None:
    curve, other = np.sin(np.arange(60) / 3), np.cos(np.arange(60) / 2)
    x = np.stack([0.3 + 0.4 * curve, 0.1 + 0.5 * curve, -0.2 + 0.2 * curve + 0.2 * other, -0.1 - 0.05 * curve])
    weights = agreement(x)
    assert weights[3] < 0 < weights[:3].min()
    common = (x.mean(axis=1) * weights).sum() / weights.sum()
    assert -0.2 < common < 0.3
    np.testing.assert_allclose(centre_folds(x), (x - x.mean(axis=1, keepdims=True)).mean(axis=0) + common)
    # Three that agree a little, each with noise of its own, and one against them all.
    waves = np.stack([np.sin(2 * np.pi * n * np.arange(600) / 600) for n in (2, 3, 4, 5)])
    x = np.vstack([0.2 + 0.3 * waves[0] + 0.45 * waves[1:], 0.3 - 0.15 * waves[:1]])
    weights, means = agreement(x), x.mean(axis=1)
    assert weights.sum() > 0
    assert (means * weights).sum() / weights.sum() < means.min() - 0.1  # by the letter, below every fold
    kept = weights.clip(min=0)
    np.testing.assert_allclose(centre_folds(x).mean(), (means * kept).sum() / kept.sum())


def test_a_fold_that_nobody_agrees_with_does_not_move_the_mean() -> None:
    curve = np.sin(np.arange(50))
    merged = centre_folds(np.stack([0.5 * curve, 0.5 * curve, 0.4 - 0.5 * curve]))
    assert abs(merged.mean() - 0.5 * curve.mean()) < 1e-9
    constant = centre_folds(np.array([[0.2, 0.2], [0.4, 0.4]]))  # no agreement at all: all weigh the same
    np.testing.assert_allclose(constant, 0.3)
    with pytest.raises(ValueError, match="folds, frames"):
        centre_folds(np.zeros(3))
    assert dimensional_scores(merged, curve).pcc > 0.99
