"""SpecAugment: stripes of the spectrogram."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hicmae.media.spec_augment import SpecAugment, draw_stripes, mask_stripes, no_stripes


def test_stripes_cover_what_was_drawn_and_nothing_else() -> None:
    log_mel = torch.ones(3, 1, 10, 8)
    stripes = np.stack([no_stripes(2), no_stripes(2), no_stripes(2)])
    stripes[1] = [[0.2, 0.5, 0, 1], [0, 1, 0.5, 0.75]]
    stripes[2, 0] = [0, 1, 0.0, 0.05]  # narrower than half a bin: nothing
    done = mask_stripes(log_mel, torch.from_numpy(stripes))
    expected = log_mel.clone()
    expected[1, :, 2:5] = 0
    expected[1, :, :, 4:6] = 0
    assert torch.equal(done, expected)
    assert (log_mel == 1).all()


def test_draws_follow_the_setting() -> None:
    rng, config = np.random.default_rng(0), SpecAugment(time_stripes=2, frequency_stripes=1, time_width=0.4)
    drawn = np.stack([draw_stripes(rng, config) for _ in range(2000)])
    assert drawn.dtype == np.float32
    assert drawn.shape == (2000, 3, 4)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    widths = drawn[:, :, [1, 3]] - drawn[:, :, [0, 2]]
    np.testing.assert_allclose(widths.mean(axis=0), [[0.2, 1], [0.2, 1], [1, 0.1]], atol=0.01)
    np.testing.assert_allclose(widths.max(axis=0), [[0.4, 1], [0.4, 1], [1, 0.2]], atol=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_stripes": -1}, "time_stripes=-1"),
        ({"time_stripes": 0, "frequency_stripes": 0}, "spec_augment: null"),
        ({"time_width": 0.0}, "above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpecAugment(**settings)  # type: ignore[arg-type]
