"""How the clips of a shard folder are stored: as they came, or re-encoded so that a window of them is cheap to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

VideoStorage = Literal["original", "h264", "jpeg"]
AudioStorage = Literal["original", "aac", "flac", "wav"]


@dataclass(frozen=True, kw_only=True)
class StorageFormat:
    """Which bytes a shard holds for a clip.

    ``original`` keeps the file; ``h264`` is a short-GOP film of the training square, ``jpeg`` single frames of it.
    """

    video: VideoStorage = "original"
    """How pictures are stored."""
    audio: AudioStorage = "original"
    """How sound is stored; ``original`` beside a re-encoded picture is not possible, as the clocks would differ."""
    size: int = 160
    """Side of the stored frames in pixels; original pictures keep theirs."""
    square: tuple[int, int, int] | None = None
    """(top, left, side) in pixels of the upright displayed picture: what is cut from it first, at writing, or when an
    original is decoded; None is the central square."""

    def __post_init__(self) -> None:
        for name, known in (("video", get_args(VideoStorage)), ("audio", get_args(AudioStorage))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} storage {getattr(self, name)!r} is not known; choose {', '.join(known)}")
        if self.video != "original" and self.audio == "original":
            raise ValueError(
                f"audio 'original' does not go with video {self.video!r}: a re-encoded clip starts at 0 s, the "
                "original sound need not; choose aac, flac or wav"
            )
        if self.video == "original" and self.audio != "original":
            raise ValueError(
                f"audio {self.audio!r} does not go with video 'original': the original file keeps its own sound; "
                "choose audio 'original', or re-encode the picture as h264 or jpeg"
            )
        if self.size < 2 or self.size % 2:
            raise ValueError(f"size={self.size} must be an even number of pixels, 2 or more")
        if self.square is not None:
            object.__setattr__(self, "square", tuple(self.square))
            if len(self.square) != 3 or min(self.square) < 0 or self.square[2] < 1:
                raise ValueError(f"square={self.square} must be (top, left, side) in pixels, for instance (0, 32, 160)")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"square": list(self.square) if self.square else None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; unknown fields raise ``ValueError``."""
        if unknown := sorted(set(values) - {field.name for field in fields(cls)}):
            raise ValueError(f"unknown storage fields {unknown}; install a newer hicmae, or write the shards again")
        return cls(**values)

    def __str__(self) -> str:
        if self.video == "original":
            return "original files" + (f", square {self.square}" if self.square else "")
        return f"{self.video} {self.size}x{self.size} + {self.audio}"
