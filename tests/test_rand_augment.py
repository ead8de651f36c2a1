"""RandAugment of clips, held against timm's operations on PIL images."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment

from hicmae.media.rand_augment import OPERATIONS, FrameOp, RandAugment, apply_ops, draw_ops

NAMES = {name.lower().replace("increasing", ""): name for name in auto_augment._RAND_INCREASING_TRANSFORMS}
GEOMETRY = {"rotate", "shear_x", "shear_y", "translate_x", "translate_y"}


def timm_name(name: str) -> str:
    return NAMES[name.replace("_", "") + ("rel" if name.startswith("translate") else "")]


def frames(size: int = 40, count: int = 2) -> torch.Tensor:
    """Smooth pictures with full contrast, uint8 (T, H, W, 3): a sharp one would magnify rounding in a warp."""
    y, x = np.mgrid[:size, :size] / size
    waves = [
        np.stack([np.sin(3 * x + k + t), np.cos(4 * y + k * x), np.sin(2 * (x - y) + k)], axis=-1)
        for t, k in zip(range(count), (1.0, 2.5), strict=True)
    ]
    return torch.from_numpy((127.5 + 127.5 * np.stack(waves)).astype(np.uint8))


def one(name: str, amount: float, clip: torch.Tensor) -> torch.Tensor:
    return apply_ops(clip[None], [(FrameOp(name, amount),)])[0]


def test_the_operations_are_timms() -> None:
    assert sorted(timm_name(name) for name in OPERATIONS) == sorted(auto_augment._RAND_INCREASING_TRANSFORMS)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("level", [0.0, 0.63, 0.7, 0.97])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_an_operation_does_what_timms_does(
    name: str, level: float, sign: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_augment.random, "random", lambda: 0.9 if sign < 0 else 0.1)
    theirs = auto_augment.AugmentOp(
        timm_name(name), prob=1.0, magnitude=level * 10, hparams={"interpolation": Image.Resampling.BILINEAR}
    )
    # A dull one too, in which there is contrast to gain and there are grey values to spread.
    dull = np.random.default_rng(0).integers(60, 140, (40, 40, 3), dtype=np.uint8)
    clip = torch.stack([frames()[0], torch.from_numpy(dull)])
    ours = one(name, OPERATIONS[name].amount(level, sign), clip)
    assert ours.dtype == torch.uint8
    for got, frame in zip(ours.numpy(), clip.numpy(), strict=True):
        expected = np.asarray(theirs(Image.fromarray(frame)))
        difference = np.abs(got.astype(int) - expected.astype(int))
        # Rounding; in a warp, a place on the very border may also fall to the other side.
        assert (difference.max(axis=-1) > 2).mean() <= (0.01 if name in GEOMETRY else 0.0), (name, difference.max())


def test_draws_follow_the_setting() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_ops(rng, RandAugment()) for _ in range(4000)]
    assert np.mean([len(ops) for ops in drawn]) == pytest.approx(2.0, abs=0.05)  # four, each with probability 0.5
    assert {len(ops) for ops in drawn} == {0, 1, 2, 3, 4}
    counts = Counter(op.name for ops in drawn for op in ops)
    assert set(counts) == set(OPERATIONS)
    assert max(counts.values()) < 1.3 * min(counts.values())
    degrees = np.array([op.amount for ops in drawn for op in ops if op.name == "rotate"])
    assert np.abs(degrees).mean() == pytest.approx(21.0, abs=0.3)  # 30 degrees at magnitude 10
    assert np.abs(degrees).std() == pytest.approx(1.5, abs=0.2)
    assert np.sign(degrees).mean() == pytest.approx(0.0, abs=0.1)
    always = RandAugment(operations=2, probability=1.0, magnitude=10.0, magnitude_std=3.0)
    amounts = [abs(op.amount) for _ in range(500) for op in draw_ops(rng, always) if op.name == "rotate"]
    assert max(amounts) == 30.0  # kept within the scale
    assert min(amounts) < 25.0


def test_each_clip_gets_its_own_and_all_its_frames_the_same() -> None:
    still = frames()[:1].expand(3, -1, -1, -1)
    video = torch.stack([still, still, still])
    before = video.clone()
    done = apply_ops(video, [(), (FrameOp("rotate", 20.0), FrameOp("invert", 0.0)), (FrameOp("posterize", 2.0),)])
    assert torch.equal(video, before)
    assert torch.equal(done[0], still)
    assert torch.equal(done[1], one("invert", 0.0, one("rotate", 20.0, still)))
    assert torch.equal(done[2], one("posterize", 2.0, still))
    for clip in done:
        assert torch.equal(clip, clip[:1].expand(3, -1, -1, -1))
    assert apply_ops(video, [(), (), ()]) is video


def test_mixed_precision_changes_no_pixel() -> None:
    clip = frames()
    for name, operation in OPERATIONS.items():
        plain = one(name, operation.amount(0.7, 1.0), clip)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(one(name, operation.amount(0.7, 1.0), clip), plain), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operations": 0}, "rand_augment: null"),
        ({"probability": 0.0}, "rand_augment: null"),
        ({"magnitude": 11.0}, "between 0 and 10"),
        ({"magnitude_std": -1.0}, "magnitude_std=-1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandAugment(**settings)  # type: ignore[arg-type]
