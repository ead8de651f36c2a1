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
