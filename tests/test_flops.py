"""Multiply-adds of a clip: the published figures, and what PyTorch counts in the models themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hicmae.backbone import Backbone
from hicmae.config import ModelConfig
from hicmae.flops import pretraining_macs, recognition_macs
from hicmae.pretraining import HiCMAE, Objective
from tests.tiny_model import TINY, clips, pretraining_batch


def counted(run: Callable[[], object]) -> int:
    """Multiply-adds of the matrix products that PyTorch sees."""
    # Attention as two products: not all of the fused kernels are known to PyTorch's counter.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        run()
    total: int = counter.get_total_flops()
    return total // 2


def test_pretraining_is_what_the_model_does() -> None:
    video, log_mel, video_visible, audio_visible = pretraining_batch(1)
    model = HiCMAE(TINY)
    found = counted(lambda: model(video, log_mel, video_visible, audio_visible))
    own = pretraining_macs(TINY, video_visible=video_visible.shape[1], audio_visible=audio_visible.shape[1])
    # The contrast of a lone clip: D values times D values for each tap, once or once in each direction.
    assert found - own in (len(TINY.taps) * TINY.width, 2 * len(TINY.taps) * TINY.width)


@pytest.mark.parametrize(
    ("fields", "modalities"),
    [
        ({"skip_connections": False}, ("video", "audio")),
        ({"skip_connections": False, "decoder_depth": 1}, ("video", "audio")),
        ({"skip_connections": False, "decoder_depth": 5, "taps": ()}, ("video", "audio")),
        ({"fusion_direction": "to_video"}, ("video", "audio")),
        ({"fusion_direction": "to_audio"}, ("video", "audio")),
        ({"fusion_depth": 0}, ("video", "audio")),
        ({}, ("video",)),
        ({}, ("audio",)),
    ],
)
def test_variants_of_pretraining_are_what_the_model_does(fields: dict[str, Any], modalities: tuple[Any, ...]) -> None:
    config = replace(TINY, **fields)
    # unlike numbers of tokens, which would tell no stream from the other
    batch = *clips(1, config=config), torch.arange(2)[None], torch.arange(3)[None]
    model = HiCMAE(config, objective=Objective(contrast="none"), modalities=modalities)
    own = pretraining_macs(config, video_visible=2, audio_visible=3, modalities=modalities)
    assert counted(lambda: model(*batch)) == own


@pytest.mark.parametrize("modalities", [("video", "audio"), ("video",), ("audio",)])
def test_recognition_is_what_the_backbone_does(modalities: tuple[str, ...]) -> None:
    video, log_mel = clips(1)
    backbone = Backbone(TINY)
    seen, heard = (video if "video" in modalities else None), (log_mel if "audio" in modalities else None)
    # The mix of layers is a product too: depth times width for each modality.
    mix = len(modalities) * TINY.depth * TINY.width
    assert counted(lambda: backbone(seen, heard)) - recognition_macs(TINY, modalities) == mix


def test_published_figures_of_pretraining() -> None:
    """15.14 G for base in the reference; 14.35 G without what nobody reads: embedded masked tokens, and visible ones in
    the decoders' last layers."""
    base = ModelConfig.preset("base")
    own = pretraining_macs(base, video_visible=80, audio_visible=26)
    masked_embedded = (720 * 1536 + 102 * 256) * 512
    visible_decoded = sum(seen * (10 * 384**2 + 2 * tokens * 384) for seen, tokens in ((80, 800), (26, 128)))
    assert own == 14_350_139_392
    assert own + masked_embedded + visible_decoded == 15_137_751_040


@pytest.mark.parametrize(("preset", "giga"), [("base", 46.11), ("small", 27.65), ("tiny", 13.81)])
def test_published_figures_of_finetuning(preset: str, giga: float) -> None:
    """To the last digit that is published, so nothing that they count is left out."""
    assert round(recognition_macs(ModelConfig.preset(preset)) / 1e9, 2) == giga


def test_decoding_half_of_the_tokens_costs_less() -> None:
    base = ModelConfig.preset("base")
    half = pretraining_macs(base, video_visible=80, audio_visible=26, video_decoded=360, audio_decoded=51)
    whole = pretraining_macs(base, video_visible=80, audio_visible=26)
    assert 0.55 * whole < half < 0.7 * whole


def test_more_tokens_than_a_clip_has_are_refused() -> None:
    with pytest.raises(ValueError, match="video: 801 visible"):
        pretraining_macs(ModelConfig(), video_visible=801, audio_visible=1)
    with pytest.raises(ValueError, match="800"):
        pretraining_macs(ModelConfig(), video_visible=80, audio_visible=26, video_decoded=721)
