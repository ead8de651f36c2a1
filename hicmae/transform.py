"""From a media file to model inputs: what a downstream user runs before a ``Backbone``."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from hicmae.backbone import MODALITIES, Modality, known_modalities
from hicmae.config import InputSpec
from hicmae.media.crops import crop_and_normalize
from hicmae.media.decode import DecodeError, Decoder, decode_clip, load_media
from hicmae.media.large_file import MediaData
from hicmae.media.log_mel import LogMel

Source = str | PathLike[str] | bytes


class ModelInputs(TypedDict):
    """A batch of one clip; None where the file lacks the modality, or the model does not take it."""

    video: Tensor | None
    """float32 (1, 3, T, S, S), colour-normalised."""
    log_mel: Tensor | None
    """float32 (1, 1, F, M), normalised."""


class ClipTransform:
    """Decode one window of a file and prepare it as in evaluation: whole frames, no augmentation.

    >>> transform = ClipTransform(InputSpec())
    >>> features = backbone(**transform("clip.mp4"))  # doctest: +SKIP

    Args:
        spec: the model's input.
        decoder: what decodes the frames.
        modalities: what the model takes; the other is left out.
    """

    def __init__(
        self, spec: InputSpec, decoder: Decoder = "auto", *, modalities: Sequence[Modality] = MODALITIES
    ) -> None:
        self.spec = spec
        self.decoder: Decoder = decoder
        self.modalities = known_modalities(modalities)
        self._log_mel = LogMel(spec)

    @torch.no_grad()
    def __call__(
        self,
        source: Source,
        position: float = 0.5,
        *,
        audio: Source | None = None,
        span_s: tuple[float, float] | None = None,
    ) -> ModelInputs:
        """Model inputs of one window.

        Args:
            source: path or bytes of a media file, with picture, sound, or both.
            position: which window of the clip, from 0 (earliest) to 1 (latest).
            audio: path or bytes of a sound file on the same clock, instead of the sound of ``source``.
            span_s: use only these seconds (start, end) of the file.

        Raises:
            DecodeError: the file is missing, cannot be decoded, or has nothing that the model takes.
        """
        data, name = _read(source)
        clip = decode_clip(
            data,
            None if audio is None else _read(audio)[0],
            spec=self.spec,
            position=position,
            span_s=span_s,
            decoder=self.decoder,
            name=name,
        )
        video = log_mel = None
        if clip.has_video and "video" in self.modalities:
            video = crop_and_normalize(torch.from_numpy(clip.video).unsqueeze(0), None, self.spec)
        if clip.has_audio and "audio" in self.modalities:
            waveform = torch.from_numpy(clip.waveform).unsqueeze(0)
            log_mel = self._log_mel(waveform, torch.tensor([clip.sound_samples]))
        if video is None and log_mel is None:
            raise _nothing_for_model(name, clip.has_video)
        return ModelInputs(video=video, log_mel=log_mel)


def _nothing_for_model(name: str, has_video: bool) -> DecodeError:
    given, wanted = ("a picture", "sound") if has_video else ("sound", "a picture")
    return DecodeError(
        name,
        "no_audio_stream" if has_video else "no_video_stream",
        f"the file has {given} but not {wanted}, and the model was trained with {wanted} alone",
        f"give a file with {wanted}, or use a model that takes {given}",
    )


def _read(source: Source) -> tuple[MediaData, str]:
    if isinstance(source, bytes):
        return source, f"{len(source)} bytes"
    return load_media(Path(source)), str(source)
