"""Planes shipped by the workers become, on the device, the very pixels that the processor would have made."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest
import torch

from hicmae.config import InputSpec
from hicmae.media.batch_transform import BatchTransform
from hicmae.media.decode import DecodeError, decode_clip, decode_windows
from hicmae.media.yuv import fill_black, frame_shape, to_rgb
from tests.media_files import make_clip
from tests.test_windows import _frames, _wav

SPEC = InputSpec(image_size=64)


def _clip(**settings: Any) -> bytes:
    return make_clip(io.BytesIO(), **{"size": (64, 64), "time_code": False, "seconds": 3.0} | settings)


def test_every_colour_is_converted_as_swscale_does() -> None:
    # All brightnesses with many colours; swscale is asked for the same.
    size = 160
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 256, (40, size * 3 // 2, size), dtype=np.uint8)
    planes[0, :size] = np.arange(size)[:, None]
    planes[0, size:] = np.arange(80)[:, None] + 176
    theirs = np.stack([av.VideoFrame.from_ndarray(p, format="yuv420p").to_ndarray(format="rgb24") for p in planes])
    ours = to_rgb(torch.from_numpy(planes).unflatten(0, (4, 10))).flatten(0, 1)
    np.testing.assert_array_equal(ours.numpy(), theirs)


@pytest.mark.parametrize("size", [64, 66])
def test_planes_and_rgb_are_the_same_clip(size: int) -> None:
    data, spec = _clip(size=(size, size), b_frames=2, gop=40), SPEC.with_(image_size=size)
    rgb = decode_windows(data, spec=spec, positions=(0.0, 0.7), name="clip")
    yuv = decode_windows(data, spec=spec, positions=(0.0, 0.7), pixels="yuv420p", name="clip")
    for ours, theirs in zip(yuv, rgb, strict=True):
        assert ours.video.shape == (16, size * 3 // 2, size)
        np.testing.assert_array_equal(to_rgb(torch.from_numpy(ours.video[None]))[0].numpy(), theirs.video)
        np.testing.assert_array_equal(ours.waveform, theirs.waveform)
    boxes = torch.tensor([[0.0, 0.0, size, size], [3.0, 5.0, 40.0, 50.0]])
    flip = torch.tensor([False, True])
    transform = BatchTransform(spec)
    batches = [torch.from_numpy(np.stack([clip.video for clip in clips])) for clips in (yuv, rgb)]
    from_planes, from_rgb = (transform.frames(batch, crop_box=boxes, flip=flip) for batch in batches)
    assert torch.equal(from_planes, from_rgb)


def test_no_picture_is_black_in_both() -> None:
    clip = decode_clip(None, _wav(), spec=SPEC, pixels="yuv420p", name="clip")
    assert not to_rgb(torch.from_numpy(clip.video[None])).any()
    rgb = np.ones((2, 4, 4, 3), np.uint8)
    fill_black(rgb, "rgb24")
    assert not rgb.any()


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (dict(size=(80, 64)), "80 x 64"),
        (dict(rotation=90), "turned by 90"),
        (dict(video_codec="mjpeg", container="matroska"), "yuvj420p"),
        (dict(pixel_aspect=2), "not square"),
        (dict(video_options={"colorspace": "bt709", "color_range": "tv"}), "matrix 1"),
    ],
    ids=lambda value: str(value),
)
def test_frames_that_cannot_be_shipped_as_planes(settings: dict[str, Any], found: str) -> None:
    with pytest.raises(DecodeError, match=found) as caught:
        decode_clip(_clip(**settings), spec=SPEC, pixels="yuv420p", name="clip")
    assert caught.value.reason == "not_planar"


def test_jpeg_frames_and_cut_squares_cannot_be_shipped_as_planes() -> None:
    for data, square in ((_frames(), None), (_clip(), (0, 0, 64))):
        with pytest.raises(DecodeError, match="pixels: rgb") as caught:
            decode_clip(data, spec=SPEC, square=square, pixels="yuv420p", name="clip")
        assert caught.value.reason == "not_planar"


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="decord gives RGB alone"):
        decode_clip(_clip(), spec=SPEC, pixels="yuv420p", decoder="decord", name="clip")
    with pytest.raises(ValueError, match="image_size=65 is odd"):
        frame_shape(65, "yuv420p")
    with pytest.raises(ValueError, match="choose rgb24 or yuv420p"):
        frame_shape(64, "rgb")  # type: ignore[arg-type]
