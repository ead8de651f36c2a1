"""Attention as matrices: against the blocks' own output, and on inputs whose attention is known."""

from __future__ import annotations

import pytest
import torch

from hicmae.attention import (
    attention_over_time,
    attention_received,
    attention_weights,
    cross_attention_weights,
    fusion_attention,
    rollout,
    self_attention_weights,
)
from hicmae.backbone import Backbone
from hicmae.layers import SelfAttention
from hicmae.patches import audio_to_patches, video_to_patches
from tests.tiny_model import TINY, clips, shake


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(0)
    model = Backbone(TINY, drop_path=0.5)
    shake(model)
    return model.eval()


def answered(weights, values, projection):
    """Weights (B, H, N, C) times values (B, C, D), heads side by side, projected."""
    heads = weights.shape[1]
    return projection((weights @ values.unflatten(-1, (heads, -1)).transpose(1, 2)).transpose(1, 2).flatten(2))


def test_weights_times_values_are_what_each_layer_answers(backbone):
    encoder, patches = backbone.video_encoder, video_to_patches(clips(2)[0], TINY)
    answers = {}
    for layer, block in enumerate(encoder.blocks):
        block.attn.register_forward_hook(lambda _, given, out, layer=layer: answers.update({layer: (given[0], out)}))
    encoder(patches)
    found = attention_weights(encoder, patches, range(TINY.depth))
    assert list(found) == list(range(TINY.depth))
    for layer, weights in found.items():
        attention = encoder.blocks[layer].attn
        given, out = answers[layer]
        values = attention.ask(given, 0)[2]
        assert weights.shape == (2, TINY.heads, TINY.video_tokens, TINY.video_tokens)
        torch.testing.assert_close(answered(weights, values, attention.proj), out, rtol=0, atol=1e-6)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_fusion_weights_times_values_are_what_each_layer_answers(backbone):
    video, log_mel = clips(2)
    seen = backbone(video, log_mel)
    answers = {}
    for stream in ("video", "audio"):
        for layer, block in enumerate(getattr(backbone.fusion, f"{stream}_blocks")):
            block.cross_attn.register_forward_hook(
                lambda _, given, out, key=(stream, layer): answers.update({key: (given[1], out)})
            )
    backbone(video, log_mel)
    found = fusion_attention(backbone.fusion, seen.video_tokens, seen.audio_tokens)
    for stream, layers in (("video", found.video_to_audio), ("audio", found.audio_to_video)):
        assert len(layers) == TINY.fusion_depth
        for layer, weights in enumerate(layers):
            attention = getattr(backbone.fusion, f"{stream}_blocks")[layer].cross_attn
            context, out = answers[stream, layer]
            values = context @ attention.kv.weight[TINY.width :].T + attention.v_bias
            torch.testing.assert_close(answered(weights, values, attention.proj), out, rtol=0, atol=1e-6)
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_layers_come_in_the_order_asked_for_and_strangers_are_named(backbone):
    patches = audio_to_patches(clips(1)[1], TINY)
    assert list(attention_weights(backbone.audio_encoder, patches, (3, 1))) == [3, 1]
    assert attention_weights(backbone.audio_encoder, patches, ()) == {}
    with pytest.raises(ValueError, match=r"no layers \[4, -1\]; it has 0 to 3"):
        attention_weights(backbone.audio_encoder, patches, (0, 4, -1))


def test_a_training_model_is_looked_at_without_a_random_number_and_left_as_it_was(backbone):
    patches = video_to_patches(clips(2)[0], TINY)
    expected = attention_weights(backbone.video_encoder, patches, (3,))[3]
    backbone.train()
    backbone.video_encoder.blocks[0].mlp.eval()
    modes = [module.training for module in backbone.modules()]
    before = torch.get_rng_state()
    found = attention_weights(backbone.video_encoder, patches, (3,))[3]
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in backbone.modules()] == modes


def test_weights_are_float32_under_autocast(backbone):
    patches = video_to_patches(clips(1)[0], TINY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = attention_weights(backbone.video_encoder, patches, (0,))[0]
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_a_token_with_a_large_key_gets_the_attention():
    layer = SelfAttention(8, 2)
    with torch.no_grad():
        layer.qkv.weight.copy_(torch.eye(8).repeat(3, 1))
        layer.q_bias.fill_(1.0)  # every token asks for keys that are large
    x = torch.zeros(1, 5, 8)
    x[0, 3] = 20.0
    received = attention_received(self_attention_weights(layer, x))
    assert received[0, 3] > 0.99
    torch.testing.assert_close(received.sum(-1), torch.ones(1))


def test_cross_attention_reads_the_context_with_the_large_key(backbone):
    layer = backbone.fusion.video_blocks[0].cross_attn
    with torch.no_grad():
        layer.q.weight.zero_()
        layer.q_bias.fill_(1.0)
        layer.kv.weight.copy_(torch.eye(TINY.width).repeat(2, 1))
    context = torch.zeros(1, 6, TINY.width)
    context[0, 4] = 20.0
    weights = cross_attention_weights(layer, torch.randn(1, 3, TINY.width), context)
    assert weights.shape == (1, TINY.heads, 3, 6)
    assert (weights[..., 4] > 0.99).all()


def test_rollout_of_attention_to_oneself_is_the_identity():
    oneself = torch.eye(6).expand(2, 3, 6, 6)
    torch.testing.assert_close(rollout([oneself] * 4), torch.eye(6).expand(2, 6, 6))


def test_rollout_takes_the_first_layer_first():
    # Layer 1: token 0 reads token 1. Layer 2: token 2 reads token 0, and so a quarter of token 1.
    first, second = torch.eye(3).repeat(1, 1, 1, 1), torch.eye(3).repeat(1, 1, 1, 1)
    first[0, 0, 0] = torch.tensor([0.0, 1.0, 0.0])
    second[0, 0, 2] = torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(rollout([first, second])[0, 2], torch.tensor([0.25, 0.25, 0.5]))
    torch.testing.assert_close(rollout([second, first])[0, 2], torch.tensor([0.5, 0.0, 0.5]))


def test_rollout_rows_sum_to_one(backbone):
    patches = video_to_patches(clips(2)[0], TINY)
    joined = rollout([*attention_weights(backbone.video_encoder, patches, range(TINY.depth)).values()])
    torch.testing.assert_close(joined.sum(-1), torch.ones(2, TINY.video_tokens))
    with pytest.raises(ValueError, match="at least one layer"):
        rollout([])


def test_attention_over_time_adds_up_the_tokens_of_a_moment():
    # 2 moments of 2 tokens ask 3 moments of 2 tokens; the tokens of moment 1 read the last token alone.
    weights = torch.full((1, 2, 4, 6), 1 / 6)
    weights[:, :, 2:] = torch.tensor([0.0, 0, 0, 0, 0, 1])
    found = attention_over_time(weights, (2, 2), (3, 2))
    torch.testing.assert_close(found[0], torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0, 0, 1]]))
