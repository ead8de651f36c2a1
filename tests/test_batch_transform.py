"""The batch transform on the device gives what the single-clip transform gives."""

from __future__ import annotations

import io

import pytest
import torch

from hicmae.config import InputSpec
from hicmae.data.augment import EvaluationDraws
from hicmae.data.batch_memory import BatchMemory
from hicmae.data.clip_decoder import LoadedClip, stack_clips
from hicmae.data.costs import Costs
from hicmae.media.batch_transform import BatchTransform
from hicmae.media.decode import decode_clip
from hicmae.transform import ClipTransform
from tests.media_files import make_clip

SPEC = InputSpec(image_size=32)


@pytest.mark.parametrize("seconds", [1.2, 2.4, 4.0], ids=["short", "nearly a window", "long"])
def test_a_batch_from_the_workers_equals_the_clip_by_itself(seconds):
    data = make_clip(io.BytesIO(), seconds=seconds, size=(48, 40))
    draws = EvaluationDraws(image_size=32, segments=1)(0)
    memory = BatchMemory.allocate(2, SPEC, "rgb24")
    loaded = []
    for row in range(2):
        decoded = decode_clip(data, spec=SPEC, position=draws.position, slot=memory.slot(row), name="clip")
        loaded.append(LoadedClip(number=0, clip_id="clip", decoded=decoded, draws=(draws,), labels={}))
    batch = stack_clips(loaded, memory, SPEC, skipped=[], costs=Costs())
    video, log_mel = BatchTransform(SPEC)(
        batch.video, batch.waveform, sound_samples=batch.sound_samples, crop_box=batch.crop_box, gain=batch.gain
    )
    alone = ClipTransform(SPEC)(data, draws.position)
    assert torch.allclose(video[1:], alone["video"], atol=1e-5)
    assert torch.allclose(log_mel[1:], alone["log_mel"], atol=1e-5)
    silence = (0 - SPEC.log_mel_mean) / (2 * SPEC.log_mel_std)  # rows of zeros, padded before normalising
    padded = (log_mel[0, 0] - silence).abs().amax(dim=-1) < 1e-5
    assert bool(padded[-1]) == (seconds < 2.6)


def test_gain_scales_the_sound_and_nothing_else():
    waveform = torch.randint(-8000, 8000, (2, SPEC.audio_samples), dtype=torch.int16)
    transform = BatchTransform(SPEC)
    plain, louder = transform.sound(waveform), transform.sound(waveform, gain=torch.tensor([1.0, 2.0]))
    assert torch.equal(plain[0], louder[0])
    step = torch.log(torch.tensor(4.0)) / (2 * SPEC.log_mel_std)  # power grows fourfold
    grown = louder[1] - plain[1]
    floor = plain[1] == plain.min()  # filters too narrow for a bin of the spectrum stay at the floor
    assert floor.float().mean() < 0.1
    assert torch.allclose(grown[~floor], step.expand_as(grown[~floor]), atol=1e-4)
