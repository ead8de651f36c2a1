"""HiCMAE, the pre-training model: hierarchical contrastive masked autoencoding (paper, section 3, figure 1).

Shapes: B clips, T frames, N tokens, V visible and M masked tokens, P values per patch, D width, L layers. Where not all
masked tokens are decoded, M are those that are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from hicmae.backbone import MODALITIES, Backbone, Modality, known_modalities
from hicmae.config import InputSpec, ModelConfig
from hicmae.decoder import Decoder
from hicmae.encoder import EncoderOutput
from hicmae.hub import HubModel
from hicmae.initial_values import PaperDraws
from hicmae.layers import initialize
from hicmae.losses import Negatives, audio_target, contrastive, masked_mse, video_target
from hicmae.masking import complement, take_tokens
from hicmae.patches import audio_to_patches, video_to_patches

Contrast = Literal["taps", "top", "none"]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Settings of the pre-training loss; the defaults are the paper's (section 4.2)."""

    contrastive_weight: float = 0.0025
    """Weight of the contrastive loss, which is summed over taps."""
    temperature: float = 0.07
    """Temperature of the contrastive loss."""
    negatives: Negatives = "local"
    """``local``: negatives from this rank's batch; ``global``: from the batches of all ranks."""
    frame_difference: bool = True
    """Predict the change between the frames of a tubelet rather than the frames."""
    contrast: Contrast = "taps"
    """Encoder layers on which the modalities of a clip are to agree: ``taps``, the tapped ones; ``top``, the last one
    alone, tapped or not; ``none``: no contrastive loss, and nothing is gathered for it."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be positive; the paper uses 0.07")
        if self.contrastive_weight < 0:
            raise ValueError(f"contrastive_weight={self.contrastive_weight} must be 0 or more; the paper uses 0.0025")
        if self.negatives not in ("local", "global"):
            raise ValueError(f"negatives={self.negatives!r} must be 'local' or 'global'")
        if self.contrast not in get_args(Contrast):
            raise ValueError(f"contrast={self.contrast!r} must be one of {', '.join(get_args(Contrast))}")

    def total(self, video_loss: Tensor, audio_loss: Tensor, contrastive_loss: Tensor) -> Tensor:
        """What training lowers (paper, section 3.3)."""
        return video_loss + audio_loss + self.contrastive_weight * contrastive_loss


@dataclass(kw_only=True)
class PretrainInput:
    """What ``HiCMAE.forward`` takes of B clips, which says what each is."""

    video: Tensor
    log_mel: Tensor
    video_visible: Tensor
    audio_visible: Tensor
    has_video: Tensor | None = None
    has_audio: Tensor | None = None
    video_decoded: Tensor | None = None
    audio_decoded: Tensor | None = None
    clip_of: Tensor | None = None

    @property
    def has_both(self) -> Tensor | None:
        """bool (B,): clips with both modalities; ``None``: all."""
        if self.has_video is None or self.has_audio is None:
            return self.has_video if self.has_audio is None else self.has_audio
        return self.has_video & self.has_audio

    def __len__(self) -> int:
        return len(self.video)

    def parts(self, clips: int) -> list[Self]:
        """So many clips each, in order; the last part may be smaller."""
        given = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        rows = [slice(first, first + clips) for first in range(0, len(self), clips)]
        return [replace(self, **{name: value[part] for name, value in given.items()}) for part in rows]


@dataclass
class PretrainLosses:
    """Losses of one batch."""

    loss: Tensor
    """float32 scalar: video + audio + contrastive weight * contrastive."""
    video_loss: Tensor
    """float32 scalar; 0 for a model without video."""
    audio_loss: Tensor
    """float32 scalar; 0 for a model without audio."""
    contrastive_loss: Tensor
    """float32 scalar: sum over the contrasted layers, unweighted; 0 without contrast."""


@dataclass
class PretrainOutput(PretrainLosses):
    """Losses and predictions of one batch."""

    video_prediction: Tensor | None
    """(B, M, P): masked video tokens in ascending order; ``None`` for a model without video."""
    audio_prediction: Tensor | None
    """(B, M, P): masked audio tokens in ascending order; ``None`` for a model without audio."""
    contrastive_logits: list[Tensor] = field(default_factory=list)
    """For each contrasted layer float32 (B, B), video against audio; (B, R * B) with global negatives on R ranks."""


@dataclass
class Masks:
    """Which tokens the encoders see and which masked ones the decoders predict: int64 (B, V) and (B, M), ascending."""

    video_visible: Tensor
    video_masked: Tensor
    audio_visible: Tensor
    audio_masked: Tensor

    @classmethod
    def around(
        cls,
        video_visible: Tensor,
        audio_visible: Tensor,
        config: ModelConfig,
        *,
        video_decoded: Tensor | None = None,
        audio_decoded: Tensor | None = None,
    ) -> Self:
        """Everything but the visible tokens is masked; of that all is decoded, unless it is said what."""
        return cls(
            video_visible=video_visible,
            video_masked=complement(video_visible, config.video_tokens) if video_decoded is None else video_decoded,
            audio_visible=audio_visible,
            audio_masked=complement(audio_visible, config.audio_tokens) if audio_decoded is None else audio_decoded,
        )


@dataclass
class Prediction:
    """What the decoders predict, and what is contrasted of the encoders on the way."""

    video: Tensor | None
    """(B, M, P): masked video tokens in ascending order; ``None`` for a model without video."""
    audio: Tensor | None
    """(B, M', P'): masked audio tokens in ascending order; ``None`` for a model without audio."""
    features: Tensor
    """(2, L, B, D): mean over tokens of each contrasted layer, of video and of audio; L is 0 without contrast."""


@dataclass
class Reconstructed:
    """The decoders' side of the objective."""

    prediction: Prediction
    video_loss: Tensor
    """float32 scalar."""
    audio_loss: Tensor
    """float32 scalar."""


class HiCMAE(nn.Module, HubModel):
    """The pre-training model.

    Args:
        config: the architecture.
        objective: settings of the loss.
        spec: the input's normalisation, needed to turn normalised colours back into pixels for the targets.
        modalities: what is learnt from. Of a lone one the tokens go from the encoder to the decoder, past the fusion,
            and nothing is contrasted; the other's parts are there, with their initial values, and are not trained.

    Raises:
        ValueError: a contrast of tapped layers where none is tapped.
    """

    kind = "pretraining"

    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        config: ModelConfig,
        *,
        objective: Objective | None = None,
        spec: InputSpec | None = None,
        modalities: Sequence[Modality] = MODALITIES,
    ) -> None:
        super().__init__()
        draws = PaperDraws()
        self.spec = spec = spec or InputSpec.for_model(config)
        self.config = config
        self.objective = objective or Objective()
        self.modalities = known_modalities(modalities)
        if self.contrasts == "taps" and not config.taps:
            raise ValueError(
                "objective.contrast=taps contrasts the tapped encoder layers, but taps is empty: name layers in taps, "
                "or set objective.contrast to top or none"
            )
        self.backbone = Backbone(config, modalities=self.modalities)
        # The mix of layers is learned in fine-tuning; a parameter without gradient would stall data-parallel training.
        self.backbone.video_layer_weights.requires_grad_(False)
        self.backbone.audio_layer_weights.requires_grad_(False)
        self.video_decoder = self._decoder(config.video_tokens, config.video_patch_values)
        self.audio_decoder = self._decoder(config.audio_tokens, config.audio_patch_values)
        # Per value of a patch, whose last axis is the colour channel.
        for name, values in (("image_mean", spec.image_mean), ("image_std", spec.image_std)):
            colours = torch.tensor(values).repeat(config.video_patch_values // 3)
            self.register_buffer(name, colours, persistent=False)
        initialize(self)
        for decoder in (self.video_decoder, self.audio_decoder):
            nn.init.trunc_normal_(decoder.mask_token, std=0.02)
        if config != (paper := _with_all_parts(config)):
            draws.share(self, lambda: HiCMAE(paper, objective=Objective(contrast="none")))
        if len(self.modalities) == 1:  # what no gradient reaches would stall data-parallel training
            for name, parameter in self.named_parameters():
                if not name.removeprefix("backbone.").startswith(f"{self.modalities[0]}_"):
                    parameter.requires_grad_(False)

    def _decoder(self, tokens: int, patch_values: int) -> Decoder:
        config = self.config
        return Decoder(
            tokens=tokens,
            patch_values=patch_values,
            encoder_width=config.width,
            width=config.decoder_width,
            heads=config.decoder_heads,
            depth=config.decoder_depth,
            mlp_ratio=config.mlp_ratio,
            skip_connections=config.skip_connections,
        )

    @property
    def contrasts(self) -> Contrast:
        """``objective.contrast``, but ``none`` where there is one modality alone."""
        return self.objective.contrast if len(self.modalities) == 2 else "none"

    def encode(
        self, video_patches: Tensor, audio_patches: Tensor, masks: Masks
    ) -> tuple[EncoderOutput | None, EncoderOutput | None]:
        """Encode what is visible of each modality that the model has; arguments as ``predict``."""
        taps = self.config.taps if self.config.skip_connections or self.contrasts == "taps" else ()
        video = audio = None
        if "video" in self.modalities:
            video = self.backbone.video_encoder(video_patches, masks.video_visible, taps=taps)  # tokens (B, V, D)
        if "audio" in self.modalities:
            audio = self.backbone.audio_encoder(audio_patches, masks.audio_visible, taps=taps)
        return video, audio

    def predict(self, video_patches: Tensor, audio_patches: Tensor, masks: Masks) -> Prediction:
        """Encode what is visible, fuse the modalities, decode what is masked; no loss and nothing between ranks.

        Args:
            video_patches: float (B, N, P), all patches of normalised video.
            audio_patches: float (B, N', P'), all patches of the normalised spectrogram.
            masks: which tokens are visible and which masked.
        """
        video, audio = self.encode(video_patches, audio_patches, masks)
        for_video, for_audio = (None if output is None else output.tokens for output in (video, audio))
        if video is not None and audio is not None:
            for_video, for_audio = self.backbone.fusion(video.tokens, audio.tokens)
        skips = self.config.skip_connections
        video_predicted = audio_predicted = None
        if video is not None:
            taps = video.taps if skips else []
            video_predicted = self.video_decoder(for_video, taps, masks.video_visible, masks.video_masked)
        if audio is not None:
            taps = audio.taps if skips else []
            audio_predicted = self.audio_decoder(for_audio, taps, masks.audio_visible, masks.audio_masked)
        return Prediction(video=video_predicted, audio=audio_predicted, features=self._contrasted(video, audio))

    def forward(
        self,
        video: Tensor,
        log_mel: Tensor,
        video_visible: Tensor,
        audio_visible: Tensor,
        *,
        has_video: Tensor | None = None,
        has_audio: Tensor | None = None,
        video_decoded: Tensor | None = None,
        audio_decoded: Tensor | None = None,
        clip_of: Tensor | None = None,
    ) -> PretrainOutput:
        """Reconstruct what is masked and contrast what is seen.

        Args:
            video: float (B, 3, T, H, W), colour-normalised.
            log_mel: float (B, 1, frames, bins), normalised.
            video_visible: int64 (B, V), ascending.
            audio_visible: int64 (B, V'), ascending.
            has_video, has_audio: bool (B,), clips that have this modality; ``None``: all do. A missing modality
                is not reconstructed, and its clip takes no part in the contrast.
            video_decoded, audio_decoded: int64 (B, M), ascending: masked tokens that are decoded and count in the loss
                (dual masking, VideoMAE V2); ``None``: all masked ones.
            clip_of: int64 (B,), rows that are views of one clip share a number and are no negatives of one another;
                ``None``: each row is another clip.

        Raises:
            ValueError: for a shape that the configuration does not have.
        """
        clips = PretrainInput(
            video=video,
            log_mel=log_mel,
            video_visible=video_visible,
            audio_visible=audio_visible,
            has_video=has_video,
            has_audio=has_audio,
            video_decoded=video_decoded,
            audio_decoded=audio_decoded,
            clip_of=clip_of,
        )
        found = self.reconstruct(clips)
        contrastive_loss, logits = self.contrast(found.prediction.features, clips)
        return PretrainOutput(
            loss=self.objective.total(found.video_loss, found.audio_loss, contrastive_loss),
            video_loss=found.video_loss,
            audio_loss=found.audio_loss,
            contrastive_loss=contrastive_loss,
            video_prediction=found.prediction.video,
            audio_prediction=found.prediction.audio,
            contrastive_logits=logits,
        )

    def reconstruct(self, clips: PretrainInput) -> Reconstructed:
        """Predict the masked patches and compare them with the standardised true ones."""
        config = self.config
        video_patches, audio_patches, masks = self._tokens(clips)
        predicted = self.predict(video_patches, audio_patches, masks)
        video_loss = audio_loss = torch.zeros_like(self.image_mean[0])
        if predicted.video is not None:
            colours = take_tokens(video_patches, masks.video_masked).float()
            pixels = torch.addcmul(self.image_mean, colours, self.image_std)
            target = video_target(pixels, config, frame_difference=self.objective.frame_difference)
            video_loss = masked_mse(predicted.video, target, clips.has_video)
        if predicted.audio is not None:
            target = audio_target(take_tokens(audio_patches, masks.audio_masked))
            audio_loss = masked_mse(predicted.audio, target, clips.has_audio)
        return Reconstructed(prediction=predicted, video_loss=video_loss, audio_loss=audio_loss)

    def features(self, clips: PretrainInput) -> Tensor:
        """(2, L, B, D): what is contrasted, as ``Prediction.features``, from the encoders alone."""
        return self._contrasted(*self.encode(*self._tokens(clips)))

    def contrast(self, features: Tensor, clips: PretrainInput) -> tuple[Tensor, list[Tensor]]:
        """The modalities of a clip agree on the contrasted layers: loss and logits (``losses.contrastive``); 0 and none
        without contrast.

        Args:
            features: float (2, L, B, D), of video and of audio.
            clips: the same B clips.
        """
        if self.contrasts == "none":
            return torch.zeros_like(self.image_mean[0]), []
        video, audio = features
        return contrastive(
            list(video),
            list(audio),
            temperature=self.objective.temperature,
            negatives=self.objective.negatives,
            present=clips.has_both,
            clip_of=clips.clip_of,
        )

    def _contrasted(self, video: EncoderOutput | None, audio: EncoderOutput | None) -> Tensor:
        """(2, L, B, D), as ``Prediction.features``."""
        contrasts = self.contrasts
        if video is None or audio is None or contrasts == "none":
            tokens = (video or audio).tokens  # type: ignore[union-attr]
            return tokens.new_zeros(2, 0, tokens.shape[0], tokens.shape[2])
        if contrasts == "top":
            return _pooled([video.tokens], [audio.tokens])
        return _pooled(video.taps, audio.taps)

    def _tokens(self, clips: PretrainInput) -> tuple[Tensor, Tensor, Masks]:
        """All patches of both modalities, (B, N, P) and (B, N', P'), and which are visible."""
        masks = Masks.around(
            clips.video_visible,
            clips.audio_visible,
            self.config,
            video_decoded=clips.video_decoded,
            audio_decoded=clips.audio_decoded,
        )
        return video_to_patches(clips.video, self.config), audio_to_patches(clips.log_mel, self.config), masks


def _with_all_parts(config: ModelConfig) -> ModelConfig:
    """The same with the paper's skip connections and fusion; taps do not matter to what is drawn, blocks do."""
    if not config.skip_connections:
        blocks = min(config.decoder_depth, config.depth + 1)
        config = replace(config, skip_connections=True, decoder_depth=blocks, taps=tuple(range(blocks - 1)))
    return replace(config, fusion_direction="both")


def _pooled(video_taps: Sequence[Tensor], audio_taps: Sequence[Tensor]) -> Tensor:
    means = [tap.mean(dim=1) for tap in (*video_taps, *audio_taps)]
    return torch.stack(means).unflatten(0, (2, -1))
