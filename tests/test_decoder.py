"""The decoder: what each block reads, in which order, and what is predicted."""

from __future__ import annotations

import pytest
import torch

from hicmae.decoder import Decoder
from hicmae.masking import complement
from tests.tiny_model import masks, shake


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    model = Decoder(
        tokens=8, patch_values=10, encoder_width=24, width=16, heads=2, depth=3, mlp_ratio=2.0,
    )  # fmt: skip
    shake(model)
    return model


def test_the_highest_tap_comes_first_and_masked_tokens_last(decoder):
    visible, _ = masks(2)
    masked = complement(visible, 8)
    tokens, low, high = torch.randn(3, 2, 4, 24)
    where_seen = decoder.positions[visible]
    x = torch.cat([decoder.from_encoder(tokens) + where_seen, decoder.mask_token + decoder.positions[masked]], dim=1)
    x = decoder.first_block(x)
    x = decoder.skip_blocks[0](x, decoder.from_encoder(high) + where_seen)
    x = decoder.skip_blocks[1](x, decoder.from_encoder(low) + where_seen)
    expected = decoder.head(decoder.norm(x))[:, 4:]
    torch.testing.assert_close(decoder(tokens, [low, high], visible, masked), expected)


def test_another_number_of_taps_is_refused(decoder):
    visible, _ = masks(2)
    with pytest.raises(ValueError):
        decoder(torch.randn(2, 4, 24), [torch.randn(2, 4, 24)], visible, complement(visible, 8))
