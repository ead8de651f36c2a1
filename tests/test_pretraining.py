"""The pre-training model: what may influence what, its settings, missing modalities, precision, and the graph."""

from __future__ import annotations

import contextlib

import pytest
import torch

from hicmae.config import InputSpec
from hicmae.losses import contrastive
from hicmae.masking import complement
from hicmae.patches import audio_to_patches, patches_to_audio, patches_to_video, video_to_patches
from hicmae.pretraining import HiCMAE, Objective
from tests.tiny_model import TINY, clips, masks, pretraining_batch, pretraining_model

LOSSES = ("video_loss", "audio_loss", "contrastive_loss")


def losses(output) -> dict[str, float]:
    return {name: getattr(output, name).item() for name in ("loss", *LOSSES)}


def changed_tokens(patches: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Patches with noise in place of some tokens of each clip."""
    noise = torch.randn(patches.shape, generator=torch.Generator().manual_seed(9))
    return patches.scatter(1, which[..., None].expand(-1, -1, patches.shape[-1]), noise)


# ---------------------------------------------------------------- shapes and settings


def test_named_outputs():
    output = pretraining_model()(*pretraining_batch(3))
    assert output.video_prediction.shape == (3, 4, 1536)
    assert output.audio_prediction.shape == (3, 4, 256)
    assert [logits.shape for logits in output.contrastive_logits] == [(3, 3)] * len(TINY.taps)
    assert output.loss.shape == output.video_loss.shape == ()


@pytest.mark.parametrize("weight", [0.0, 0.0025, 2.0])
def test_the_loss_is_the_weighted_sum_of_its_terms(weight):
    output = pretraining_model(contrastive_weight=weight)(*pretraining_batch(3))
    parts = losses(output)
    total = parts["video_loss"] + parts["audio_loss"] + weight * parts["contrastive_loss"]
    assert parts["loss"] == pytest.approx(total, rel=1e-6)


def test_the_default_objective_is_the_papers():
    assert Objective() == Objective(
        contrastive_weight=0.0025, temperature=0.07, negatives="local", frame_difference=True
    )


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        (dict(contrastive_weight=0.5), {"loss"}),
        (dict(temperature=0.5), {"loss", "contrastive_loss"}),
        (dict(frame_difference=False), {"loss", "video_loss"}),
        (dict(negatives="global"), set()),  # one process has no others
    ],
)
def test_each_setting_changes_its_own_loss_and_no_other(setting, changes):
    paper = losses(pretraining_model()(*pretraining_batch(3)))
    other = losses(pretraining_model(**setting)(*pretraining_batch(3)))
    assert {name for name in paper if paper[name] != other[name]} == changes


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(temperature=0), "temperature=0 must be positive"),
        (dict(contrastive_weight=-1), "contrastive_weight=-1 must be 0 or more"),
        (dict(negatives="all"), "negatives='all' must be 'local' or 'global'"),
    ],
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Objective(**setting)


def test_a_clip_of_another_shape_is_refused():
    video, log_mel, *indices = pretraining_batch(1)
    with pytest.raises(ValueError, match="video has shape"):
        pretraining_model()(torch.cat([video, video], dim=2), log_mel, *indices)
    with pytest.raises(ValueError, match="log_mel has shape"):
        pretraining_model()(video, log_mel[:, :, :32], *indices)


# ---------------------------------------------------------------- what may influence what


def test_masked_pixels_and_sounds_influence_no_prediction():
    model, (video, log_mel, video_visible, audio_visible) = pretraining_model(), pretraining_batch(3)
    before = model(video, log_mel, video_visible, audio_visible)
    video_patches, audio_patches = video_to_patches(video, TINY), audio_to_patches(log_mel, TINY)
    after = model(
        patches_to_video(changed_tokens(video_patches, complement(video_visible, 8)), TINY),
        patches_to_audio(changed_tokens(audio_patches, complement(audio_visible, 8)), TINY),
        video_visible,
        audio_visible,
    )
    assert torch.equal(before.video_prediction, after.video_prediction)
    assert torch.equal(before.audio_prediction, after.audio_prediction)
    assert torch.equal(before.contrastive_loss, after.contrastive_loss)
    assert before.video_loss != after.video_loss
    assert before.audio_loss != after.audio_loss


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_every_visible_token_influences_the_predictions_of_both_modalities(modality):
    model, (video, log_mel, video_visible, audio_visible) = pretraining_model(), pretraining_batch(2)
    before = model(video, log_mel, video_visible, audio_visible)
    for number in range(4):
        inputs = [video, log_mel]
        if modality == "video":
            inputs[0] = patches_to_video(
                changed_tokens(video_to_patches(video, TINY), video_visible[:, [number]]), TINY
            )
        else:
            inputs[1] = patches_to_audio(
                changed_tokens(audio_to_patches(log_mel, TINY), audio_visible[:, [number]]), TINY
            )
        after = model(*inputs, video_visible, audio_visible)
        assert (before.video_prediction != after.video_prediction).flatten(1).any(1).all()
        assert (before.audio_prediction != after.audio_prediction).flatten(1).any(1).all()


def test_clips_do_not_influence_each_others_predictions():
    model, batch = pretraining_model(), pretraining_batch(3)
    together = model(*batch)
    alone = model(*(x[1:2] for x in batch))
    torch.testing.assert_close(alone.video_prediction, together.video_prediction[1:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.audio_prediction, together.audio_prediction[1:2], rtol=1e-4, atol=1e-5)


def test_predictions_stand_in_the_order_of_the_masked_tokens():
    # A decoder head that copies one position feature: the prediction then names the token it belongs to.
    model, batch = pretraining_model(), pretraining_batch(2)
    seen = {}
    model.video_decoder.head.register_forward_pre_hook(lambda _, inputs: seen.update(video=inputs[0]))
    for block in (model.video_decoder.first_block, *model.video_decoder.skip_blocks):
        block.forward = lambda x, *context, start: x[:, start:]
    model.video_decoder.norm = torch.nn.Identity()
    model(*batch)
    masked = complement(batch[2], TINY.video_tokens)
    expected = model.video_decoder.mask_token + model.video_decoder.positions[masked]
    assert torch.equal(seen["video"], expected)


def test_the_targets_are_made_of_pixels_on_the_scale_of_the_input():
    # With other colour statistics the same pixels arrive as other numbers; the targets must not notice.
    spec = InputSpec.for_model(TINY)
    other = spec.with_(image_mean=(0.1, 0.9, 0.3), image_std=(0.5, 0.05, 1.5))
    video, log_mel, *indices = pretraining_batch(2)
    pixels = video * torch.tensor(spec.image_std)[:, None, None, None]
    pixels = pixels + torch.tensor(spec.image_mean)[:, None, None, None]
    renormalised = (pixels - torch.tensor(other.image_mean)[:, None, None, None]) / torch.tensor(other.image_std)[
        :, None, None, None
    ]
    results = []
    for its_spec, its_video in ((spec, video), (other, renormalised)):
        model = HiCMAE(TINY, spec=its_spec)
        torch.nn.init.zeros_(model.video_decoder.head.weight)  # predicts 0: the loss is the target's mean square
        results.append(model(its_video, log_mel, *indices).video_loss.item())
    assert results[0] == pytest.approx(results[1], rel=1e-4)
    # standardised: 1 for the first frame of a tubelet, 2 for the difference of two frames of independent noise
    assert results[0] == pytest.approx(1.5, rel=0.05)


def test_dark_patches_are_standardised_as_pixels_not_as_normalised_colours():
    # Deviations of about 1e-5 on the scale 0..1: what is added to them shows, and shows the scale they are on.
    spec = InputSpec.for_model(TINY)
    video, log_mel, *indices = pretraining_batch(2)
    colours = (1, 3, 1, 1, 1)
    pixels = 0.5e-5 * video.sign() * torch.tensor([1.0, 2.0, 3.0]).view(colours)
    model = HiCMAE(TINY, spec=spec.with_(image_mean=(0, 0, 0)), objective=Objective(frame_difference=False))
    torch.nn.init.zeros_(model.video_decoder.head.weight)  # predicts 0: the loss is the target's mean square
    loss = model(pixels / torch.tensor(spec.image_std).view(colours), log_mel, *indices).video_loss
    deviations = torch.tensor([0.5e-5, 1e-5, 1.5e-5])
    assert loss.item() == pytest.approx((deviations / (deviations + 1e-6)).square().mean().item(), rel=5e-3)


def test_each_decoder_reads_its_own_encoders_taps():
    model, seen = pretraining_model(), {}
    for name in ("video", "audio"):
        encoder, decoder = getattr(model.backbone, f"{name}_encoder"), getattr(model, f"{name}_decoder")
        encoder.register_forward_hook(lambda _, __, output, name=name: seen.update({f"{name} encoder": output}))
        decoder.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({f"{name} decoder": inputs}))
    model(*pretraining_batch(2))
    fused = model.backbone.fusion(seen["video encoder"].tokens, seen["audio encoder"].tokens)
    for name, tokens in zip(("video", "audio"), fused, strict=True):
        assert torch.equal(seen[f"{name} decoder"][0], tokens)
        assert seen[f"{name} decoder"][1] is seen[f"{name} encoder"].taps


def test_the_contrast_is_taken_between_means_of_the_tapped_visible_tokens():
    model, (video, log_mel, video_visible, audio_visible) = pretraining_model(), pretraining_batch(3)
    taps = {}
    for name, patches, visible in (
        ("video", video_to_patches(video, TINY), video_visible),
        ("audio", audio_to_patches(log_mel, TINY), audio_visible),
    ):
        encoder = getattr(model.backbone, f"{name}_encoder")
        tokens = torch.stack([row[index] for row, index in zip(patches, visible, strict=True)])
        x = encoder.embed(tokens) + encoder.positions[visible]
        taps[name] = []
        for layer, block in enumerate(encoder.blocks):
            x = block(x)
            if layer in TINY.taps:
                taps[name].append(encoder.norm(x).mean(dim=1))
    expected, _ = contrastive(taps["video"], taps["audio"])
    output = model(video, log_mel, video_visible, audio_visible)
    assert output.contrastive_loss.item() == pytest.approx(expected.item(), rel=1e-5)


# ---------------------------------------------------------------- less decoded, several views


def some_masked(batch, *, every: int = 2) -> dict[str, torch.Tensor]:
    """Of the masked tokens of each clip, every second or so."""
    return {
        "video_decoded": complement(batch[2], TINY.video_tokens)[:, ::every],
        "audio_decoded": complement(batch[3], TINY.audio_tokens)[:, ::every],
    }


def test_all_masked_tokens_named_is_bit_for_bit_none_named():
    model, batch = pretraining_model(), pretraining_batch(3)
    plain, named = model(*batch), model(*batch, **some_masked(batch, every=1), clip_of=torch.arange(3))
    for name in ("loss", *LOSSES, "video_prediction", "audio_prediction"):
        assert torch.equal(getattr(plain, name), getattr(named, name)), name


def test_decoders_see_and_predict_what_is_decoded_and_nothing_else_of_the_masked():
    model, batch = pretraining_model(), pretraining_batch(3)
    lengths = []
    for decoder in (model.video_decoder, model.audio_decoder):
        decoder.first_block.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    output = model(*batch, **some_masked(batch))
    assert lengths == [4 + 2, 4 + 2]
    assert output.video_prediction.shape == (3, 2, 1536)
    assert output.audio_prediction.shape == (3, 2, 256)
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    assert torch.equal(output.contrastive_loss, model(*batch).contrastive_loss)


def test_only_decoded_tokens_count_in_the_losses():
    model, (video, log_mel, *visible) = pretraining_model(), pretraining_batch(3)
    decoded = some_masked((video, log_mel, *visible))
    before = model(video, log_mel, *visible, **decoded)
    video_patches, audio_patches = video_to_patches(video, TINY), audio_to_patches(log_mel, TINY)
    for first, changes in ((1, False), (0, True)):  # of the tokens that are not decoded, and of those that are
        which = [complement(index, 8)[:, first::2] for index in visible]
        after = model(
            patches_to_video(changed_tokens(video_patches, which[0]), TINY),
            patches_to_audio(changed_tokens(audio_patches, which[1]), TINY),
            *visible,
            **decoded,
        )
        assert (after.video_loss.item() != before.video_loss.item()) == changes
        assert (after.audio_loss.item() != before.audio_loss.item()) == changes
        assert torch.equal(after.video_prediction, before.video_prediction)


def test_views_of_a_clip_change_the_contrast_alone():
    model, batch = pretraining_model(), pretraining_batch(4)
    output, plain = model(*batch, clip_of=torch.tensor([5, 5, 2, 2])), model(*batch)
    assert output.video_loss == plain.video_loss
    assert output.audio_loss == plain.audio_loss
    assert output.contrastive_loss < plain.contrastive_loss  # fewer negatives
    finite = torch.isfinite(output.contrastive_logits[0]).sum(dim=1)
    assert finite.tolist() == [3, 3, 3, 3]  # itself and the views of the other clip


# ---------------------------------------------------------------- gradients


def reached(loss: str) -> set[str]:
    """Parts of the model that one loss gives gradient to."""
    model = pretraining_model()
    getattr(model(*pretraining_batch(3)), loss).backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def test_each_term_trains_what_it_should():
    model = pretraining_model()
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"backbone.video_layer_weights", "backbone.audio_layer_weights"}
    video_decoder, audio_decoder, encoders, fusion = (
        {name for name in names if name.startswith(start)}
        for start in ("video_decoder.", "audio_decoder.", ("backbone.video_e", "backbone.audio_e"), "backbone.fusion.")
    )
    assert video_decoder | audio_decoder | encoders | fusion == names
    # The last fusion layer's audio stream is read by the audio decoder alone, and the other way round.
    last = f"_blocks.{TINY.fusion_depth - 1}."
    audio_only = {n for n in fusion if "audio" + last in n or "audio_norm" in n}
    video_only = {n for n in fusion if "video" + last in n or "video_norm" in n}
    # A key's projection moves no attention where all keys are alike, so no parameter is exempt here.
    assert reached("video_loss") == (video_decoder | encoders | fusion) - audio_only
    assert reached("audio_loss") == (audio_decoder | encoders | fusion) - video_only
    assert reached("contrastive_loss") == encoders
    assert reached("loss") == names


def test_the_mask_tokens_do_not_start_at_zero():
    model = HiCMAE(TINY)
    for decoder in (model.video_decoder, model.audio_decoder):
        assert 0.005 < decoder.mask_token.std() < 0.05


# ---------------------------------------------------------------- missing modalities


def test_a_missing_modality_is_not_reconstructed_and_not_contrasted():
    model, batch = pretraining_model(), pretraining_batch(4)
    has_video = torch.tensor([True, True, False, True])
    has_audio = torch.tensor([True, False, True, True])
    output = model(*batch, has_video=has_video, has_audio=has_audio)

    def alone(rows):
        return model(*(x[rows] for x in batch))

    assert output.video_loss.item() == pytest.approx(alone(has_video).video_loss.item(), rel=1e-5)
    assert output.audio_loss.item() == pytest.approx(alone(has_audio).audio_loss.item(), rel=1e-5)
    both = alone(has_video & has_audio).contrastive_loss
    assert output.contrastive_loss.item() == pytest.approx(both.item(), rel=1e-5)


@pytest.mark.parametrize(("name", "untouched"), [("has_video", "audio_loss"), ("has_audio", "video_loss")])
def test_either_flag_may_be_given_alone(name, untouched):
    model, batch = pretraining_model(), pretraining_batch(3)
    flags = torch.tensor([True, False, True])
    output, everyone = model(*batch, **{name: flags}), model(*batch)
    assert getattr(output, untouched) == getattr(everyone, untouched)
    expected = model(*(x[flags] for x in batch)).contrastive_loss
    assert output.contrastive_loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_without_sound_has_finite_gradients():
    model = pretraining_model()
    output = model(*pretraining_batch(2), has_audio=torch.tensor([False, False]))
    output.loss.backward()
    assert output.audio_loss == output.contrastive_loss == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


# ---------------------------------------------------------------- precision and the graph


def test_bfloat16_autocast_keeps_losses_in_float32_and_near():
    model, batch = pretraining_model(), pretraining_batch(4)
    whole = model(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(*batch)
    assert half.video_prediction.dtype == torch.bfloat16, "autocast was not at work"
    for name in ("loss", *LOSSES):
        assert getattr(half, name).dtype == torch.float32
        assert getattr(half, name).item() == pytest.approx(getattr(whole, name).item(), rel=1e-2)
    for ours, expected in zip(half.contrastive_logits, whole.contrastive_logits, strict=True):
        assert ours.dtype == torch.float32
        # cosines off by up to 0.005, over the temperature
        torch.testing.assert_close(ours, expected, rtol=0, atol=0.005 / 0.07)
    assert (half.video_prediction - whole.video_prediction).abs().max() < 0.03 * whole.video_prediction.abs().max()


def test_the_forward_is_one_graph_of_static_shapes():
    # A boolean index, an .item() or a branch on values would break the graph and make a GPU wait.
    model, batch = pretraining_model(), pretraining_batch(2)
    flags = {"has_video": torch.tensor([True, False]), "has_audio": torch.tensor([True, True])}
    flags |= some_masked(batch) | {"clip_of": torch.tensor([4, 4])}
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    expected, ours = model(*batch, **flags), compiled(*batch, **flags)
    assert torch.equal(ours.loss, expected.loss)


def test_nothing_depends_on_values_or_copies_from_the_host(monkeypatch):
    # On the meta device tensors have no values: whatever would read one, or mix in a tensor of the host, fails.
    monkeypatch.setattr(torch, "autocast", lambda **_: contextlib.nullcontext())  # autocast does not know that device
    model = pretraining_model().to("meta")
    batch = [x.to("meta") for x in pretraining_batch(2)]
    present = torch.ones(2, dtype=torch.bool, device="meta")
    less = {**some_masked(pretraining_batch(2)), "clip_of": torch.tensor([4, 4])}
    output = model(
        *batch, has_video=present, has_audio=present, **{name: index.to("meta") for name, index in less.items()}
    )
    output.loss.backward()
    assert output.loss.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_never_waits_and_contrasts_in_float32():
    model = pretraining_model().cuda()
    batch = [x.cuda() for x in pretraining_batch(4)]
    present = torch.ones(4, dtype=torch.bool, device="cuda")
    clip_of = torch.arange(4, device="cuda")
    expected = model(*batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            output = model(*batch, has_video=present, has_audio=present, clip_of=clip_of)
        output.loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(logits.dtype == torch.float32 for logits in output.contrastive_logits)
    assert output.loss.item() == pytest.approx(expected.loss.item(), rel=1e-2)


def test_only_visible_tokens_are_embedded():
    model = pretraining_model()
    seen = []
    for encoder in (model.backbone.video_encoder, model.backbone.audio_encoder):
        encoder.embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    video_visible, audio_visible = masks(2)
    model(*clips(2), video_visible, audio_visible)
    assert seen == [video_visible.shape[1], audio_visible.shape[1]] == [4, 4]


def test_buffers_are_not_saved():
    model = pretraining_model()
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
