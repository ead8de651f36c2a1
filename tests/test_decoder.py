"""The decoder: what each block reads, in which order, and what is predicted."""

from __future__ import annotations

import pytest
import torch

from hicmae.decoder import Decoder
from hicmae.masking import complement
from tests.tiny_model import masks, shake


def make(depth: int) -> Decoder:
    torch.manual_seed(0)
    model = Decoder(
        tokens=8, patch_values=10, encoder_width=24, width=16, heads=2, depth=depth, mlp_ratio=2.0,
    )  # fmt: skip
    shake(model)
    return model


@pytest.fixture
def decoder() -> Decoder:
    return make(depth=3)


@pytest.mark.parametrize("every", [1, 2], ids=["all masked tokens", "half of them"])
def test_the_highest_tap_comes_first_and_masked_tokens_last(decoder, every):
    visible, _ = masks(2)
    masked = complement(visible, 8)[:, ::every]
    tokens, low, high = torch.randn(3, 2, 4, 24)
    where_seen = decoder.positions[visible]
    x = torch.cat([decoder.from_encoder(tokens) + where_seen, decoder.mask_token + decoder.positions[masked]], dim=1)
    x = decoder.first_block(x)
    x = decoder.skip_blocks[0](x, decoder.from_encoder(high) + where_seen)
    x = decoder.skip_blocks[1](x, decoder.from_encoder(low) + where_seen)
    expected = decoder.head(decoder.norm(x))[:, 4:]
    torch.testing.assert_close(decoder(tokens, [low, high], visible, masked), expected)


def test_without_taps_the_only_block_is_the_last():
    decoder, (visible, _) = make(depth=1), masks(2)
    masked, tokens = complement(visible, 8), torch.randn(2, 4, 24)
    x = torch.cat(
        [decoder.from_encoder(tokens) + decoder.positions[visible], decoder.mask_token + decoder.positions[masked]], 1
    )
    expected = decoder.head(decoder.norm(decoder.first_block(x)))[:, 4:]
    torch.testing.assert_close(decoder(tokens, [], visible, masked), expected)


def test_the_last_block_works_for_masked_tokens_alone(decoder):
    visible, _ = masks(2)
    sizes = []
    for block in (decoder.first_block, *decoder.skip_blocks):
        block.mlp.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[1]))
        block.attn.proj.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[1]))
    tokens, low, high = torch.randn(3, 2, 4, 24)
    decoder(tokens, [low, high], visible, complement(visible, 8)[:, :3])
    assert sizes == [7, 7, 7, 7, 3, 3]  # 4 visible, 3 to decode


def test_another_number_of_taps_is_refused(decoder):
    visible, _ = masks(2)
    with pytest.raises(ValueError):
        decoder(torch.randn(2, 4, 24), [torch.randn(2, 4, 24)], visible, complement(visible, 8))
