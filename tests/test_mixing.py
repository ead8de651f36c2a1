"""Mixup and cutmix: the same partner and share for picture, sound and label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from hicmae.data.order import generator
from hicmae.losses import soft_cross_entropy
from hicmae.mixing import Mix, MixConfig, draw_mix

SIZE, FRAMES, BINS = 32, 64, 8
MIXUP, CUTMIX = MixConfig(cutmix_alpha=0), MixConfig(mixup_alpha=0)


def constant_clips(batch: int = 4) -> tuple[Tensor, Tensor]:
    """Clips whose every value is their number, so that a mean shows the share of each."""
    number = torch.arange(float(batch))
    video = number[:, None, None, None, None].expand(batch, 3, 2, SIZE, SIZE)
    return video.clone(), number[:, None, None, None].expand(batch, 1, FRAMES, BINS).clone()


def draw(config: MixConfig, key: int, *, image_size: int | None = SIZE, audio_frames: int | None = FRAMES) -> Mix:
    mix = draw_mix(generator("test", key), config, image_size=image_size, audio_frames=audio_frames)
    assert mix is not None
    return mix


@pytest.mark.parametrize("config", [MIXUP, CUTMIX, MixConfig()])
@pytest.mark.parametrize("key", range(8))
def test_picture_sound_and_label_hold_the_same_shares(config: MixConfig, key: int) -> None:
    mix = draw(config, key)
    video, log_mel = constant_clips()
    shares = mix.classes(torch.arange(4), 4)
    expected = shares @ torch.arange(4.0)
    # A span of time is whole frames, so that the areas differ by half a frame; the label takes their mean.
    slack = 3 * 0.5 / FRAMES if mix.box else 1e-5
    torch.testing.assert_close(mix.video(video).mean(dim=(1, 2, 3, 4)), expected, atol=slack, rtol=0)
    torch.testing.assert_close(mix.log_mel(log_mel).mean(dim=(1, 2, 3)), expected, atol=slack, rtol=0)
    torch.testing.assert_close(mix.values(torch.arange(4.0)[:, None])[:, 0], expected)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
    mean = (mix.video(video).mean(dim=(1, 2, 3, 4)) + mix.log_mel(log_mel).mean(dim=(1, 2, 3))) / 2
    torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize("key", range(8))
def test_cutmix_replaces_one_box_in_all_frames_and_one_span_in_all_bins(key: int) -> None:
    mix = draw(CUTMIX, key)
    assert mix.box is not None
    assert mix.span is not None
    video, log_mel = constant_clips(2)
    replaced = mix.video(video)[0] == 1
    top, bottom, left, right = mix.box
    assert replaced[..., top:bottom, left:right].all()
    assert replaced.sum() == 3 * 2 * (bottom - top) * (right - left)
    first, end = mix.span
    cut = mix.log_mel(log_mel)[0] == 1
    assert cut[:, first:end].all()
    assert cut.sum() == BINS * (end - first)
    assert abs((end - first) / FRAMES - (bottom - top) * (right - left) / SIZE**2) <= 0.5 / FRAMES


@pytest.mark.parametrize("config", [MIXUP, CUTMIX])
def test_one_modality_labels_follow_that_modality(config: MixConfig) -> None:
    for key in range(8):
        video, log_mel = constant_clips(2)
        own = draw(config, key, audio_frames=None)
        assert own.video(video)[0].mean().item() == pytest.approx(1 - own.share, abs=1e-6)
        own = draw(config, key, image_size=None)
        assert own.log_mel(log_mel)[0].mean().item() == pytest.approx(1 - own.share, abs=1e-6)


@pytest.mark.parametrize("config", [MIXUP, CUTMIX])
def test_video_only_leaves_the_sound_and_follows_the_picture(config: MixConfig) -> None:
    config = replace(config, video_only=True)
    for key in range(8):
        mix = draw(config, key)
        video, log_mel = constant_clips()
        assert torch.equal(mix.log_mel(log_mel), log_mel)
        expected = mix.classes(torch.arange(4), 4) @ torch.arange(4.0)
        torch.testing.assert_close(mix.video(video).mean(dim=(1, 2, 3, 4)), expected)


def test_inputs_stay_as_they_were() -> None:
    video, log_mel = constant_clips()
    for config in (MIXUP, CUTMIX):
        mix = draw(config, 1)
        mix.video(video), mix.log_mel(log_mel)
    assert torch.equal(video, constant_clips()[0])
    assert torch.equal(log_mel, constant_clips()[1])


def test_draws_belong_to_the_key_and_not_to_history() -> None:
    torch.manual_seed(0)
    first = [draw(MixConfig(), key) for key in range(20)]
    torch.manual_seed(1)
    np.random.default_rng(3).random()
    assert [draw(MixConfig(), key) for key in reversed(range(20))] == first[::-1]
    assert len({mix.share for mix in first}) == 20


def test_probabilities() -> None:
    def kinds(config: MixConfig) -> list[str]:
        found = []
        for key in range(400):
            mix = draw_mix(generator("share", key), config, image_size=SIZE, audio_frames=FRAMES)
            found.append("none" if mix is None else "cutmix" if mix.box else "mixup")
        return found

    assert set(kinds(MixConfig(probability=0))) == {"none"}
    assert set(kinds(MixConfig(mixup_alpha=0, cutmix_alpha=0))) == {"none"}
    assert set(kinds(MIXUP)) == {"mixup"}
    assert set(kinds(CUTMIX)) == {"cutmix"}
    mixed = kinds(MixConfig(probability=0.5, switch_probability=0.25))
    assert mixed.count("none") / 400 == pytest.approx(0.5, abs=0.08)
    assert mixed.count("cutmix") / 400 == pytest.approx(0.125, abs=0.05)


def test_smoothing_before_or_after_mixing_is_the_same() -> None:
    """The reference smooths both one-hot rows and then mixes them; our loss smooths the mixed row."""
    labels, logits = torch.tensor([0, 2, 1, 2]), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    smooth = torch.full((4, 3), 0.1 / 3).scatter(1, labels[:, None], 1 - 0.1 + 0.1 / 3)
    theirs = -((0.7 * smooth + 0.3 * smooth.flip(0)) * logits.log_softmax(dim=1)).sum(dim=1).mean()
    ours = soft_cross_entropy(logits, Mix(share=0.7).classes(labels, 3), label_smoothing=0.1)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"mixup_alpha": -1}, "0 .off. or more"), ({"probability": 1.5}, "between 0 and 1")],
)
def test_settings_out_of_range(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixConfig(**settings)  # type: ignore[arg-type]
