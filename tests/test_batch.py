from __future__ import annotations

import pytest
import torch

from hicmae.data.batch import ClipBatch, Skip


def make_batch(size: int = 2) -> ClipBatch:
    return ClipBatch(
        clip_ids=[f"c{i}" for i in range(size)],
        video=torch.zeros(size, 2, 4, 4, 3, dtype=torch.uint8),
        waveform=torch.ones(size, 8, dtype=torch.int16),
        sound_samples=torch.full((size,), 8),
        has_video=torch.ones(size, dtype=torch.bool),
        has_audio=torch.ones(size, dtype=torch.bool),
        crop_box=torch.zeros(size, 4),
        flip=torch.zeros(size, dtype=torch.bool),
        gain=torch.ones(size),
        labels={"emotion": torch.zeros(size, dtype=torch.int64)},
        index=torch.arange(size),
        segment=torch.zeros(size, dtype=torch.int64),
        valid=torch.ones(size, dtype=torch.bool),
        skipped=[Skip(clip_id="x", reason="truncated", detail="...")],
    )


def test_to_moves_every_tensor_and_keeps_the_rest() -> None:
    batch = make_batch()
    moved = batch.to("meta")
    for name in (
        "video",
        "waveform",
        "has_video",
        "has_audio",
        "crop_box",
        "flip",
        "gain",
        "index",
        "segment",
        "valid",
    ):
        assert getattr(moved, name).device.type == "meta", name
        assert getattr(batch, name).device.type == "cpu", name
    assert moved.labels["emotion"].device.type == "meta"
    assert moved.video_visible is None
    assert moved.clip_ids == batch.clip_ids
    assert moved.skipped == batch.skipped
    assert len(moved) == 2


def test_masks_move_too() -> None:
    batch = make_batch()
    batch.video_visible = torch.zeros(2, 3, dtype=torch.int64)
    moved = batch.to("meta")
    assert moved.video_visible is not None
    assert moved.video_visible.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_batches_reach_the_device_unchanged() -> None:
    batch = make_batch()
    pinned = batch.pin_memory()
    assert pinned.video.is_pinned()
    assert pinned.labels["emotion"].is_pinned()
    moved = pinned.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    assert torch.equal(moved.waveform.cpu(), batch.waveform)


def views_batch() -> ClipBatch:
    """Two clips in three views each."""
    batch = make_batch()
    batch.views = 3
    batch.index = torch.tensor([7, 5])
    for name in ("flip", "gain", "crop_box"):
        value = getattr(batch, name)
        setattr(batch, name, torch.arange(6 * value[0].numel()).reshape(6, *value.shape[1:]))
    batch.video_visible = torch.arange(12).reshape(6, 2)
    batch.audio_decoded = torch.arange(6).reshape(6, 1)
    batch.video[1] = 1
    return batch


def test_each_view_repeats_the_clip_and_keeps_what_was_drawn() -> None:
    batch = views_batch()
    rows = batch.each_view()
    assert len(rows) == 6
    assert rows.views == 1
    assert rows.clip_ids == ["c0", "c0", "c0", "c1", "c1", "c1"]
    assert rows.clip_of is not None
    assert rows.clip_of.tolist() == [7, 7, 7, 5, 5, 5]
    for name in ("crop_box", "flip", "gain", "video_visible", "audio_decoded"):
        assert torch.equal(getattr(rows, name), getattr(batch, name)), name
    clip = torch.tensor([0, 0, 0, 1, 1, 1])
    for name in ("video", "waveform", "sound_samples", "has_video", "has_audio", "index", "segment", "valid"):
        assert torch.equal(getattr(rows, name), getattr(batch, name)[clip]), name
    assert torch.equal(rows.labels["emotion"], batch.labels["emotion"][clip])
    assert rows.skipped == batch.skipped
    assert rows.each_view() is rows


def test_the_first_clips_have_all_their_views() -> None:
    first, rows = views_batch().first(1), views_batch().each_view()
    assert (len(first), first.views, len(first.gain), len(first.video)) == (1, 3, 3, 1)
    for name in ("video", "gain", "video_visible", "audio_decoded", "clip_of"):
        assert torch.equal(getattr(first.each_view(), name), getattr(rows, name)[:3]), name
    assert rows.first(4).clip_ids == ["c0", "c0", "c0", "c1"]
