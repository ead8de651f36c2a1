"""What is drawn for a clip: each option changes its own part and nothing else."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from hicmae.config import ModelConfig
from hicmae.data.augment import ClipDraws, EvaluationDraws, PretrainingDraws, RecognitionAugment, RecognitionDraws
from hicmae.data.order import clip_generator
from hicmae.masking import random_mask, tube_mask
from hicmae.media.crops import multi_scale_crop_box, random_resized_crop_box
from hicmae.media.rand_augment import RandAugment
from hicmae.media.spec_augment import SpecAugment

OFF: dict[str, Any] = {"rand_augment": None, "erase_probability": 0.0}
EVERYTHING: dict[str, Any] = {
    "rand_augment": RandAugment(), "erase_probability": 0.5, "waveform_gain": True, "spec_augment": SpecAugment(),
    "drop_video": 0.25, "drop_audio": 0.25,
}  # fmt: skip


def draws(clip: int, *, epoch: int = 0, **settings: Any) -> ClipDraws:
    drawn = RecognitionDraws(image_size=64, augmentation=RecognitionAugment(**settings))
    return drawn(clip_generator(0, epoch, f"clip{clip}"))


def differing(one: ClipDraws, other: ClipDraws) -> set[str]:
    return {
        field.name
        for field in fields(ClipDraws)
        if not np.array_equal(
            np.asarray(getattr(one, field.name), dtype=object), np.asarray(getattr(other, field.name), dtype=object)
        )
    }


def test_everything_off_draws_window_crop_and_flip_alone() -> None:
    for clip in range(50):
        rng = clip_generator(0, 3, f"clip{clip}")
        drawn = draws(clip, epoch=3, **OFF)
        assert drawn.position == rng.random()
        assert np.array_equal(drawn.crop_box, random_resized_crop_box(rng, 64))
        assert drawn.flip == (rng.random() < 0.5)
        assert (drawn.gain, drawn.frame_ops) == (1.0, ())
        assert (drawn.erasure, drawn.stripes, drawn.withheld) == (None, None, None)


def test_the_defaults_are_the_papers() -> None:
    settings = RecognitionAugment()
    assert settings.rand_augment == RandAugment(operations=4, magnitude=7, magnitude_std=0.5, probability=0.5)
    assert settings.erase_probability == 0.25
    assert settings.spec_augment is None
    assert (settings.waveform_gain, settings.drop_video, settings.drop_audio) == (False, 0, 0)


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ({"rand_augment": RandAugment()}, "frame_ops"),
        ({"erase_probability": 0.5}, "erasure"),
        ({"waveform_gain": True}, "gain"),
        ({"spec_augment": SpecAugment()}, "stripes"),
        ({"drop_video": 0.5}, "withheld"),
        ({"drop_audio": 0.5}, "withheld"),
    ],
)
def test_an_option_changes_its_own_part_whatever_else_is_on(option: dict[str, Any], changed: str) -> None:
    without = EVERYTHING | {name: OFF.get(name, getattr(RecognitionAugment(), name)) for name in option}
    changes = [differing(draws(clip, **OFF), draws(clip, **(OFF | option))) for clip in range(40)]
    assert set().union(*changes) == {changed}
    others = [differing(draws(clip, **without), draws(clip, **(without | option))) for clip in range(40)]
    assert set().union(*others) == {changed}


def test_a_clip_draws_the_same_again_and_something_else_in_another_epoch() -> None:
    for clip in range(20):
        assert not differing(draws(clip, **EVERYTHING), draws(clip, **EVERYTHING))
        assert {"gain", "stripes"} <= differing(draws(clip, **EVERYTHING), draws(clip, epoch=1, **EVERYTHING))


def test_shares_are_those_asked_for() -> None:
    drawn = [draws(clip, **(EVERYTHING | {"drop_video": 0.2, "drop_audio": 0.3})) for clip in range(4000)]
    assert np.mean([one.withheld == "video" for one in drawn]) == pytest.approx(0.2, abs=0.025)
    assert np.mean([one.withheld == "audio" for one in drawn]) == pytest.approx(0.3, abs=0.025)
    assert np.mean([one.erasure is not None for one in drawn]) == pytest.approx(0.5, abs=0.025)
    gains = np.array([one.gain for one in drawn])
    assert gains.mean() == pytest.approx(1.0, abs=0.01)
    assert gains.std() == pytest.approx(1 / np.sqrt(84), abs=0.01)  # of Beta(10, 10)
    assert all(draws(clip, drop_video=0.4, drop_audio=0.6).withheld for clip in range(200))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"erase_probability": 1.5}, "erase_probability=1.5"),
        ({"drop_audio": -0.1}, "drop_audio=-0.1"),
        ({"drop_video": 0.6, "drop_audio": 0.5}, "keeps one of the two"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecognitionAugment(**settings)  # type: ignore[arg-type]


def test_an_evaluation_withholds_from_all_segments_and_draws_nothing() -> None:
    for segment in range(2):
        plain = EvaluationDraws(image_size=64)(segment)
        assert differing(plain, EvaluationDraws(image_size=64, withheld="audio")(segment)) == {"withheld"}


# ---------------------------------------------------------------- pre-training

MICRO = ModelConfig.preset("micro")


def pretraining(clip: int, **settings: float) -> ClipDraws:
    return PretrainingDraws(model=MICRO, **settings)(clip_generator(0, 3, f"clip{clip}"))


def test_pretraining_draws_window_crop_gain_and_masks_in_this_order() -> None:
    for clip in range(20):
        rng = clip_generator(0, 3, f"clip{clip}")
        drawn = pretraining(clip)
        assert drawn.position == rng.random()
        assert np.array_equal(drawn.crop_box, multi_scale_crop_box(rng, MICRO.image_size))
        assert drawn.gain == rng.beta(10, 10) + 0.5
        assert np.array_equal(drawn.video_visible, tube_mask(rng, MICRO.video_grid, 0.9))
        assert np.array_equal(drawn.audio_visible, random_mask(rng, MICRO.audio_tokens, 0.8))
        assert (drawn.video_decoded, drawn.audio_decoded) == (None, None)


def test_decoding_less_of_one_modality_changes_nothing_else() -> None:
    video, audio = {"video_decode_ratio": 0.5}, {"audio_decode_ratio": 0.5}
    for clip in range(10):
        assert differing(pretraining(clip), pretraining(clip, **video)) == {"video_decoded"}
        assert differing(pretraining(clip), pretraining(clip, **audio)) == {"audio_decoded"}
        assert differing(pretraining(clip, **audio), pretraining(clip, **audio, **video)) == {"video_decoded"}
        both = pretraining(clip, **audio, **video)
        for decoded, visible, tokens in (
            (both.video_decoded, both.video_visible, MICRO.video_tokens),
            (both.audio_decoded, both.audio_visible, MICRO.audio_tokens),
        ):
            assert decoded is not None
            assert visible is not None
            assert not np.isin(decoded, visible).any()
            assert len(decoded) == round((tokens - len(visible)) / 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"video_decode_ratio": 0.0}, "video_decode_ratio: decode ratio 0.0 must be above 0 and at most 1"),
        ({"audio_decode_ratio": 1.5}, "audio_decode_ratio: decode ratio 1.5 must be"),
        ({"audio_decode_ratio": 0.001}, "audio_decode_ratio: decode ratio 0.001 decodes none of 102 masked tokens"),
        ({"video_mask_ratio": 1.0}, "mask ratio 1.0 leaves 0 of 16 tokens visible"),
    ],
)
def test_masks_that_cannot_be_are_refused_before_any_clip_is_read(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainingDraws(model=MICRO, **settings)
