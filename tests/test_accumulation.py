"""A batch in parts against the same batch as a whole: losses, every gradient, memory, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from hicmae.accumulation import losses_in_parts
from hicmae.masking import complement
from hicmae.pretraining import HiCMAE, PretrainInput, PretrainLosses
from tests.tiny_model import TINY, pretraining_batch, pretraining_model
from tests.waiting import no_waiting

LOSSES = ("loss", "video_loss", "audio_loss", "contrastive_loss")
# Four clips have both modalities; in parts of two and of three their shares differ from part to part.
FLAGS = {
    "has_video": torch.tensor([True, True, False, True, True, True, False]),
    "has_audio": torch.tensor([True, False, True, True, True, True, False]),
}
# Parts are other sums of the same float32 numbers: 4e-7 to 8e-7 here, over seeds, flags and sizes.
ROUNDING = 3e-6


def inputs(**flags: torch.Tensor) -> PretrainInput:
    video, log_mel, video_visible, audio_visible = pretraining_batch(7)
    return PretrainInput(
        video=video, log_mel=log_mel, video_visible=video_visible, audio_visible=audio_visible, **flags
    )


def model() -> HiCMAE:
    """A contrast as strong as the reconstruction: with the paper's weight, errors in it would hardly show."""
    return pretraining_model(contrastive_weight=1.0)


def learned(clips: PretrainInput, part_clips: int | None) -> tuple[PretrainLosses, dict[str, torch.Tensor]]:
    """Losses and gradients, as a whole (``None``) or in parts."""
    subject = model()
    found = subject(**vars(clips)) if part_clips is None else losses_in_parts(subject, clips, part_clips)
    found.loss.backward()
    return found, {name: p.grad for name, p in subject.named_parameters() if p.grad is not None}


def difference(ours: torch.Tensor, expected: torch.Tensor) -> float:
    return ((ours - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module")
def whole() -> dict[bool, tuple[PretrainLosses, dict[str, torch.Tensor]]]:
    return {True: learned(inputs(**FLAGS), None), False: learned(inputs(), None)}


@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize("part_clips", [1, 2, 3, 7])
def test_losses_and_every_gradient_are_those_of_the_whole_batch(whole, missing, part_clips):
    losses, gradients = learned(inputs(**FLAGS) if missing else inputs(), part_clips)
    expected_losses, expected = whole[missing]
    for name in LOSSES:
        assert getattr(losses, name).item() == pytest.approx(getattr(expected_losses, name).item(), rel=ROUNDING)
        assert getattr(losses, name).requires_grad == (name == "loss")
    assert set(gradients) == set(expected)
    worst = max(difference(gradients[name], expected[name]) for name in expected)
    assert worst <= ROUNDING


@pytest.mark.parametrize("name", ["has_video", "has_audio"])
def test_either_flag_may_be_given_alone(name):
    flags = {name: FLAGS[name]}
    ours, expected = learned(inputs(**flags), 3), learned(inputs(**flags), None)
    assert ours[0].loss.item() == pytest.approx(expected[0].loss.item(), rel=ROUNDING)
    assert max(difference(ours[1][n], g) for n, g in expected[1].items()) <= ROUNDING


def test_views_of_a_clip_stay_no_negatives_and_half_the_masked_tokens_are_decoded():
    more = {
        "clip_of": torch.tensor([0, 0, 1, 1, 2, 2, 3]),
        "video_decoded": complement(inputs().video_visible, TINY.video_tokens)[:, ::2],
        "audio_decoded": complement(inputs().audio_visible, TINY.audio_tokens)[:, 1::2],
    }
    ours, expected = learned(inputs(**more), 3), learned(inputs(**more), None)
    for name in LOSSES:
        assert getattr(ours[0], name).item() == pytest.approx(getattr(expected[0], name).item(), rel=ROUNDING)
    assert max(difference(ours[1][n], g) for n, g in expected[1].items()) <= ROUNDING


def test_parts_and_batches_without_a_modality_give_finite_gradients():
    silent = torch.zeros(7, dtype=torch.bool)
    losses, gradients = learned(inputs(has_audio=silent), 3)
    assert losses.audio_loss == losses.contrastive_loss == 0
    expected = learned(inputs(has_audio=silent), None)[1]
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected[name], rtol=1e-4, atol=1e-6), name


def test_the_contrast_within_parts_would_be_another(whole):
    # What adding up small batches gives: the bounds above tell the difference.
    parts = [model()(**vars(part)).contrastive_loss.item() for part in inputs().parts(3)]
    assert max(parts) < 0.8 * whole[False][0].contrastive_loss.item()


def test_in_bfloat16_parts_are_as_near_to_float32_as_the_whole_batch(whole):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (losses, ours), (_, at_once) = learned(inputs(**FLAGS), 3), learned(inputs(**FLAGS), None)
    expected_losses, exact = whole[True]
    assert losses.loss.item() == pytest.approx(expected_losses.loss.item(), rel=1e-2)
    assert set(ours) == set(exact), "weights that were cast without gradient were used again"
    off = [
        [((found[name] - exact[name]).norm() / exact[name].norm()).item() for name in exact]
        for found in (ours, at_once)
    ]
    assert 1e-3 < max(off[1]) < 0.1, "autocast was not at work"
    assert max(ours_off / at_once_off for ours_off, at_once_off in zip(*off, strict=True)) < 1.5


def test_what_backward_is_given_scales_every_gradient_and_adds_to_what_is_there():
    subject = model()
    for _ in range(2):  # as accumulated batches do
        (losses_in_parts(subject, inputs(), 3).loss / 2).backward()
    expected = learned(inputs(), None)[1]
    worst = max(difference(p.grad, expected[n]) for n, p in subject.named_parameters() if p.grad is not None)
    assert worst <= ROUNDING


def test_backward_hands_its_gradients_on_once():
    loss = losses_in_parts(model(), inputs(), 3).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="call backward once"):
        loss.backward()


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])  # the latter: validate
def test_without_gradients_the_losses_are_the_same(whole, without_gradients):
    with without_gradients():
        losses = losses_in_parts(model(), inputs(**FLAGS), 2)
    assert not losses.loss.requires_grad
    for name in LOSSES:
        assert getattr(losses, name).item() == pytest.approx(getattr(whole[True][0], name).item(), rel=ROUNDING)


def test_frozen_parameters_get_no_gradient():
    subject = model().requires_grad_(False)
    subject.video_decoder.requires_grad_(True)
    losses_in_parts(subject, inputs(), 3).loss.backward()
    learning = {name for name, p in subject.named_parameters() if p.grad is not None}
    assert learning == {name for name, _ in subject.named_parameters() if name.startswith("video_decoder.")}


class Saved:
    """Bytes that the graph keeps for the backward pass, weights aside: now and at most."""

    def __init__(self, weights: set[int]) -> None:
        self.weights, self.now, self.most = weights, 0, 0

    def keep(self, tensor: torch.Tensor):
        return Kept(self, tensor)


class Kept:
    def __init__(self, saved: Saved, tensor: torch.Tensor) -> None:
        self.saved, self.tensor = saved, tensor
        self.bytes = 0 if tensor.untyped_storage().data_ptr() in saved.weights else tensor.nbytes
        saved.now += self.bytes
        saved.most = max(saved.most, saved.now)

    def __del__(self) -> None:
        self.saved.now -= self.bytes


def most_kept(clips: PretrainInput, part_clips: int | None) -> int:
    subject = model()
    saved = Saved({p.untyped_storage().data_ptr() for p in subject.parameters()})
    with torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda kept: kept.tensor):
        found = subject(**vars(clips)) if part_clips is None else losses_in_parts(subject, clips, part_clips)
        found.loss.backward()
    return saved.most


def test_no_more_is_kept_for_backward_than_a_part_needs():
    clips = inputs()
    at_once, alone = most_kept(clips, None), most_kept(clips.parts(1)[0], None)
    assert most_kept(clips, 1) < 1.05 * alone  # and the contrast of seven clips' features
    assert most_kept(clips, 1) < at_once / 6


def test_the_host_waits_for_no_part():
    subject, clips = model(), inputs(**FLAGS)
    with no_waiting():
        losses_in_parts(subject, clips, 3).loss.backward()


@pytest.mark.parametrize("part_clips", [0, -3])
def test_less_than_a_clip_at_a_time_is_refused(part_clips):
    with pytest.raises(ValueError, match="clips at a time are too few"):
        losses_in_parts(model(), inputs(), part_clips)


def test_float16_is_refused():
    with torch.autocast("cpu", dtype=torch.float16), pytest.raises(ValueError, match="use bfloat16"):
        losses_in_parts(model(), inputs(), 3)
