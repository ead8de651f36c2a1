"""The paper's ablation as switches: each changes what it should and nothing else, alone and together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from hicmae import distributed
from hicmae.accumulation import losses_in_parts
from hicmae.backbone import Backbone
from hicmae.heads import categorical
from hicmae.losses import contrastive
from hicmae.masking import take_tokens
from hicmae.patches import audio_to_patches, video_to_patches
from hicmae.pretraining import HiCMAE, Objective, PretrainInput
from hicmae.recognition import EmotionRecognizer
from hicmae.reconstruction import reconstruct
from hicmae.reference import to_reference
from hicmae.training.optim import OptimizerConfig, parameter_groups
from tests.tiny_model import TINY, clips, pretraining_batch

NO_SKIPS: dict[str, Any] = {"skip_connections": False}
PARTS = ("video_encoder", "audio_encoder", "fusion", "video_decoder", "audio_decoder")
# Fields of ModelConfig, then of Objective, then modalities.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "paper": ({}, {}, ("video", "audio")),
    "no skips": (NO_SKIPS, {}, ("video", "audio")),
    "no skips, deeper": ({**NO_SKIPS, "decoder_depth": 7}, {}, ("video", "audio")),
    "one plain block": ({**NO_SKIPS, "decoder_depth": 1}, {}, ("video", "audio")),
    "to video": ({"fusion_direction": "to_video"}, {}, ("video", "audio")),
    "to audio": ({"fusion_direction": "to_audio"}, {}, ("video", "audio")),
    "no fusion": ({"fusion_depth": 0}, {}, ("video", "audio")),
    "last layer": ({"feature_fusion": "last"}, {}, ("video", "audio")),
    "contrast on top": ({}, {"contrast": "top"}, ("video", "audio")),
    "no contrast": ({}, {"contrast": "none"}, ("video", "audio")),
    "video alone": ({}, {}, ("video",)),
    "audio alone": ({}, {}, ("audio",)),
    "nothing tapped": ({**NO_SKIPS, "taps": ()}, {"contrast": "top"}, ("video", "audio")),
    "no hierarchy, one way": (
        {**NO_SKIPS, "taps": (), "decoder_depth": 2, "feature_fusion": "last", "fusion_direction": "to_audio"},
        {"contrast": "none", "frame_difference": False},
        ("video", "audio"),
    ),
    "audio alone, nothing tapped": ({**NO_SKIPS, "taps": ()}, {}, ("audio",)),
}


def build(name: str = "paper", **fields: Any) -> HiCMAE:
    architecture, objective, modalities = VARIANTS[name]
    torch.manual_seed(0)
    return HiCMAE(replace(TINY, **(architecture | fields)), objective=Objective(**objective), modalities=modalities)  # type: ignore[arg-type]


def values(model: torch.nn.Module, part: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.state_dict().items() if k.removeprefix("backbone.").startswith(part)}


def same(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == expected.keys() and all(torch.equal(ours[name], expected[name]) for name in ours)


# ---------------------------------------------------------------- every variant


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_trained_gets_a_gradient_whole_and_in_parts(name: str) -> None:
    """A parameter that waits for a gradient stalls data-parallel training."""
    model, batch = build(name), pretraining_batch(3)
    whole = model(*batch)
    whole.loss.backward()
    expected = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, grad in expected.items() if grad is None] == []
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    model.zero_grad()
    names = ("video", "log_mel", "video_visible", "audio_visible")
    parts = losses_in_parts(model, PretrainInput(**dict(zip(names, batch, strict=True))), 2)
    parts.loss.backward()
    for term in ("loss", "video_loss", "audio_loss", "contrastive_loss"):
        assert getattr(parts, term).item() == pytest.approx(getattr(whole, term).item(), rel=1e-5)
    for n, p in model.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(p.grad, expected[n], rtol=1e-3, atol=1e-6)
    groups = parameter_groups(model.named_parameters(), OptimizerConfig(), lr=1.0, depth=4, fusion_depth=2)
    assert {n for group in groups for n in group["names"]} == set(expected)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_recogniser_of_every_variant_trains_all_that_it_trains(name: str) -> None:
    architecture, _, modalities = VARIANTS[name]
    recognizer = EmotionRecognizer(Backbone(replace(TINY, **architecture)), categorical(["a", "b"]),
                                   modalities=modalities)  # type: ignore[arg-type]  # fmt: skip
    recognizer(*clips(2)).logits.square().sum().backward()
    assert [n for n, p in recognizer.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", VARIANTS)
def test_shared_parts_begin_alike_and_so_does_what_is_built_next(name: str) -> None:
    depth = VARIANTS[name][0].get("decoder_depth", TINY.decoder_depth)
    fusion_depth = VARIANTS[name][0].get("fusion_depth", TINY.fusion_depth)
    torch.manual_seed(0)
    blocks = min(depth, TINY.depth + 1)
    paper = replace(TINY, taps=tuple(range(blocks - 1)), decoder_depth=blocks, fusion_depth=fusion_depth)
    paper_values = HiCMAE(paper, objective=Objective(contrast="none")).state_dict()
    after = torch.rand(1)
    model = build(name)
    assert torch.equal(torch.rand(1), after)
    found = model.state_dict()
    differing = [n for n, v in found.items() if not torch.equal(paper_values.get(_paper_name(n), v), v)]
    assert differing == []
    strangers = [n for n in found if _paper_name(n) not in paper_values]
    assert all(".plain_blocks." in n for n in strangers)
    assert bool(strangers) == (name == "no skips, deeper")  # the paper's decoder has no more than a block per layer


def _paper_name(name: str) -> str:
    return name.replace(".plain_blocks.", ".skip_blocks.")


def test_the_papers_model_has_the_names_it_always_had() -> None:
    names = set(build().state_dict())
    assert not [name for name in names if "plain_blocks" in name]
    assert {f"video_decoder.skip_blocks.{n}.cross_attn.q.weight" for n in (0, 1)} <= names
    assert len(names) == len(set(build("last layer").state_dict()) | names)  # feature fusion changes no name


# ---------------------------------------------------------------- skip connections


def test_without_skip_connections_the_decoder_alone_is_another() -> None:
    paper, plain, batch = build(), build("no skips"), pretraining_batch(3)
    for part in PARTS[:3]:
        assert same(values(plain, part), values(paper, part)), part
    expected, found = paper(*batch), plain(*batch)
    assert torch.equal(found.contrastive_loss, expected.contrastive_loss)
    assert not torch.equal(found.video_loss, expected.video_loss)
    assert not torch.equal(found.audio_loss, expected.audio_loss)
    assert not [name for name in plain.state_dict() if "decoder" in name and ("cross" in name or "skip" in name)]


def test_plain_decoders_see_the_fused_tokens_alone() -> None:
    model, batch = build("no skips"), pretraining_batch(2)
    seen: list[Any] = []
    model.video_decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    before = model(*batch)
    tokens, taps, visible, masked = seen[0]
    assert taps == []
    decoder = model.video_decoder
    x = torch.cat([decoder.from_encoder(tokens) + decoder.positions[visible],
                   decoder.mask_token + decoder.positions[masked]], dim=1)  # fmt: skip
    for block in (decoder.first_block, *decoder.plain_blocks):
        x = block(x)
    torch.testing.assert_close(before.video_prediction, decoder.head(decoder.norm(x))[:, visible.shape[1] :])


def test_the_number_of_plain_blocks_is_free_of_the_taps() -> None:
    assert [len(build("no skips", decoder_depth=n).video_decoder.plain_blocks) for n in (1, 2, 6)] == [0, 1, 5]
    assert torch.isfinite(build("no skips", decoder_depth=6, taps=(0,))(*pretraining_batch(2)).loss)


# ---------------------------------------------------------------- contrast


def test_without_contrast_the_reconstruction_is_the_same_and_the_gradient_another(monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was contrasted or gathered")

    paper, silent, batch = build(), build("no contrast"), pretraining_batch(3)
    expected = paper(*batch)
    monkeypatch.setattr(distributed, "gather", refuse)
    monkeypatch.setattr("hicmae.pretraining.contrastive", refuse)
    found = silent(*batch)
    assert found.contrastive_loss.item() == 0.0
    assert found.contrastive_logits == []
    for name in ("video_loss", "audio_loss", "video_prediction", "audio_prediction"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert same(silent.state_dict(), paper.state_dict())
    found.loss.backward()
    expected.loss.backward()
    differing = {n for n, p in silent.named_parameters() if p.requires_grad
                 and not torch.equal(p.grad, paper.get_parameter(n).grad)}  # fmt: skip
    assert differing == {n for n in differing if "encoder" in n and "from_encoder" not in n}
    assert any("video_encoder.blocks.0" in n for n in differing)


def test_contrast_on_top_is_of_the_last_layer_tapped_or_not() -> None:
    batch = pretraining_batch(3)
    for taps in ((0, 2), (1, 3)):
        model, paper = build("contrast on top", taps=taps), build(taps=taps)
        means = []
        for name, patches, visible in (("video", video_to_patches(batch[0], TINY), batch[2]),
                                       ("audio", audio_to_patches(batch[1], TINY), batch[3])):  # fmt: skip
            encoder = getattr(model.backbone, f"{name}_encoder")
            x = encoder.embed(take_tokens(patches, visible)) + encoder.positions[visible]
            for block in encoder.blocks:
                x = block(x)
            means.append(encoder.norm(x).mean(dim=1))
        found, expected = model(*batch), paper(*batch)
        assert found.contrastive_loss.item() == pytest.approx(contrastive([means[0]], [means[1]])[0].item(), rel=1e-5)
        assert len(found.contrastive_logits) == 1
        assert torch.equal(found.video_loss, expected.video_loss)
        assert torch.equal(found.audio_loss, expected.audio_loss)
        assert found.contrastive_loss != expected.contrastive_loss


def test_a_contrast_of_no_taps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"contrast=taps .* but taps is empty: name layers in taps, or set .* top"):
        HiCMAE(replace(TINY, skip_connections=False, taps=()))
    with pytest.raises(ValueError, match="contrast='first' must be one of taps, top, none"):
        Objective(contrast="first")  # type: ignore[arg-type]


# ---------------------------------------------------------------- taps and fusion


def test_taps_change_what_is_contrasted_and_decoded_and_no_parameter() -> None:
    batch = pretraining_batch(3)
    one, other = build(), build(taps=(0, 2))
    assert same(one.state_dict(), other.state_dict())
    expected, found = one(*batch), other(*batch)
    for name in ("video_loss", "audio_loss", "contrastive_loss"):
        assert getattr(found, name) != getattr(expected, name), name
    fewer = build(taps=(2,), decoder_depth=2)(*batch)
    assert len(fewer.contrastive_logits) == 1


@pytest.mark.parametrize(
    ("direction", "fused", "left"), [("to_video", "video", "audio"), ("to_audio", "audio", "video")]
)
def test_fusion_in_one_direction(direction: Any, fused: str, left: str) -> None:
    torch.manual_seed(0)
    both = Backbone(one_layer := replace(TINY, fusion_depth=1))
    torch.manual_seed(0)
    one = Backbone(replace(one_layer, fusion_direction=direction))
    assert len(getattr(one.fusion, f"{left}_blocks")) == 0
    assert {n.split(".")[1] for n in values(one, "fusion")} == {f"{fused}_blocks", "video_norm", "audio_norm"}
    expected, found = both(*clips(2)), one(*clips(2))
    # within a layer both read the other's value from before it, so a lone layer of the one stream does what it did
    assert torch.equal(getattr(found, f"fused_{fused}"), getattr(expected, f"fused_{fused}"))
    norm = getattr(one.fusion, f"{left}_norm")
    assert torch.equal(getattr(found, f"fused_{left}"), norm(getattr(found, f"{left}_tokens")))
    assert torch.equal(found.pooled[:, :48], expected.pooled[:, :48])


def test_without_fusion_layers_both_streams_are_normed_alone() -> None:
    found = Backbone(replace(TINY, fusion_depth=0))(*clips(2))
    for name in ("video", "audio"):
        tokens = getattr(found, f"{name}_tokens")
        expected = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        assert torch.equal(getattr(found, f"fused_{name}"), expected)


# ---------------------------------------------------------------- feature fusion


def test_the_last_layer_alone_replaces_the_mix_and_nothing_else() -> None:
    torch.manual_seed(0)
    mixed = Backbone(TINY)
    last = Backbone(replace(TINY, feature_fusion="last"))
    last.load_state_dict(mixed.state_dict())  # strictly, either way
    mixed.load_state_dict(last.state_dict())
    expected, found = mixed(*clips(2)), last(*clips(2))
    for place, name in enumerate(("video", "audio")):
        part = slice(24 * place, 24 * (place + 1))
        assert torch.equal(found.layer_means[name], expected.layer_means[name])
        assert torch.equal(found.pooled[:, part], found.layer_means[name][-1])
        assert not torch.equal(found.pooled[:, part], expected.pooled[:, part])
    assert torch.equal(found.pooled[:, 48:], expected.pooled[:, 48:])
    frozen = {n for n, p in last.named_parameters() if not p.requires_grad}
    assert frozen == {"video_layer_weights", "audio_layer_weights"}
    assert all(p.requires_grad for p in mixed.parameters())


# ---------------------------------------------------------------- one modality


@pytest.mark.parametrize(("modality", "other"), [("video", "audio"), ("audio", "video")])
def test_one_modality_alone(modality: str, other: str) -> None:
    model, batch = build(f"{modality} alone"), pretraining_batch(3)
    output = model(*batch)
    own, theirs = (getattr(output, f"{name}_loss") for name in (modality, other))
    assert theirs.item() == output.contrastive_loss.item() == 0.0
    assert torch.equal(output.loss, own)
    assert getattr(output, f"{other}_prediction") is None
    changed = list(batch)
    changed[1 if modality == "video" else 0] = changed[1 if modality == "video" else 0] + 1
    assert torch.equal(model(*changed).loss, output.loss)
    trained = {n.removeprefix("backbone.").split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {f"{modality}_encoder", f"{modality}_decoder"}
    assert same(model.state_dict(), build().state_dict())  # what is not trained is there, as it was drawn
    assert model.backbone.modalities == (modality,)


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_the_tokens_of_one_modality_go_past_the_fusion(modality: str) -> None:
    model, seen = build(f"{modality} alone"), {}
    encoder, decoder = getattr(model.backbone, f"{modality}_encoder"), getattr(model, f"{modality}_decoder")
    encoder.register_forward_hook(lambda _, __, output: seen.update(encoded=output))
    decoder.register_forward_pre_hook(lambda _, inputs: seen.update(decoded=inputs))
    model.backbone.fusion.register_forward_pre_hook(lambda _, inputs: seen.update(fused=inputs))
    model(*pretraining_batch(2))
    assert seen["decoded"][0] is seen["encoded"].tokens
    assert seen["decoded"][1] is seen["encoded"].taps
    assert "fused" not in seen


def test_clips_without_the_modality_do_not_count() -> None:
    model, batch = build("video alone"), pretraining_batch(3)
    flags = {"has_video": torch.tensor([True, True, False]), "has_audio": torch.tensor([False, False, False])}
    found = model(*batch, **flags)
    expected = model(*(x[:2] for x in batch))
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)


@pytest.mark.parametrize(("modality", "other"), [("video", "log_mel"), ("audio", "video")])
def test_pictures_of_one_modality_show_nothing_predicted_of_the_other(modality: str, other: str) -> None:
    shown = reconstruct(build(f"{modality} alone").eval(), *pretraining_batch(2))
    own = "video" if modality == "video" else "log_mel"
    assert getattr(shown, f"{own}_predicted").isfinite().all()
    assert not torch.equal(getattr(shown, f"{own}_predicted"), getattr(shown, own))
    for name in ("masked", "predicted"):
        picture = getattr(shown, f"{other}_{name}")
        assert picture.isnan().all() if other == "log_mel" else (picture == 0.5).all()


# ---------------------------------------------------------------- other formats


@pytest.mark.parametrize(
    ("name", "message"),
    [("no skips", "skip_connections=False"), ("to video", "fusion_direction=to_video"),
     ("last layer", "feature_fusion=last"), ("video alone", "trained with video alone")],
)  # fmt: skip
def test_the_references_files_cannot_hold_a_variant(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_reference(build(name))
