"""What goes into an exported file: models and their transform as graphs with named inputs and outputs.

A modality that is missing makes another graph, not an empty input: each is exported for the modalities it takes.

Shapes: B clips, T frames, S side of a frame, F spectrogram frames, M mel bins, N video and A audio tokens, D width,
L encoder layers, C classes, K dimensions.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hicmae.backbone import MODALITIES, Backbone, Modality
from hicmae.config import InputSpec
from hicmae.media.crops import crop_and_normalize
from hicmae.media.log_mel import LogMel
from hicmae.recognition import EmotionRecognizer


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A named input; its first axis is the clips, any number of them."""

    name: str
    shape: tuple[int, ...]
    """Without the axis of the clips."""
    dtype: torch.dtype


class Graph(nn.Module, ABC):
    """A function of named tensors to named tensors, in evaluation mode."""

    def __init__(self, inputs: Sequence[TensorSpec]) -> None:
        super().__init__()
        self.inputs = tuple(inputs)

    @abstractmethod
    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Outputs by name, clips on their first axis."""

    @torch.no_grad()
    def output_names(self) -> list[str]:
        """Names of the outputs, in order."""
        return list(self(**self.example(1)))

    def example(self, clips: int) -> dict[str, Tensor]:
        """Zeros of the right shapes."""
        return {spec.name: torch.zeros(clips, *spec.shape, dtype=spec.dtype) for spec in self.inputs}


class BackboneGraph(Graph):
    """The fields of ``hicmae.backbone.Features`` as outputs.

    ``pooled`` (B, 4 D or D), ``video_tokens`` and ``fused_video`` (B, N, D), ``audio_tokens`` and ``fused_audio``
    (B, A, D), ``video_layer_means`` and ``audio_layer_means`` (B, L, D): clips first, unlike in ``Features``.
    """

    def __init__(self, backbone: Backbone, spec: InputSpec, modalities: Sequence[Modality]) -> None:
        super().__init__(_model_inputs(spec, modalities))
        self.backbone = _only(backbone, modalities)
        self.eval()

    def forward(self, video: Tensor | None = None, log_mel: Tensor | None = None) -> dict[str, Tensor]:  # type: ignore[override]
        """Normalised (B, 3, T, S, S) and (B, 1, F, M), as far as the graph takes them."""
        features = self.backbone(video, log_mel)
        means = {f"{modality}_layer_means": x.transpose(0, 1) for modality, x in features.layer_means.items()}
        return _given(
            pooled=features.pooled,
            video_tokens=features.video_tokens,
            audio_tokens=features.audio_tokens,
            fused_video=features.fused_video,
            fused_audio=features.fused_audio,
            **means,
        )


class RecognizerGraph(Graph):
    """``probabilities`` and ``logits`` (B, C), ``values`` (B, K), ``features`` (B, 4 D or D)."""

    def __init__(self, recognizer: EmotionRecognizer, spec: InputSpec) -> None:
        super().__init__(_model_inputs(spec, recognizer.modalities))
        self.backbone = _only(recognizer.backbone, recognizer.modalities)
        self.head = recognizer.head
        self.eval()

    def forward(self, video: Tensor | None = None, log_mel: Tensor | None = None) -> dict[str, Tensor]:  # type: ignore[override]
        """Normalised (B, 3, T, S, S) and (B, 1, F, M), as far as the graph takes them."""
        features, logits, values = self.head(self.backbone(video, log_mel).pooled)
        return _given(
            probabilities=None if logits is None else logits.softmax(dim=-1),
            logits=logits,
            values=values,
            features=features,
        )


class TransformGraph(Graph):
    """From whole frames and sound as they are decoded to the inputs of a model: colours and log-mel spectrogram.

    Inputs: ``frames`` uint8 RGB (B, T, S, S, 3); ``waveform`` int16 (B, samples) and ``sound_samples`` int64 (B,),
    how many of them are sound (what follows is padding). Outputs: ``video`` and ``log_mel``, float32.
    """

    def __init__(self, spec: InputSpec, modalities: Sequence[Modality]) -> None:
        side = spec.image_size
        inputs: list[TensorSpec] = []
        if "video" in modalities:
            shape = (spec.num_frames, side, side, 3)
            inputs.append(TensorSpec(name="frames", shape=shape, dtype=torch.uint8))
        if "audio" in modalities:
            inputs.append(TensorSpec(name="waveform", shape=(spec.audio_samples,), dtype=torch.int16))
            inputs.append(TensorSpec(name="sound_samples", shape=(), dtype=torch.int64))
        super().__init__(inputs)
        self.spec = spec
        self.log_mel = LogMel(spec)
        self.eval()

    def forward(  # type: ignore[override]
        self, frames: Tensor | None = None, waveform: Tensor | None = None, sound_samples: Tensor | None = None
    ) -> dict[str, Tensor]:
        """See the class."""
        return _given(
            video=None if frames is None else crop_and_normalize(frames, None, self.spec),
            log_mel=None if waveform is None else self.log_mel(waveform, sound_samples),
        )


def _model_inputs(spec: InputSpec, modalities: Sequence[Modality]) -> list[TensorSpec]:
    side = spec.image_size
    shapes = {"video": (3, spec.num_frames, side, side), "audio": (1, spec.audio_frames, spec.mel_bins)}
    names = {"video": "video", "audio": "log_mel"}
    return [
        TensorSpec(name=names[modality], shape=shape, dtype=torch.float32)
        for modality, shape in shapes.items()
        if modality in modalities
    ]


def _only(backbone: Backbone, modalities: Sequence[Modality]) -> Backbone:
    """The backbone without what clips of these modalities never reach; a file would carry it along."""
    if len(modalities) == len(MODALITIES):
        return backbone
    part = copy.deepcopy(backbone)
    del part.fusion
    for modality in MODALITIES:
        if modality not in modalities:
            delattr(part, f"{modality}_encoder")
            delattr(part, f"{modality}_layer_weights")
    return part


def _given(**outputs: Tensor | None) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in outputs.items() if tensor is not None}
