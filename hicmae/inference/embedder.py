"""Features along a file: what a backbone makes of each of its windows.

Shapes: S windows, D width, L encoder layers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hicmae.backbone import MODALITIES, Backbone, Features, Modality
from hicmae.checkpoint import load_backbone, read_export
from hicmae.config import InputSpec, ModelConfig
from hicmae.inference.batches import batches_of, model_inputs
from hicmae.inference.items import MediaItem, media_item
from hicmae.inference.job import OnWindows
from hicmae.inference.windows import ClipWindow, WindowSettings, read_windows
from hicmae.media.batch_transform import BatchTransform
from hicmae.media.clip import DecodeError

Array = NDArray[np.float32]
FEATURES = ("pooled", "video", "audio", "fused")
"""What can be asked for by name; ``fused`` is two columns, fused_video and fused_audio."""
_FUSED = ("fused_video", "fused_audio")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """What is computed of each file."""

    features: tuple[str, ...] = ("pooled",)
    """Some of ``FEATURES``."""
    layers: tuple[int, ...] = ()
    """Encoder layers whose means over tokens are kept too, from 0."""
    windows: WindowSettings = field(default_factory=WindowSettings)
    batch_size: int = 8
    """Windows of a file that go through the model together; the last digits depend on it."""
    bf16: bool = False
    """Compute in bfloat16 where PyTorch's autocast does; features are float32 all the same."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.features) - set(FEATURES)):
            raise ValueError(f"features={unknown} are not known; choose some of {', '.join(FEATURES)}")
        if not self.features and not self.layers:
            raise ValueError(f"no features; choose some of {', '.join(FEATURES)}, or layers")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1 window")

    def widths(self, config: ModelConfig, modalities: Sequence[Modality]) -> dict[str, int]:
        """The columns and how many numbers a window has in each, in the order of the table.

        Raises:
            ValueError: what a model of these modalities, or of this depth, does not have.
        """
        width, both = config.width, len(modalities) == 2
        found: dict[str, int] = {}
        for name in FEATURES:
            if name not in self.features:
                continue
            if name in MODALITIES and name not in modalities:
                raise ValueError(f"features={name}: the model was trained with {modalities[0]} alone")
            if name == "fused" and not both:
                raise ValueError(f"features=fused: the model was trained with {modalities[0]} alone, and fuses nothing")
            if name == "fused":
                found |= dict.fromkeys(_FUSED, width)
            else:
                found[name] = width * (4 if name == "pooled" and both else 1)
        for modality in modalities:
            for layer in self.layers:
                if not 0 <= layer < config.depth:
                    raise ValueError(f"layers={layer}: the encoders have layers 0 to {config.depth - 1}")
                found[f"{modality}_layer_{layer}"] = width
        return found


@dataclass(frozen=True, kw_only=True)
class FileEmbedding:
    """The features of a file, or of some consecutive windows of it."""

    name: str
    first: int
    """Number of the first window."""
    total: int
    """Windows of the whole file."""
    start_s: NDArray[np.float64]
    """float64 (S,): where each window starts, on the file's clock, in seconds."""
    end_s: NDArray[np.float64]
    modalities: tuple[str, ...]
    """S times ``video+audio``, ``video``, ``audio``, or empty: what of what the model takes a window has."""
    padded: NDArray[np.bool_]
    """bool (S,): whether the file is shorter than a window."""
    features: dict[str, Array]
    """float32 (S, width) by column; NaN where the window lacks the modality. ``pooled`` of a model of both modalities
    is [video, audio, fused video, fused audio], and what is missing in it is NaN."""


class Embedder:
    """A backbone on anyone's files.

    >>> embedder = Embedder.load("exported")  # doctest: +SKIP
    >>> embedder.embed("talk.mp4").features["pooled"].shape  # doctest: +SKIP
    (12, 2048)
    """

    def __init__(
        self,
        backbone: Backbone,
        spec: InputSpec,
        settings: EmbedSettings | None = None,
        *,
        modalities: Sequence[Modality] = MODALITIES,
        device: str = "cpu",
    ) -> None:
        """Args:
        backbone: it is moved to ``device``.
        spec: the input it was trained on.
        settings: what is computed.
        modalities: what it was trained with; anything else in a file is left alone.
        device: of PyTorch.

        Raises:
            ValueError: features that the model does not have.
        """
        self.settings = settings or EmbedSettings()
        self.spec = spec
        self.modalities: tuple[Modality, ...] = tuple(m for m in MODALITIES if m in modalities)
        self.widths = self.settings.widths(backbone.config, self.modalities)
        self.device = torch.device(device)
        self.backbone = backbone.to(self.device).eval()
        self._transform = BatchTransform(spec).to(self.device)

    @classmethod
    def load(cls, directory: str | Path, settings: EmbedSettings | None = None, *, device: str = "cpu") -> Self:
        """The backbone of an exported folder; other arguments as for the class.

        Raises:
            FileNotFoundError, ValueError: as ``load_backbone``, and as the class.
        """
        modalities = read_export(directory).modalities
        backbone, transform = load_backbone(directory)
        return cls(backbone, transform.spec, settings, modalities=modalities, device=device)

    def embed(self, source: str | Path | MediaItem, on_windows: OnWindows | None = None) -> FileEmbedding:
        """The features of a file.

        Args:
            source: a media file, or an item of ``find_items``.
            on_windows: called with (windows done, windows in all).

        Raises:
            DecodeError: the file cannot be decoded, or has nothing that the model takes.
            ClipUnreadableError: a shard cannot be read.
        """
        parts = []
        for part in self.parts(source):
            parts.append(part)
            if on_windows is not None:
                on_windows(part.first + len(part.start_s), part.total)
        return FileEmbedding(
            name=parts[0].name,
            first=0,
            total=parts[0].total,
            start_s=np.concatenate([part.start_s for part in parts]),
            end_s=np.concatenate([part.end_s for part in parts]),
            modalities=tuple(word for part in parts for word in part.modalities),
            padded=np.concatenate([part.padded for part in parts]),
            features={name: np.concatenate([part.features[name] for part in parts]) for name in self.widths},
        )

    def parts(self, source: str | Path | MediaItem, first: int = 0) -> Iterator[FileEmbedding]:
        """The features of a file as they come, batch by batch.

        Args:
            source: as for ``embed``.
            first: the window to begin with; where a batch has begun, all that follows is as it would have been.

        Raises:
            DecodeError, ClipUnreadableError: as ``embed``.
        """
        item = media_item(source)
        with read_windows(item, self.spec, self.settings.windows, modalities=self.modalities) as windows:
            if not set(windows.modalities) & set(self.modalities):
                raise _nothing_to_take(item.name, windows.modalities, self.modalities)
            # Closed before the file is, also after an error: its thread still decodes.
            with closing(_one_ahead(batches_of(windows.starting(first), self.settings.batch_size))) as batches:
                for batch in batches:
                    yield FileEmbedding(
                        name=item.name,
                        first=first,
                        total=windows.total,
                        start_s=np.array([window.start_s for window in batch]),
                        end_s=np.array([window.end_s for window in batch]),
                        modalities=tuple("+".join(window.modalities) for window in batch),
                        padded=np.array([window.padded for window in batch]),
                        features=self._features(batch),
                    )
                    first += len(batch)

    @torch.inference_mode()
    def _features(self, batch: Sequence[ClipWindow]) -> dict[str, Array]:
        """float32 (B, width) by column."""
        out = {column: np.full((len(batch), width), np.nan, np.float32) for column, width in self.widths.items()}
        inputs = model_inputs(batch, self._transform)
        if inputs["video"] is None and inputs["log_mel"] is None:
            return out  # a window of silence, for a model of sound
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
            features = self.backbone(**inputs)
        values = _streams(self.backbone, features)
        if not bool(features.pooled.isfinite().all()):
            raise ValueError("the model gives features that are not finite; check its weights, or compute in float32")
        for column in out:
            if column == "pooled" and len(self.modalities) == 2:
                width = self.backbone.config.width
                for place, part in enumerate((*MODALITIES, *_FUSED)):
                    if part in values:
                        out[column][:, place * width : (place + 1) * width] = _array(values[part])
            elif column == "pooled":
                out[column][:] = _array(features.pooled)
            elif column in values:
                out[column][:] = _array(values[column])
        return out


def _streams(backbone: Backbone, features: Features) -> dict[str, Tensor]:
    """What there is, (B, D) each, by name of the column."""
    found: dict[str, Tensor] = {}
    for modality, means in features.layer_means.items():
        found[modality] = backbone.summarize(modality, means)
        found |= {f"{modality}_layer_{layer}": mean for layer, mean in enumerate(means)}
    for name in _FUSED:
        if (tokens := getattr(features, name)) is not None:
            found[name] = tokens.mean(dim=1)
    return found


def _array(values: Tensor) -> Array:
    array: Array = values.float().cpu().numpy()
    return array


def _one_ahead(batches: Iterator[T]) -> Generator[T, None, None]:
    """The same, the next one of which is made in a thread while this one is worked on."""
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def _nothing_to_take(name: str, there: Sequence[Modality], wanted: Sequence[Modality]) -> DecodeError:
    words: dict[Modality, str] = {"video": "a picture", "audio": "sound"}
    return DecodeError(
        name,
        "no_video_stream" if wanted == ("video",) else "no_audio_stream",
        f"the file has {words[there[0]]} but not {words[wanted[0]]}, and the model was trained with {words[wanted[0]]} "
        "alone",
        f"give a file with {words[wanted[0]]}, or use a model that takes {words[there[0]]}",
    )
