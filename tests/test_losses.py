"""Every loss against a formula written out in numpy, in float64."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.utils.class_weight import compute_class_weight

from hicmae import losses
from hicmae.losses import audio_target, balanced_weights, contrastive, masked_mse, soft_cross_entropy, video_target
from tests.tiny_model import TINY


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def float32(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values).float()


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize("tubelet", [2, 4])
@pytest.mark.parametrize("frame_difference", [True, False])
def test_video_target(rng, tubelet, frame_difference):
    config = type(TINY)(**TINY.to_dict() | {"tubelet_size": tubelet})
    patches = rng.uniform(size=(2, 5, tubelet, 16, 16, 3)) * rng.uniform(0.1, 1, size=(2, 5, 1, 1, 1, 3))
    mean = patches.mean(axis=(2, 3, 4), keepdims=True)
    deviation = patches.std(axis=(2, 3, 4), keepdims=True, ddof=1) + 1e-6
    expected = (patches - mean) / deviation
    if frame_difference:
        expected = np.concatenate([expected[:, :, :1], np.diff(expected, axis=2)], axis=2)
    ours = video_target(float32(patches.reshape(2, 5, -1)), config, frame_difference=frame_difference)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours, expected.reshape(2, 5, -1), atol=2e-5)


def test_the_deviation_is_raised_by_a_millionth():
    # Pixels that differ by about as much as the constant: its place and size are visible.
    patch = np.tile([[-1e-6], [1e-6]], (256, 3)).reshape(1, 1, -1)
    deviation = np.sqrt(512 / 511) * 1e-6
    target = video_target(float32(patch), TINY, frame_difference=False)
    np.testing.assert_allclose(target, patch / (deviation + 1e-6), rtol=1e-3)


def test_a_constant_patch_has_a_finite_target():
    assert torch.equal(video_target(torch.full((1, 2, 1536), 0.5), TINY), torch.zeros(1, 2, 1536))
    assert torch.equal(audio_target(torch.zeros(1, 2, 256)), torch.zeros(1, 2, 256))


def test_audio_target(rng):
    patches = rng.normal(3, 2, size=(2, 5, 256))
    expected = (patches - patches.mean(-1, keepdims=True)) / (patches.std(-1, keepdims=True, ddof=1) + 1e-6)
    np.testing.assert_allclose(audio_target(float32(patches)), expected, atol=1e-5)


@given(scale=st.floats(0.1, 10), shift=st.floats(-3, 3))
@settings(deadline=None, max_examples=25)
def test_targets_do_not_change_with_brightness_or_loudness(scale, shift):
    patches = torch.rand(1, 3, 1536, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        video_target(patches * scale + shift, TINY), video_target(patches, TINY), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(audio_target(patches * scale + shift), audio_target(patches), atol=1e-3, rtol=0)


# ---------------------------------------------------------------- masked reconstruction


def test_masked_mse(rng):
    prediction, target = rng.normal(size=(2, 3, 4, 5))
    ours = masked_mse(float32(prediction), float32(target))
    assert ours.item() == pytest.approx(((prediction - target) ** 2).mean(), rel=1e-6)


@given(present=st.lists(st.booleans(), min_size=1, max_size=6))
@settings(deadline=None, max_examples=30)
def test_masked_mse_counts_only_clips_that_are_there(present):
    prediction, target = np.random.default_rng(1).normal(size=(2, len(present), 4, 5))
    leaf = float32(prediction).requires_grad_()
    loss = masked_mse(leaf, float32(target), torch.tensor(present))
    expected = ((prediction - target) ** 2)[present].mean() if any(present) else 0
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert (leaf.grad.abs().sum((1, 2)) > 0).tolist() == present


# ---------------------------------------------------------------- contrast


def info_nce(video, audio, temperature=0.07):
    """Loss of one tap and its video-to-audio logits, from rows of features."""
    video, audio = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (video, audio))
    logits = video @ audio.T / temperature
    return -(np.diag(log_softmax(logits)) + np.diag(log_softmax(logits.T))).mean() / 2, logits


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_contrastive_is_symmetric_info_nce_summed_over_taps(rng, temperature):
    video, audio = rng.normal(size=(2, 3, 5, 8))
    parts = [info_nce(v, a, temperature) for v, a in zip(video, audio, strict=True)]
    loss, logits = contrastive(list(float32(video)), list(float32(audio)), temperature=temperature)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(sum(part for part, _ in parts), rel=1e-5)
    assert len(logits) == 3
    for ours, (_, expected) in zip(logits, parts, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_the_default_temperature_is_the_papers(rng):
    video, audio = float32(rng.normal(size=(2, 5, 8)))
    assert torch.equal(contrastive([video], [audio])[0], contrastive([video], [audio], temperature=0.07)[0])


@given(present=st.lists(st.booleans(), min_size=1, max_size=6))
@settings(deadline=None, max_examples=30)
def test_clips_without_both_modalities_are_neither_anchors_nor_negatives(present):
    video, audio = np.random.default_rng(2).normal(size=(2, len(present), 8))
    leaves = [float32(video).requires_grad_(), float32(audio).requires_grad_()]
    loss, _ = contrastive([leaves[0]], [leaves[1]], present=torch.tensor(present))
    expected = info_nce(video[present], audio[present])[0] if any(present) else 0
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    loss.backward()
    for leaf in leaves:
        assert torch.isfinite(leaf.grad).all()
        assert not leaf.grad[~torch.tensor(present)].any()


def test_global_negatives_of_one_process_are_local(rng):
    video, audio = float32(rng.normal(size=(2, 5, 8)))
    assert torch.equal(contrastive([video], [audio], negatives="global")[0], contrastive([video], [audio])[0])


@given(
    clip_of=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    present=st.lists(st.booleans(), min_size=7, max_size=7) | st.none(),
)
@settings(deadline=None, max_examples=50)
def test_views_of_a_clip_are_no_negatives_of_one_another(clip_of, present):
    """Each view against itself and the views of other clips, written out."""
    count = len(clip_of)
    video, audio = np.random.default_rng(3).normal(size=(2, count, 8))
    there = np.ones(count, dtype=bool) if present is None else np.array(present[:count])
    terms = []
    for row in np.flatnonzero(there):
        others = [i for i in np.flatnonzero(there) if clip_of[i] != clip_of[row]]
        rows = [row, *others]
        for one, other in ((video, audio), (audio, video)):
            _, logits = info_nce(one[rows], other[rows])
            terms.append(-log_softmax(logits[0])[0])
    leaves = [float32(video).requires_grad_(), float32(audio).requires_grad_()]
    loss, logits = contrastive([leaves[0]], [leaves[1]], present=torch.from_numpy(there), clip_of=torch.tensor(clip_of))
    assert loss.item() == pytest.approx(np.mean(terms) if terms else 0, rel=1e-4, abs=1e-6)
    same = np.equal.outer(clip_of, clip_of) & ~np.eye(count, dtype=bool)
    assert np.isneginf(logits[0].detach().numpy()[same]).all()
    loss.backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)


@pytest.mark.parametrize("present", [None, torch.tensor([True, True, False, True, True])])
def test_other_clips_in_every_row_are_as_without_numbers(rng, present):
    video, audio = float32(rng.normal(size=(2, 5, 8)))
    plain, logits = contrastive([video], [audio], present=present)
    numbered, same = contrastive([video], [audio], present=present, clip_of=torch.tensor([9, 3, 5, 0, 1]))
    assert torch.equal(plain, numbered)
    assert torch.equal(logits[0], same[0])


def test_matching_pairs_cost_less_than_mismatched(rng):
    features = float32(rng.normal(size=(5, 8)))
    assert contrastive([features], [features])[0] < contrastive([features], [features.roll(1, 0)])[0]


# ---------------------------------------------------------------- recognition


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixed", [False, True])
def test_soft_cross_entropy(rng, smoothing, mixed):
    logits, numbers = rng.normal(size=(4, 6)), np.array([0, 5, 2, 2])
    shares = np.eye(6)[numbers]
    if mixed:
        shares = 0.7 * shares + 0.3 * shares[::-1]
    smooth = shares * (1 - smoothing) + smoothing / 6
    expected = -(smooth * log_softmax(logits)).sum(-1).mean()
    target = float32(shares) if mixed else torch.from_numpy(numbers)
    ours = soft_cross_entropy(float32(logits), target, label_smoothing=smoothing)
    assert ours.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights(rng, smoothing):
    """Weighted by class, mean over clips: the same for class numbers and for the shares that stand for them."""
    logits, numbers, weight = rng.normal(size=(4, 3)), np.array([0, 2, 2, 1]), np.array([1.0, 2, 5])
    own = np.eye(3)[numbers]
    mixed = 0.7 * own + 0.3 * own[::-1]
    for shares, targets in ((own, [float32(own), torch.from_numpy(numbers)]), (mixed, [float32(mixed)])):
        smooth = shares * (1 - smoothing) + smoothing / 3
        expected = -(smooth * weight * log_softmax(logits)).sum(-1).mean()
        for target in targets:
            ours = soft_cross_entropy(float32(logits), target, label_smoothing=smoothing, weight=float32(weight))
            assert ours.item() == pytest.approx(expected, rel=1e-6)


def test_equal_class_weights_change_nothing(rng):
    logits, numbers = float32(rng.normal(size=(4, 3))), torch.tensor([0, 2, 2, 1])
    plain = soft_cross_entropy(logits, numbers, label_smoothing=0.1)
    weighted = soft_cross_entropy(logits, numbers, label_smoothing=0.1, weight=torch.ones(3))
    torch.testing.assert_close(weighted, plain)


def test_balanced_weights():
    labels = np.repeat([0, 1, 3], [10, 30, 60])
    ours = balanced_weights(np.bincount(labels, minlength=4).tolist())
    theirs = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose(ours[[0, 1, 3]], theirs, rtol=1e-6)
    assert ours[2] == 1  # a class without clips
    assert ours[labels].mean().item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no training clips"):
        balanced_weights([0, 0])


def ccc(p, t):
    covariance = ((p - p.mean(0)) * (t - t.mean(0))).mean(0)
    return 2 * covariance / (p.var(0) + t.var(0) + (p.mean(0) - t.mean(0)) ** 2)


def pcc(p, t):
    return np.array([np.corrcoef(p[:, k], t[:, k])[0, 1] for k in range(p.shape[1])])


def huber(p, t):
    d = np.abs(p - t)
    return np.where(d < 1, d**2 / 2, d - 0.5).mean()


FORMULAS = {
    "mse": lambda p, t: ((p - t) ** 2).mean(),
    "l1": lambda p, t: np.abs(p - t).mean(),
    "smooth_l1": huber,
    "ccc": lambda p, t: (1 - ccc(p, t)).mean(),
    "pcc": lambda p, t: (1 - pcc(p, t)).mean(),
}


@pytest.mark.parametrize("name", list(losses.DIMENSIONAL_LOSSES))
def test_dimensional_losses(rng, name):
    prediction, target = rng.normal(size=(2, 9, 3))
    prediction[:, 1] = 2 * target[:, 1] + 0.5  # one dimension that correlates but does not agree
    ours = losses.dimensional_loss(name)(float32(prediction), float32(target))
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(FORMULAS[name](prediction, target), rel=1e-5)


def test_known_correlations():
    target = torch.tensor([[0.0], [1], [2], [3]])
    assert losses.ccc_loss(target, target).item() == pytest.approx(0, abs=1e-6)
    assert losses.ccc_loss(3 - target, target).item() == pytest.approx(2, abs=1e-6)
    # mean off by 1, variance 1.25: 2 * 1.25 / (1.25 + 1.25 + 1)
    assert losses.ccc_loss(target + 1, target).item() == pytest.approx(1 - 2.5 / 3.5, abs=1e-6)
    assert losses.pcc_loss(5 * target + 7, target).item() == pytest.approx(0, abs=1e-5)
    assert losses.pcc_loss(-target, target).item() == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize("name", list(losses.DIMENSIONAL_LOSSES))
def test_a_constant_prediction_has_a_finite_gradient(name):
    prediction = torch.ones(4, 2, requires_grad=True)
    loss = losses.dimensional_loss(name)(prediction, torch.tensor([[0.0, 1], [1, 0], [0, 1], [1, 1]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(prediction.grad).all()


@given(arrays(np.float64, (6, 2), elements=st.floats(-2, 2)), st.floats(0.5, 4), st.floats(-2, 2))
@settings(deadline=None, max_examples=30)
def test_pearson_ignores_scale_and_shift_and_concordance_is_never_above_it(target, scale, shift):
    prediction = target[::-1] + np.arange(12).reshape(6, 2)
    if min(target.std(0).min(), prediction.std(0).min()) < 0.1:
        return
    p, t = float32(prediction.copy()), float32(target)
    assert losses.pcc_loss(p * scale + shift, t).item() == pytest.approx(losses.pcc_loss(p, t).item(), abs=1e-4)
    for k in (0, 1):
        agreement = abs(1 - losses.ccc_loss(p[:, [k]], t[:, [k]]).item())
        assert agreement <= abs(1 - losses.pcc_loss(p[:, [k]], t[:, [k]]).item()) + 1e-5


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="unknown dimensional loss 'mae'; choose one of mse, ccc, pcc, l1, smooth_l1"):
        losses.dimensional_loss("mae")


# ---------------------------------------------------------------- precision


def test_losses_are_float32_under_autocast(rng):
    half = [float32(rng.normal(size=(4, 1536))).bfloat16() for _ in range(2)]
    whole = [x.float() for x in half]
    patches = [x.reshape(2, 2, 1536) for x in half]

    def everything(a, b, p, q):
        return [
            contrastive([a], [b])[0],
            *contrastive([a], [b])[1],
            masked_mse(p, q, torch.tensor([True, False])),
            video_target(p, TINY),
            audio_target(p),
            soft_cross_entropy(a[:, :6], torch.tensor([0, 1, 2, 3])),
            *(loss(a, b) for loss in losses.DIMENSIONAL_LOSSES.values()),
        ]

    expected = everything(*whole, *(x.float() for x in patches))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = everything(*half, *patches)
    for got, want in zip(ours, expected, strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, want)


def test_autocast_is_switched_off_on_the_device_of_the_tensors(monkeypatch):
    devices = []

    def remember(*, device_type, enabled):
        assert not enabled
        devices.append(device_type)
        return contextlib.nullcontext()

    monkeypatch.setattr(torch, "autocast", remember)
    features = torch.zeros(3, 8, device="meta")
    contrastive([features], [features])  # tensors inside lists
    contrastive(video=(features,), audio=(features,))
    masked_mse(prediction=features, target=features)
    assert devices == ["meta"] * 3
    with pytest.raises(TypeError, match="needs a tensor"):
        contrastive([], [])


def test_targets_take_no_part_in_the_gradient():
    patches = torch.rand(1, 2, 1536, requires_grad=True)
    assert not video_target(patches, TINY).requires_grad
    assert not audio_target(patches).requires_grad
