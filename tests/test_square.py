"""Frames become upright central squares, in one place for all decoders."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF

from hicmae.media import square
from hicmae.media.clip import DecodeError
from hicmae.media.square import SquareFrames, cut_square, display_size


def _squares(frames: np.ndarray, size: int, *, rotation: int = 0, aspect: Fraction | None = None) -> np.ndarray:
    clip = np.zeros((len(frames), size, size, 3), dtype=np.uint8)
    squares = SquareFrames(clip, np.arange(len(frames)), pixel_aspect=aspect)
    for number, frame in enumerate(frames):
        squares(number, frame, rotation)
    squares.flush()
    return clip


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_right_size_is_untouched() -> None:
    frames = _noise(3, 48, 48)
    np.testing.assert_array_equal(_squares(frames, 48), frames)
    wide = _noise(2, 48, 90)
    np.testing.assert_array_equal(_squares(wide, 48), wide[:, :, 21:69])


@pytest.mark.parametrize("shape", [(90, 61), (40, 70), (33, 33)])
def test_resizing_is_bilinear_and_antialiased(shape: tuple[int, int]) -> None:
    frames = _noise(4, *shape)
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    cut = torch.from_numpy(frames[:, top : top + side, left : left + side]).permute(0, 3, 1, 2)
    exact = TF.resize(cut.double(), [48, 48], antialias=True).permute(0, 2, 3, 1).numpy()
    # Rounded after each of two passes.
    assert np.abs(_squares(frames, 48) - exact).max() <= 1.01


def test_frames_one_by_one_and_together_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = _noise(5, 70, 60)
    together = _squares(frames, 32)
    monkeypatch.setattr(square, "_MOST_BYTES", 1)
    np.testing.assert_array_equal(_squares(frames, 32), together)


def test_a_frame_that_is_shown_several_times() -> None:
    frames = _noise(2, 60, 60)
    clip = np.zeros((5, 32, 32, 3), dtype=np.uint8)
    squares = SquareFrames(clip, np.array([3, 3, 7, 7, 7]), pixel_aspect=None)
    squares(7, frames[1], 0)
    squares(3, frames[0], 0)
    squares.flush()
    expected = _squares(frames, 32)
    np.testing.assert_array_equal(clip, expected[[0, 0, 1, 1, 1]])


@pytest.mark.parametrize(("rotation", "turns"), [(0, 0), (90, 1), (180, 2), (-90, 3), (270, 3), (-180, 2)])
def test_rotation_is_counter_clockwise(rotation: int, turns: int) -> None:
    frame = _noise(40, 64)
    expected = np.rot90(frame[:, 12:52], turns)
    np.testing.assert_array_equal(_squares(frame[None], 40, rotation=rotation)[0], expected)


def test_wide_pixels() -> None:
    # 64 x 96 stored pixels, each half as wide again, are shown as 96 x 96: nothing is cut.
    frame = _noise(96, 64)
    whole = TF.resize(torch.from_numpy(frame).permute(2, 0, 1).double(), [96, 96], antialias=True)
    found = _squares(frame[None], 96, aspect=Fraction(3, 2))[0]
    assert np.abs(found - whole.permute(1, 2, 0).numpy()).max() <= 1.01
    assert display_size(64, 96, 0, Fraction(3, 2)) == (96, 96)
    assert display_size(64, 96, 90, None) == (96, 64)


def test_size_that_changes_within_a_clip() -> None:
    first, second = _noise(1, 60, 60), _noise(1, 80, 50)
    clip = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    squares = SquareFrames(clip, np.arange(2), pixel_aspect=None)
    squares(0, first[0], 0)
    squares(1, second[0], 0)
    squares.flush()
    np.testing.assert_array_equal(clip[0], _squares(first, 32)[0])
    np.testing.assert_array_equal(clip[1], _squares(second, 32)[0])


@pytest.mark.parametrize(
    ("rotation", "square", "rows", "columns"),
    [
        (0, (10, 30, 50), slice(10, 60), slice(20, 53)),
        (0, (0, 0, 96), slice(0, 96), slice(0, 64)),
        (90, (30, 10, 50), slice(20, 53), slice(10, 60)),
        (180, (6, 0, 90), slice(6, 96), slice(0, 60)),
    ],
)
def test_a_square_is_given_in_pixels_as_displayed(
    rotation: int, square: tuple[int, int, int], rows: slice, columns: slice
) -> None:
    # 64 x 96 stored pixels, each half as wide again, are shown as 96 x 96.
    frame = _noise(96, 64)
    found = cut_square(frame, rotation, Fraction(3, 2), square, "x")
    np.testing.assert_array_equal(found, np.rot90(frame, rotation // 90)[rows, columns])
    for outside in ((0, 0, 97), (90, 0, 7), (0, 90, 7)):
        with pytest.raises(DecodeError, match="96 pixels wide and 96 high"):
            cut_square(frame, rotation, Fraction(3, 2), outside, "x")
