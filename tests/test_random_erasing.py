"""Random erasing: where the boxes lie, and what is in them."""

from __future__ import annotations

import numpy as np
import torch
from timm.data import random_erasing

from hicmae.media.random_erasing import Erasure, draw_erasure, erase_


def boxes(count: int, size: int) -> list[Erasure]:
    rng = np.random.default_rng(0)
    return [box for _ in range(count) if (box := draw_erasure(rng, size)) is not None]


def test_boxes_are_distributed_as_timms(monkeypatch) -> None:
    size, count = 160, 4000
    theirs: list[tuple[float, ...]] = []

    def record(per_pixel, rand_color, patch_size, **more):
        theirs.append(patch_size[1:])
        return torch.zeros(())

    monkeypatch.setattr(random_erasing, "_get_pixels", record)
    random_erasing.random.seed(0)
    timm = random_erasing.RandomErasing(probability=1.0, mode="pixel", device="cpu")
    for _ in range(count):
        timm(torch.zeros(3, size, size))
    ours = boxes(count, size)
    assert all(0 <= b.top <= size - b.height and 0 <= b.left <= size - b.width for b in ours)
    for measure in (lambda h, w: h * w / size**2, lambda h, w: np.log(h / w)):
        got = np.array([measure(box.height, box.width) for box in ours])
        expected = np.array([measure(*box) for box in theirs])
        np.testing.assert_allclose(np.quantile(got, [0.1, 0.5, 0.9]), np.quantile(expected, [0.1, 0.5, 0.9]), atol=0.06)


def test_one_box_of_all_frames_becomes_noise_and_the_rest_stays() -> None:
    video = torch.full((3, 3, 4, 64, 64), 7.0)
    box = Erasure(top=10, left=20, height=30, width=40, seed=5)
    done = erase_(video.clone(), [None, box, box._replace(seed=6)])
    assert torch.equal(done[0], video[0])
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[10:40, 20:60] = True
    assert (done[1:][..., ~inside] == 7).all()
    noise = done[1:][..., inside]  # (2, 3, T, pixels)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert not torch.equal(noise[0, 0, 0], noise[0, 0, 1])  # each frame its own
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(erase_(video.clone(), [None, box, None])[1], done[1])  # whatever else is in the batch
