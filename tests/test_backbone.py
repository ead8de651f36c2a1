"""The backbone: named features, missing modalities, the mix of layers, and what is refused."""

from __future__ import annotations

import pytest
import torch

from hicmae.backbone import Backbone, mix_layers
from hicmae.drop_path import DropPath
from hicmae.patches import audio_to_patches, video_to_patches
from tests.tiny_model import TINY, clips, shake


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(0)
    model = Backbone(TINY)
    shake(model)
    return model


def test_shapes_with_both_modalities(backbone):
    features = backbone(*clips(2))
    for tokens in (features.video_tokens, features.audio_tokens, features.fused_video, features.fused_audio):
        assert tokens.shape == (2, 8, 24)
    assert {name: means.shape for name, means in features.layer_means.items()} == {
        "video": (4, 2, 24),
        "audio": (4, 2, 24),
    }
    assert features.pooled.shape == (2, 4 * 24)


@pytest.mark.parametrize("given", ["video", "audio"])
def test_a_missing_modality_is_none_and_leaves_the_other_as_it_was(backbone, given):
    video, log_mel = clips(2)
    both = backbone(video, log_mel)
    one = backbone(video=video) if given == "video" else backbone(log_mel=log_mel)
    missing = "audio" if given == "video" else "video"
    assert getattr(one, f"{missing}_tokens") is None
    assert one.fused_video is None
    assert one.fused_audio is None
    assert set(one.layer_means) == {given}
    assert torch.equal(getattr(one, f"{given}_tokens"), getattr(both, f"{given}_tokens"))
    part = slice(0, 24) if given == "video" else slice(24, 48)
    assert torch.equal(one.pooled, both.pooled[:, part])


def test_pooled_is_video_audio_fused_video_fused_audio(backbone):
    features = backbone(*clips(2))
    parts = features.pooled.chunk(4, dim=-1)
    for name, part in zip(("video", "audio"), parts[:2], strict=True):
        weights = getattr(backbone, f"{name}_layer_weights").exp()
        means = features.layer_means[name]
        mixed = sum(weight * mean for weight, mean in zip(weights / weights.sum(), means, strict=True))
        torch.testing.assert_close(part, mixed)
    torch.testing.assert_close(parts[2], features.fused_video.mean(dim=1))
    torch.testing.assert_close(parts[3], features.fused_audio.mean(dim=1))


def test_layer_means_are_means_of_every_normed_layer(backbone):
    video, log_mel = clips(2)
    features = backbone(video, log_mel)
    for name, patches in (("video", video_to_patches(video, TINY)), ("audio", audio_to_patches(log_mel, TINY))):
        encoder = getattr(backbone, f"{name}_encoder")
        x = encoder.embed(patches) + encoder.positions
        for layer, block in enumerate(encoder.blocks):
            x = block(x)
            torch.testing.assert_close(features.layer_means[name][layer], encoder.norm(x).mean(dim=1))
        torch.testing.assert_close(getattr(features, f"{name}_tokens"), encoder.norm(x))


def test_fusion_layers_read_the_others_old_value(backbone):
    features = backbone(*clips(2))
    video, audio = features.video_tokens, features.audio_tokens
    fusion = backbone.fusion
    for video_block, audio_block in zip(fusion.video_blocks, fusion.audio_blocks, strict=True):
        new_video = video_block(video, audio)
        audio = audio_block(audio, video)
        video = new_video
    torch.testing.assert_close(features.fused_video, fusion.video_norm(video))
    torch.testing.assert_close(features.fused_audio, fusion.audio_norm(audio))


def test_layers_are_mixed_evenly_at_first():
    backbone = Backbone(TINY)
    means = torch.randn(4, 2, 24)
    for weights in (backbone.video_layer_weights, backbone.audio_layer_weights):
        assert torch.equal(weights, torch.full((4,), 0.25))
        assert weights.requires_grad
        torch.testing.assert_close(mix_layers(means, weights), means.mean(dim=0))


def test_layers_are_mixed_by_softmax():
    means = torch.randn(3, 2, 5)
    mixed = mix_layers(means, torch.tensor([0.0, 1.0, 3.0]).log())
    torch.testing.assert_close(mixed, 0.25 * means[1] + 0.75 * means[2])


def test_the_order_of_tokens_matters_through_positions(backbone):
    video, log_mel = clips(1)
    swapped = backbone(video.flip(2), log_mel).pooled
    assert not torch.allclose(swapped, backbone(video, log_mel).pooled, atol=1e-4)


def test_without_fusion_layers_the_streams_stay_apart():
    config = type(TINY)(**TINY.to_dict() | {"fusion_depth": 0})
    model = Backbone(config)
    video, log_mel = clips(2)
    one, other = model(video, log_mel), model(video, log_mel * 2)
    assert torch.equal(one.fused_video, other.fused_video)
    assert not torch.equal(one.fused_audio, other.fused_audio)


def test_drop_path_grows_evenly_over_encoder_and_fusion():
    def rates(model):
        return [getattr(block.drop_path, "p", 0.0) for block in model]

    backbone = Backbone(TINY, drop_path=0.5)
    for encoder, fusion in (
        (backbone.video_encoder, backbone.fusion.video_blocks),
        (backbone.audio_encoder, backbone.fusion.audio_blocks),
    ):
        assert rates([*encoder.blocks, *fusion]) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert not [m for m in Backbone(TINY).modules() if isinstance(m, DropPath)]


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_an_impossible_drop_path_is_refused(rate):
    with pytest.raises(ValueError, match=f"drop_path={rate} must be at least 0 and below 1"):
        Backbone(TINY, drop_path=rate)


def test_no_input_or_an_input_of_another_shape_is_refused(backbone):
    video, log_mel = clips(1)
    with pytest.raises(ValueError, match="neither video nor log_mel was given"):
        backbone()
    with pytest.raises(ValueError, match=r"video has shape \(1, 3, 4, 32, 16\).*use the transform that comes with"):
        backbone(video[..., :16], log_mel)
    with pytest.raises(ValueError, match=r"log_mel has shape \(1, 64, 32\), this model takes \(B, 1, frames, bins\)"):
        backbone(video, log_mel[0])


# ---------------------------------------------------------------- layers


def layer_by_layer(backbone, name, patches, *, norm):
    encoder = getattr(backbone, f"{name}_encoder")
    x = encoder.embed(patches) + encoder.positions
    found = []
    for block in encoder.blocks:
        x = block(x)
        found.append(encoder.norm(x) if norm else x)
    return found


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(
    ("asked", "layers"), [(None, (1, 3)), (2, (2, 3)), ([3, 0], (3, 0)), ([-4, -1], (0, 3)), ((2,), (2,))]
)
def test_intermediate_layers_are_those_asked_for(backbone, asked, layers, norm):
    backbone.eval()
    video, log_mel = clips(2)
    found = backbone.get_intermediate_layers(video, log_mel, layers=asked, norm=norm)
    assert found.layers == layers
    for name, patches in (("video", video_to_patches(video, TINY)), ("audio", audio_to_patches(log_mel, TINY))):
        every = layer_by_layer(backbone, name, patches, norm=norm)
        for layer, tokens in zip(layers, getattr(found, name), strict=True):
            torch.testing.assert_close(tokens, every[layer])


def test_intermediate_layers_of_one_modality(backbone):
    video, log_mel = clips(2)
    assert backbone.get_intermediate_layers(video).audio is None
    heard = backbone.get_intermediate_layers(log_mel=log_mel)
    assert heard.video is None
    assert len(heard.audio) == 2
    with pytest.raises(ValueError, match="neither video nor log_mel"):
        backbone.get_intermediate_layers()


@pytest.mark.parametrize("layers", [0, 5, [], [4], [-5], [1, 1], [3, -1]])
def test_layers_that_are_not_there_are_refused(backbone, layers):
    with pytest.raises(ValueError, match=r"layers=.*(1 to 4 of the last|0\.\.3)"):
        backbone.get_intermediate_layers(*clips(1), layers=layers)


@pytest.mark.parametrize(("own", "other"), [("video", "audio"), ("audio", "video")])
def test_a_modality_that_it_was_not_trained_with_is_refused(own, other):
    backbone, (video, log_mel) = Backbone(TINY, modalities=[own]), clips(1)
    backbone(video=video) if own == "video" else backbone(log_mel=log_mel)
    with pytest.raises(ValueError, match=f"{other} was given, but this backbone was trained with {own} alone"):
        backbone(video, log_mel)
    with pytest.raises(ValueError, match="must be video, audio or both"):
        Backbone(TINY, modalities=["touch"])
