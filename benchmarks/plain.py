"""Training steps with one optimisation taken out, or one that was tried and not kept put in, by code of our own.

Each computes the same loss and the same gradients as the step of the library (``tests/test_optimisations.py``). What a
variant should cost is predicted from the multiply-adds and the bytes that it has more than the library's step.

Letters: B clips, N tokens, C context tokens, V visible and M masked tokens, P values per patch, D width, H heads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hicmae.encoder
import hicmae.layers
import hicmae.pretraining
from hicmae.backbone import Backbone
from hicmae.bench.batch import SyntheticBatch
from hicmae.bench.steps import TrainingSteps
from hicmae.config import ModelConfig
from hicmae.decoder import Decoder
from hicmae.encoder import Encoder, EncoderOutput
from hicmae.flops import pretraining_macs, recognition_macs
from hicmae.layers import Recompute, set_recompute
from hicmae.losses import full_precision
from hicmae.masking import complement, take_tokens
from hicmae.pretraining import HiCMAE


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a variant has more than the library's step, for the whole batch; negative: less."""

    macs: float = 0.0
    """Multiply-adds, forward and backward."""
    bytes: float = 0.0
    """Read from and written to memory beside matrix products, forward and backward."""
    kept: float = 0.0
    """Bytes kept from the forward pass for the backward pass."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A step that differs from the library's in one thing."""

    name: str
    """What it does."""
    apply: Callable[[ExitStack, TrainingSteps, SyntheticBatch], None]
    """Changes model or library until the stack is closed."""
    cost: Callable[[ModelConfig, SyntheticBatch], Cost]
    kind: Literal["without", "option", "tried"] = "without"
    """It lacks what the library does; or does what the library does on request; or has what was tried, and not kept."""

    @contextmanager
    def applied(self, steps: TrainingSteps, batch: SyntheticBatch) -> Iterator[None]:
        """Within it, ``steps`` are those of the variant."""
        with ExitStack() as stack:
            self.apply(stack, steps, batch)
            yield


def _streams(config: ModelConfig, batch: SyntheticBatch) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Tokens, visible ones of them, and values of a patch: of video, of audio."""
    return (
        (config.video_tokens, batch.video_visible.shape[1], config.video_patch_values),
        (config.audio_tokens, batch.audio_visible.shape[1], config.audio_patch_values),
    )


def _replace(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    stack.enter_context(mock.patch.object(owner, name, value))


# ---------------------------------------------------------------- attention


def written_out(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention whose scores (B, H, N, C) are kept for the backward pass."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    return (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)


def _attention(stack: ExitStack, steps: TrainingSteps, batch: SyntheticBatch) -> None:
    _replace(stack, hicmae.layers, "attend", written_out)


def _scores(config: ModelConfig, batch: SyntheticBatch, *, masked: bool) -> int:
    """Scores of all heads of all layers of the batch."""
    video, audio = (seen if masked else tokens for tokens, seen, _ in _streams(config, batch))
    scores = config.heads * config.depth * (video**2 + audio**2)
    scores += config.heads * config.fusion_depth * (video + audio) ** 2  # themselves, and each other
    if masked:
        for tokens, seen, _ in _streams(config, batch):
            scores += config.decoder_heads * (config.decoder_depth * tokens**2 - tokens * seen)
            scores += config.decoder_heads * (config.decoder_depth - 1) * tokens * seen
    return len(batch) * scores


def _attention_cost(config: ModelConfig, batch: SyntheticBatch, *, masked: bool) -> Cost:
    scores = 4 * _scores(config, batch, masked=masked)
    # written, scaled, softmax, read: 6 passes there, and 7 back. SDPA computes the scores a second time instead.
    return Cost(bytes=13 * scores, kept=scores)


# ---------------------------------------------------------------- the encoders


def _embed_all(stack: ExitStack, steps: TrainingSteps, batch: SyntheticBatch) -> None:
    _replace(stack, hicmae.encoder, "take_tokens", lambda patches, visible: patches)
    backbone = steps.model.backbone
    for encoder, visible in (
        (backbone.video_encoder, batch.video_visible),
        (backbone.audio_encoder, batch.audio_visible),
    ):
        _replace(stack, encoder.embed, "forward", _choose_after(encoder.embed.forward, visible))


def _choose_after(embed: Callable[[Tensor], Tensor], visible: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda patches: take_tokens(embed(patches), visible)


def _embed_all_cost(config: ModelConfig, batch: SyntheticBatch) -> Cost:
    values = sum((tokens - seen) * values for tokens, seen, values in _streams(config, batch))
    return Cost(macs=2 * len(batch) * values * config.width)  # pixels need no gradient


def _norm_again(stack: ExitStack, steps: TrainingSteps, batch: SyntheticBatch) -> None:
    backbone = steps.model.backbone
    for encoder in (backbone.video_encoder, backbone.audio_encoder):
        _replace(stack, encoder, "forward", _last_layer_normed_twice(encoder))


def _last_layer_normed_twice(encoder: Encoder) -> Callable[..., EncoderOutput]:
    def forward(*args: Any, **kwargs: Any) -> EncoderOutput:
        last: list[Tensor] = []
        hook = encoder.blocks[-1].register_forward_hook(lambda block, inputs, output: last.append(output))
        result = Encoder.forward(encoder, *args, **kwargs)
        hook.remove()
        return dataclasses.replace(result, tokens=encoder.norm(last[0]))

    return forward


def _norm_again_cost(config: ModelConfig, batch: SyntheticBatch) -> Cost:
    tokens = sum(seen for _, seen, _ in _streams(config, batch))
    return Cost(bytes=8 * 4 * len(batch) * tokens * config.width)


def _keep_layers(stack: ExitStack, steps: TrainingSteps, batch: SyntheticBatch) -> None:
    backbone = steps.model.backbone
    for encoder in (backbone.video_encoder, backbone.audio_encoder):
        _replace(stack, encoder, "forward", _with_all_layers(encoder))


def _with_all_layers(encoder: Encoder) -> Callable[..., EncoderOutput]:
    def forward(patches: Tensor, visible: Tensor | None = None, *, with_layer_means: bool = True) -> EncoderOutput:
        every = range(len(encoder.blocks))
        result = Encoder.forward(encoder, patches, visible, taps=every, norm_taps=False)
        layers = encoder.norm(torch.stack(result.taps))  # (L, B, N, D)
        return EncoderOutput(tokens=layers[-1], taps=[], layer_means=layers.mean(dim=2))

    return forward


def _keep_layers_cost(config: ModelConfig, batch: SyntheticBatch) -> Cost:
    layers = 4 * config.depth * len(batch) * (config.video_tokens + config.audio_tokens) * config.width
    return Cost(bytes=4 * layers, kept=layers)  # written and read, there and back; norms and means are the same


# ---------------------------------------------------------------- the decoders


def _whole_last_layer(stack: ExitStack, steps: TrainingSteps, batch: SyntheticBatch) -> None:
    for decoder in (steps.model.video_decoder, steps.model.audio_decoder):
        _replace(stack, decoder, "forward", _decode(decoder, _first_block))


def _decode(
    decoder: Decoder, first_block: Callable[[Decoder, Tensor, Tensor], Tensor], *, whole: bool = True
) -> Callable[..., Tensor]:
    """The decoder's forward pass, with another first block; ``whole``: with a last block that works for all tokens."""

    def forward(tokens: Tensor, taps: Sequence[Tensor], visible: Tensor, masked: Tensor) -> Tensor:
        where_seen, seen = decoder.positions[visible], visible.shape[1]
        x = first_block(decoder, decoder.from_encoder(tokens) + where_seen, masked)
        for number, (block, tap) in enumerate(zip(decoder.skip_blocks, reversed(taps), strict=True), start=1):
            last = number == len(taps)
            x = block(x, decoder.from_encoder(tap) + where_seen, start=seen if last and not whole else 0)
        return decoder.head(decoder.norm(x[:, seen:] if whole else x))

    return forward


def _first_block(decoder: Decoder, seen: Tensor, masked: Tensor) -> Tensor:
    return decoder.first_block(torch.cat([seen, decoder.mask_token + decoder.positions[masked]], dim=1))


def _whole_last_layer_cost(config: ModelConfig, batch: SyntheticBatch) -> Cost:
    width = config.decoder_width
    linear = (2 + 2 * config.mlp_ratio) * width**2  # queries, projection, MLP
    macs = sum(seen * (linear + 2 * tokens * width) for tokens, seen, _ in _streams(config, batch))
    return Cost(macs=3 * len(batch) * macs)


def _mask_tokens_once(stack: ExitStack, steps: TrainingSteps, batch: SyntheticBatch) -> None:
    for decoder in (steps.model.video_decoder, steps.model.audio_decoder):
        _replace(stack, decoder, "forward", _decode(decoder, _shared_first_block, whole=False))


def _shared_first_block(decoder: Decoder, seen: Tensor, masked: Tensor) -> Tensor:
    """Before any attention a mask token is the same in all clips: its queries, keys and values are computed once."""
    block = decoder.first_block
    attention = block.attn
    bias = torch.cat([attention.q_bias, attention.no_key_bias, attention.v_bias])

    def project(x: Tensor) -> Tensor:
        return F.linear(block.norm1(x), attention.qkv.weight, bias)

    everywhere = project(decoder.mask_token[0] + decoder.positions)  # (N, 3 D)
    q, k, v = torch.cat([project(seen), F.embedding(masked, everywhere)], dim=1).chunk(3, dim=-1)
    x = torch.cat([seen, decoder.mask_token + decoder.positions[masked]], dim=1)
    x = x + attention.proj(hicmae.layers.attend(q, k, v, attention.heads))
    return x + block.mlp(block.norm2(x))


def _mask_tokens_once_cost(config: ModelConfig, batch: SyntheticBatch) -> Cost:
    values, clips = 3 * config.decoder_width, len(batch)
    saved = sum(clips * (tokens - seen) - tokens for tokens, seen, _ in _streams(config, batch))
    moved = sum(clips * tokens for tokens, _, _ in _streams(config, batch))
    # looked up and joined: two passes there and two back, each read and written
    return Cost(macs=-3.0 * saved * values * config.decoder_width, bytes=4 * 8 * moved * values)


# ---------------------------------------------------------------- targets


def _all_targets(stack: ExitStack, steps: TrainingSteps, batch: SyntheticBatch) -> None:
    config: ModelConfig = steps.model.config
    video_masked = complement(batch.video_visible, config.video_tokens)
    audio_masked = complement(batch.audio_visible, config.audio_tokens)

    @full_precision
    def video(pixels: Tensor, config: ModelConfig, *, frame_difference: bool = True) -> Tensor:
        standard = _standardized(pixels.unflatten(-1, (-1, 3))).flatten(-2)
        frames = standard.unflatten(-1, (config.tubelet_size, -1))
        moved = torch.cat([frames[..., :1, :], frames[..., 1:, :] - frames[..., :-1, :]], dim=-2)
        return take_tokens(moved.flatten(-2), video_masked)

    @full_precision
    def audio(patches: Tensor) -> Tensor:
        return take_tokens(_standardized(patches.unsqueeze(-1)).squeeze(-1), audio_masked)

    _replace(stack, hicmae.pretraining, "take_tokens", lambda patches, index: patches)
    _replace(stack, hicmae.pretraining, "video_target", video)
    _replace(stack, hicmae.pretraining, "audio_target", audio)


def _standardized(x: Tensor) -> Tensor:
    return (x - x.mean(dim=-2, keepdim=True)) / (x.var(dim=-2, keepdim=True).sqrt() + 1e-6)


def _all_targets_cost(config: ModelConfig, batch: SyntheticBatch) -> Cost:
    # 17 passes over all patches instead of 15 over the masked ones
    return Cost(
        bytes=4 * len(batch) * sum((17 * n - 15 * (n - seen)) * values for n, seen, values in _streams(config, batch))
    )


# ---------------------------------------------------------------- the step


def _adamw_by_tensor(stack: ExitStack, steps: TrainingSteps, batch: SyntheticBatch) -> None:
    for group in steps._optimizer.param_groups:
        stack.callback(group.update, fused=group["fused"], foreach=group["foreach"])
        group.update(fused=False, foreach=False)


def _adamw_cost(config: ModelConfig, batch: SyntheticBatch, *, masked: bool) -> Cost:
    with torch.device("meta"):
        model = HiCMAE(config) if masked else Backbone(config)
    weights = sum(p.numel() for p in model.parameters())
    return Cost(bytes=13 * 4 * weights)  # about 20 passes over weights, gradients and moments instead of 7


def _recompute(what: Recompute, stack: ExitStack, steps: TrainingSteps, batch: SyntheticBatch) -> None:
    stack.callback(set_recompute, steps.model, "none")
    set_recompute(steps.model, what)


def _recompute_cost(config: ModelConfig, batch: SyntheticBatch, *, masked: bool) -> Cost:
    if not masked:
        macs = recognition_macs(config)
    else:
        (_, video, _), (_, audio, _) = _streams(config, batch)
        macs = pretraining_macs(config, video_visible=video, audio_visible=audio)
    return Cost(macs=len(batch) * macs, kept=-4 * len(batch) * _activations(config, batch, masked=masked))


def _pointwise_cost(config: ModelConfig, batch: SyntheticBatch, *, masked: bool) -> Cost:
    # Of each block two normed streams and what GELU gives; each is written once more.
    values = 0.0
    for tokens, seen, _ in _streams(config, batch):
        layer = 2 + config.mlp_ratio
        values += (config.depth + config.fusion_depth) * layer * (seen if masked else tokens) * config.width
        if masked:
            values += config.decoder_depth * layer * tokens * config.decoder_width
    size = 4 * len(batch) * values
    return Cost(bytes=2 * size, kept=-size)


def _activations(config: ModelConfig, batch: SyntheticBatch, *, masked: bool) -> float:
    """Values of a clip that blocks keep beside their input."""
    # two norms, the stream between, queries, keys, values, what attention gives; twice the MLP's hidden values
    block, across = 7 + 2 * config.mlp_ratio, 4  # and of cross-attention, but for the context's 3
    values = 0.0
    for tokens, seen, _ in _streams(config, batch):
        values += (config.depth + config.fusion_depth) * block * (seen if masked else tokens) * config.width
        values += config.fusion_depth * (across + 3) * (seen if masked else tokens) * config.width
        if masked:
            decoder = config.decoder_depth * block * tokens
            decoder += (config.decoder_depth - 1) * (across * tokens + 3 * seen)
            values += decoder * config.decoder_width
    return values


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.with_bias = bias is not None
        return _one_dnn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = gradients[0].flatten(0, -2)
        return (
            _one_dnn(gradients[0], weight.t(), None) if ctx.needs_input_grad[0] else None,
            _one_dnn(rows.t(), x.flatten(0, -2).t(), None),
            rows.sum(dim=0) if ctx.with_bias else None,
        )


def _one_dnn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _one_dnn_linears(stack: ExitStack, steps: TrainingSteps, batch: SyntheticBatch) -> None:
    _replace(stack, nn.functional, "linear", lambda x, weight, bias=None: _OneDnnLinear.apply(x, weight, bias))


# ---------------------------------------------------------------- all of them


def variants(stage: Literal["pretrain", "finetune"], *, on_gpu: bool) -> list[Variant]:
    """Variants of a stage's step, in the order in which they are shown."""
    masked = stage == "pretrain"
    common = [
        Variant(name="attention written out", apply=_attention, cost=partial(_attention_cost, masked=masked)),
        Variant(name="AdamW tensor by tensor", apply=_adamw_by_tensor, cost=partial(_adamw_cost, masked=masked)),
        Variant(
            name="activations computed again", apply=partial(_recompute, "blocks"),
            cost=partial(_recompute_cost, masked=masked), kind="option",
        ),
        Variant(
            name="norms and GELUs computed again", apply=partial(_recompute, "pointwise"),
            cost=partial(_pointwise_cost, masked=masked), kind="option",
        ),
    ]  # fmt: skip
    if not on_gpu:
        common.append(Variant(name="linear layers by oneDNN", apply=_one_dnn_linears, cost=_no_cost, kind="tried"))
    if not masked:
        return [Variant(name="tokens of all layers kept", apply=_keep_layers, cost=_keep_layers_cost), *common]
    return [
        Variant(name="all patches embedded, then chosen", apply=_embed_all, cost=_embed_all_cost),
        Variant(name="targets of all patches, then chosen", apply=_all_targets, cost=_all_targets_cost),
        Variant(name="last decoder layer for all tokens", apply=_whole_last_layer, cost=_whole_last_layer_cost),
        Variant(name="last tap normed twice", apply=_norm_again, cost=_norm_again_cost),
        Variant(
            name="mask tokens' q, k, v computed once", apply=_mask_tokens_once, cost=_mask_tokens_once_cost,
            kind="tried",
        ),
        *common,
    ]  # fmt: skip


def _no_cost(config: ModelConfig, batch: SyntheticBatch) -> Cost:
    return Cost()
