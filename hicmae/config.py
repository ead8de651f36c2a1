"""What a HiCMAE is made of (``ModelConfig``) and what it is fed (``InputSpec``).

Both are plain frozen dataclasses without torch, so that the command line and the data workers can read
them cheaply. Sizes of the published models: Sun et al., 2024, section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, get_args

FeatureFusion = Literal["layers", "last"]
FusionDirection = Literal["both", "to_video", "to_audio"]


def _from_mapping(cls: type, values: Mapping[str, Any]) -> Any:
    """Build a dataclass from a mapping (JSON or YAML), refusing unknown names."""
    known = {field.name for field in fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown {cls.__name__} fields {unknown}; known fields: {sorted(known)}")
    return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of a HiCMAE; video and audio share one width (paper, section 3).

    The defaults are the base model. ``taps`` are the 0-based encoder layers whose outputs feed the decoder's
    skip connections and the contrastive loss (section 3.3). ``skip_connections``, ``feature_fusion`` and
    ``fusion_direction`` switch off parts of the paper, as its ablations do (docs/ablation.md).
    """

    image_size: int = 160
    """Side of the square video frames, in pixels."""
    num_frames: int = 16
    """Frames per clip."""
    patch_size: int = 16
    """Side of a video patch, in pixels."""
    tubelet_size: int = 2
    """Frames per video token."""
    audio_frames: int = 256
    """Log-mel frames per clip, 10 ms each."""
    mel_bins: int = 128
    """Mel filters."""
    audio_patch_size: int = 16
    """Side of a spectrogram patch, in frames and in bins."""
    width: int = 512
    """Token width of both encoders and of the fusion layers."""
    heads: int = 8
    """Attention heads of encoders and fusion layers."""
    depth: int = 10
    """Layers of each encoder."""
    fusion_depth: int = 2
    """Cross-modal fusion layers; 0 leaves the streams unfused."""
    mlp_ratio: float = 4.0
    """Hidden width of an MLP as a multiple of its width."""
    decoder_width: int = 384
    """Token width of both decoders."""
    decoder_heads: int = 6
    """Attention heads of the decoders."""
    decoder_depth: int = 4
    """Decoder layers: one plain block, then one cross block per tap; without skip connections so many plain ones."""
    taps: tuple[int, ...] = (3, 6, 9)
    """Encoder layers tapped for skip connections and contrast, 0-based, ascending."""
    skip_connections: bool = True
    """Decoder layers attend to the tapped encoder layers; false: they are plain blocks, which see the last layer
    alone."""
    feature_fusion: FeatureFusion = "layers"
    """What stands for an encoder among the pooled features: ``layers``, the learned mix of all its layers, or ``last``,
    the last one's mean. No weight depends on it, and fine-tuning may choose anew."""
    fusion_direction: FusionDirection = "both"
    """Who attends to whom in the fusion layers: ``both``, ``to_video`` (video to audio; audio stays as its encoder
    leaves it), or ``to_audio``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps", tuple(self.taps))
        for name in ("image_size", "num_frames", "patch_size", "tubelet_size", "audio_frames", "mel_bins",
                     "audio_patch_size", "width", "heads", "depth", "decoder_width", "decoder_heads",
                     "decoder_depth"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.fusion_depth < 0:
            raise ValueError(f"fusion_depth={self.fusion_depth} must be 0 or more")
        if not self.mlp_ratio > 0:
            raise ValueError(f"mlp_ratio={self.mlp_ratio} must be positive")
        for name, unit in (("image_size", "patch_size"), ("num_frames", "tubelet_size"),
                           ("audio_frames", "audio_patch_size"), ("mel_bins", "audio_patch_size"),
                           ("width", "heads"), ("decoder_width", "decoder_heads")):  # fmt: skip
            size, step = getattr(self, name), getattr(self, unit)
            if size % step:
                near = max(step, round(size / step) * step)
                raise ValueError(f"{name}={size} is not divisible by {unit}={step}; the nearest valid {name} is {near}")
        if list(self.taps) != sorted(set(self.taps)) or any(not 0 <= tap < self.depth for tap in self.taps):
            raise ValueError(
                f"taps={self.taps} must be ascending layer numbers within 0..{self.depth - 1} (depth={self.depth})"
            )
        if self.skip_connections and self.decoder_depth != len(self.taps) + 1:
            raise ValueError(
                f"decoder_depth={self.decoder_depth} does not fit taps={self.taps}: the decoder has one plain block "
                f"and one cross block per tap, so set decoder_depth={len(self.taps) + 1}, or skip_connections=false"
            )
        if not isinstance(self.skip_connections, bool):
            raise ValueError(f"skip_connections={self.skip_connections!r} must be true or false")
        for name, choices in (("feature_fusion", FeatureFusion), ("fusion_direction", FusionDirection)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(get_args(choices))}")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """A named size (``micro``, ``mini``, ``tiny``, ``small``, ``base``, ``large``) with any field overridden.

        ``tiny``, ``small`` and ``base`` are the paper's; the decoder of ``tiny`` is not published and is ours.
        ``micro`` and ``mini`` are ours: the one trains on a laptop's processor, the other runs there in real time with
        time to spare (docs/distillation.md). ``large`` is ours too, beyond the paper: 299 M parameters in pre-training,
        for several GPUs (docs/cluster.md).
        """
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
        return _from_mapping(cls, {**PRESETS[name], **overrides})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; unknown fields raise ``ValueError``."""
        return _from_mapping(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"taps": list(self.taps)}

    def differences(self, other: ModelConfig) -> dict[str, tuple[Any, Any]]:
        """Fields in which two configurations differ: ``{name: (own, other's)}``."""
        mine, theirs = self.to_dict(), other.to_dict()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}

    @property
    def switches(self) -> dict[str, Any]:
        """The fields that can switch off parts of the paper, ``{field: value}``."""
        return {name: getattr(self, name) for name in _SWITCHES}

    @property
    def switched(self) -> dict[str, Any]:
        """The parts of the paper that are switched off, ``{field: value}``; empty for the paper's model."""
        return {name: value for name, value in self.switches.items() if value != _SWITCHES[name]}

    @property
    def video_grid(self) -> tuple[int, int, int]:
        """Video tokens as (time, rows, columns)."""
        side = self.image_size // self.patch_size
        return self.num_frames // self.tubelet_size, side, side

    @property
    def audio_grid(self) -> tuple[int, int]:
        """Audio tokens as (time, frequency)."""
        return self.audio_frames // self.audio_patch_size, self.mel_bins // self.audio_patch_size

    @property
    def video_tokens(self) -> int:
        """Video tokens per clip."""
        time, rows, columns = self.video_grid
        return time * rows * columns

    @property
    def audio_tokens(self) -> int:
        """Audio tokens per clip."""
        time, frequency = self.audio_grid
        return time * frequency

    @property
    def video_patch_values(self) -> int:
        """Values a video token stands for: tubelet * patch * patch * RGB."""
        return self.tubelet_size * self.patch_size**2 * 3

    @property
    def audio_patch_values(self) -> int:
        """Values an audio token stands for."""
        return self.audio_patch_size**2


_SWITCHES: dict[str, Any] = {"skip_connections": True, "feature_fusion": "layers", "fusion_direction": "both"}
"""Fields that switch off parts of the paper, with the values that do not."""

PRESETS: dict[str, dict[str, Any]] = {
    "micro": dict(image_size=64, width=96, heads=3, depth=4, decoder_width=64, decoder_heads=2, taps=(1, 2, 3)),
    "mini": dict(image_size=96, width=192, heads=6, depth=4, decoder_width=96, decoder_heads=3, taps=(1, 2, 3)),
    "tiny": dict(width=256, heads=4, decoder_width=128, decoder_heads=2),
    "small": dict(width=384, heads=6, decoder_width=192, decoder_heads=3),
    "base": dict(),
    "large": dict(width=768, heads=12, depth=16, decoder_width=512, decoder_heads=8, taps=(5, 10, 15)),
}


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What one clip is: 16 frames 0.16 s apart, and the sound of the same time plus one native frame.

    The paper samples every fourth frame at 25 fps; the step is kept in seconds here so that footage of any
    frame rate gives the same window of time (REFERENCE: 2.56 s of video, 2.60 s of sound).
    """

    image_size: int = 160
    """Side of the square frames handed to the model, in pixels."""
    num_frames: int = 16
    """Frames per clip."""
    frame_interval_s: float = 0.16
    """Time between two frames of a clip, in seconds (4 frames at 25 fps)."""
    audio_seconds: float = 2.6
    """Sound per clip, in seconds, from the instant of the first frame."""
    sample_rate_hz: int = 16_000
    """Sample rate of the mono sound, in hertz."""
    audio_frames: int = 256
    """Log-mel frames per clip (10 ms shift), cut or zero-padded to this."""
    mel_bins: int = 128
    """Mel filters."""
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of red, green and blue, on the scale 0..1."""
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Standard deviation of red, green and blue, on the scale 0..1."""
    log_mel_mean: float = -4.2677393
    """Subtracted from log-mel energies."""
    log_mel_std: float = 4.5689974
    """Half the divisor of log-mel energies: (x - mean) / (2 * std)."""

    def __post_init__(self) -> None:
        for name in ("image_mean", "image_std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("image_size", "num_frames", "frame_interval_s", "audio_seconds", "sample_rate_hz", "audio_frames",
                     "mel_bins", "log_mel_std"):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")

    @classmethod
    def for_model(cls, config: ModelConfig, **overrides: Any) -> Self:
        """The input that ``config`` takes, with the paper's timing unless overridden."""
        shared = {name: getattr(config, name) for name in ("image_size", "num_frames", "audio_frames", "mel_bins")}
        return _from_mapping(cls, shared | overrides)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; unknown fields raise ``ValueError``."""
        return _from_mapping(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def with_(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)

    @property
    def audio_samples(self) -> int:
        """Samples of sound per clip (41,600 for the paper's 2.60 s)."""
        return round(self.audio_seconds * self.sample_rate_hz)

    @property
    def window_seconds(self) -> float:
        """Time that a clip's frames cover, each frame standing for one interval."""
        return self.num_frames * self.frame_interval_s
