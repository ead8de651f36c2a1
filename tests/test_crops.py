"""Batches are cut, resized and normalised as torchvision does it clip by clip; boxes lie where they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF

from hicmae.config import InputSpec
from hicmae.media.crops import crop_and_normalize, multi_scale_crop_box, random_resized_crop_box

SPEC = InputSpec(image_size=48, num_frames=3)
MEAN = torch.tensor(SPEC.image_mean).view(3, 1, 1)
STD = torch.tensor(SPEC.image_std).view(3, 1, 1)


def _video(clips: int, height: int = 48, width: int = 48) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (clips, 3, height, width, 3), generator=generator, dtype=torch.uint8)


def _one_by_one(video: torch.Tensor, boxes: torch.Tensor, *, rounded: bool) -> torch.Tensor:
    """Each clip through torchvision: crop of whole pixels, bilinear resize, colours; (B, 3, T, S, S)."""
    clips = []
    for clip, box in zip(video, boxes, strict=True):
        top, left, height, width = (int(value) for value in box)
        frames = TF.crop(clip.permute(0, 3, 1, 2), top, left, height, width)
        frames = frames if rounded else frames.float()
        frames = TF.resize(frames, [SPEC.image_size] * 2, antialias=False).float() / 255
        clips.append(((frames - MEAN) / STD).transpose(0, 1))
    return torch.stack(clips)


BOXES = torch.tensor(
    [[0, 0, 48, 48], [0, 6, 31, 42], [17, 6, 31, 42], [5, 9, 1, 1], [0, 47, 48, 1], [10, 10, 36, 36.0]]
)


def test_equals_torchvision_clip_by_clip() -> None:
    video = _video(len(BOXES))
    found = crop_and_normalize(video, BOXES, SPEC)
    assert found.shape == (6, 3, 3, 48, 48)
    assert found.is_contiguous()
    torch.testing.assert_close(found, _one_by_one(video, BOXES, rounded=False), rtol=0, atol=1e-4)
    # torchvision rounds resized uint8 frames: one level of 255.
    unrounded = found * STD[:, None] - _one_by_one(video, BOXES, rounded=True) * STD[:, None]
    assert unrounded.abs().max() <= 1.01 / 255


def test_the_whole_frame_is_exact() -> None:
    video = _video(2)
    exact = crop_and_normalize(video, None, SPEC)
    expected = ((video.permute(0, 1, 4, 2, 3).float() / 255 - MEAN) / STD).transpose(1, 2)
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-6)
    box = torch.tensor([[0, 0, 48, 48.0]]).expand(2, 4)
    assert torch.equal(crop_and_normalize(video, box, SPEC), exact)


def test_other_frame_sizes_are_resized() -> None:
    video = _video(2, 30, 40)
    box = torch.tensor([[0, 0, 30, 40.0]]).expand(2, 4)
    expected = _one_by_one(video, box, rounded=False)
    torch.testing.assert_close(crop_and_normalize(video, None, SPEC), expected, rtol=0, atol=1e-4)


def test_no_pixel_from_outside_the_box() -> None:
    video = torch.full((1, 3, 48, 48, 3), 255, dtype=torch.uint8)
    video[:, :, 10:40, 12:44] = 0
    found = crop_and_normalize(video, torch.tensor([[10.0, 12, 30, 32]]), SPEC)
    assert torch.equal(found, crop_and_normalize(torch.zeros_like(video), None, SPEC))


def test_boxes_between_pixels() -> None:
    ramp = torch.arange(48, dtype=torch.uint8).view(1, 1, 1, 48, 1).expand(1, 3, 48, 48, 3)
    found = crop_and_normalize(ramp, torch.tensor([[0.0, 4.5, 48, 24]]), SPEC)
    values = (found * STD[:, None] + MEAN[:, None])[0, 0, 0, 0] * 255
    expected = (4.5 + ((torch.arange(48) + 0.5) * 0.5 - 0.5).clamp(0, 23)).clamp(max=47)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-3)


def test_flip_is_per_clip_and_after_the_crop() -> None:
    video = _video(2)
    boxes = torch.tensor([[3, 5, 20, 30.0], [1, 2, 40, 40]])
    plain = crop_and_normalize(video, boxes, SPEC)
    found = crop_and_normalize(video, boxes, SPEC, flip=torch.tensor([True, False]))
    assert torch.equal(found[0], plain[0].flip(-1))
    assert torch.equal(found[1], plain[1])
    whole = crop_and_normalize(video, None, SPEC, flip=torch.tensor([False, True]))
    assert torch.equal(whole[1], crop_and_normalize(video, None, SPEC)[1].flip(-1))


def test_autocast_does_not_reach_it() -> None:
    video = _video(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = crop_and_normalize(video, BOXES[1:2], SPEC)
    assert torch.equal(found, crop_and_normalize(video, BOXES[1:2], SPEC))


def test_refuses_other_types() -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        crop_and_normalize(_video(1).float(), None, SPEC)
    with pytest.raises(ValueError, match="expected uint8"):
        crop_and_normalize(_video(1)[0], None, SPEC)


def test_input_is_not_changed() -> None:
    video = _video(1)
    before = video.clone()
    crop_and_normalize(video, None, SPEC)
    assert torch.equal(video, before)


def _draw(box: object, count: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([box(rng, 160) for _ in range(count)])  # type: ignore[operator]


def test_multi_scale_boxes() -> None:
    boxes = _draw(multi_scale_crop_box)
    assert boxes.dtype == np.float32
    top, left, height, width = boxes.T
    sides = [160, 140, 120, 105]
    assert set(height) == set(width) == set(sides)
    steps = np.abs(np.array([sides.index(h) for h in height]) - [sides.index(w) for w in width])
    assert set(steps) == {0, 1}
    # Ten pairs of sides, each as likely as the next.
    pairs, counts = np.unique(boxes[:, 2:], axis=0, return_counts=True)
    assert len(pairs) == 10
    assert counts.min() > 300
    assert (top + height <= 160).all()
    assert (left + width <= 160).all()
    places = boxes[(height == 120) & (width == 120)][:, :2]
    expected = {(0, 0), (0, 40), (40, 0), (40, 40), (20, 20), (20, 0), (20, 40), (40, 20), (0, 20),
                (10, 10), (10, 30), (30, 10), (30, 30)}  # fmt: skip
    assert {(int(t), int(x)) for t, x in places} == expected


def test_random_resized_boxes() -> None:
    boxes = _draw(random_resized_crop_box)
    assert boxes.dtype == np.float32
    top, left, height, width = boxes.T
    assert top.min() == 0
    assert (top + height).max() == 160
    assert (left + width).max() == 160
    area, ratio = height * width / 160**2, width / height
    assert area.min() < 0.1
    assert area.max() > 0.9
    assert area.min() > 0.07
    assert ratio.min() > 0.72
    assert ratio.max() < 1.38
    assert 0.45 < np.mean(ratio > 1) < 0.55
    strict = np.stack([random_resized_crop_box(np.random.default_rng(i), 160, scale=(0.5, 0.6)) for i in range(200)])
    assert (strict[:, 2] * strict[:, 3] / 160**2).min() > 0.48
    assert (strict[:, 2] * strict[:, 3] / 160**2).max() < 0.62


def test_boxes_depend_on_the_generator_alone() -> None:
    for box in (multi_scale_crop_box, random_resized_crop_box):
        first, second = (box(np.random.default_rng(7), 160) for _ in range(2))
        np.testing.assert_array_equal(first, second)


def test_contradictory_ranges() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="scale="):
        random_resized_crop_box(rng, 160, scale=(0.9, 0.1))
    with pytest.raises(ValueError, match="ratio="):
        random_resized_crop_box(rng, 160, ratio=(0.0, 1.0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu() -> None:
    video = _video(len(BOXES))
    found = crop_and_normalize(video.cuda(), BOXES.cuda(), SPEC).cpu()
    torch.testing.assert_close(found, crop_and_normalize(video, BOXES, SPEC), rtol=0, atol=1e-5)
