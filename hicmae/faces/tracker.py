"""From a video to one smooth square a frame around the face of the clip."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hicmae.faces.association import FacePath, follow_faces
from hicmae.faces.choice import choose_face
from hicmae.faces.detector import FaceBox, FaceDetector, make_detector
from hicmae.faces.look import Looks, Region, look_for_faces
from hicmae.faces.smoothing import fit_in, smooth_squares
from hicmae.media.container import open_media
from hicmae.media.large_file import MediaData, load_media
from hicmae.media.probe import nothing_there


class FaceNotFoundError(ValueError):
    """A clip without a face, or with one in too few of its frames; ``reason`` is ``"no_face"``. Pickles."""

    reason = "no_face"

    def __init__(self, name: str, found: int, looked: int, least: float) -> None:
        super().__init__(name, found, looked, least)
        self.name, self.found, self.looked, self.least = name, found, looked, least

    def __str__(self) -> str:
        seen = f"a face in {self.found} of the {self.looked} frames looked at, {self.found / self.looked:.0%}"
        return (
            f"{self.name}: {seen}, under {self.least:.0%} ({self.reason}); look at the clip: lower min_share if there "
            "is a face in part of it, give another detector or region if there is one all the time, or drop it"
        )


@dataclass(frozen=True, kw_only=True)
class FaceTrack:
    """One square for each frame of a clip."""

    numbers: npt.NDArray[np.int64]
    """Numbers of the frames in their file, int64 (N,)."""
    times_s: npt.NDArray[np.float64]
    """When each is presented, float64 (N,), in seconds on the file's clock."""
    squares: npt.NDArray[np.float64]
    """(top, left, side) in pixels of the displayed picture, float64 (N, 3): always within it, not whole numbers."""
    width: int
    height: int
    """Of the displayed picture."""
    looks: npt.NDArray[np.int64]
    """Places in ``numbers`` of the frames in which faces were looked for, int64 (L,), ascending."""
    boxes: dict[int, FaceBox] = field(repr=False)
    """The face as it was found, by place in ``numbers``, in pixels of the displayed picture."""
    pieces: tuple[int, ...]
    """Places at which the square jumps, as another shot begins or the face is found elsewhere; the first is 0."""
    contested: bool
    """Whether another face, about as large and as central, was seen at the same time."""

    @property
    def looked(self) -> int:
        """In how many frames faces were looked for."""
        return len(self.looks)

    @property
    def share(self) -> float:
        """In how many of the frames looked at the face was found, 0 to 1."""
        return len(self.boxes) / self.looked

    def share_within(self, start_s: float, end_s: float) -> float:
        """``share`` of the frames between two instants, in seconds on the file's clock; where none of them was looked
        at, of the one looked at before and the one after."""
        times = self.times_s[self.looks]
        first, last = int(np.searchsorted(times, start_s)), int(np.searchsorted(times, end_s))
        if first == last:
            first, last = max(0, first - 1), last + 1
        return float(np.mean([place in self.boxes for place in self.looks[first:last].tolist()]))


@dataclass(frozen=True, kw_only=True)
class FaceTracker:
    """How faces are followed. Pickles if its detector does; one may serve several threads if it is given by name."""

    detector: str | FaceDetector = "yunet"
    """Name (``detector.DETECTORS``), or one of your own."""
    model: Path | None = None
    """File with the weights of a detector given by name; None for those it is installed with."""
    margin: float = 0.3
    """Added on each side of the face, as a fraction of the longer side of its box."""
    every: int = 3
    """Faces are looked for in every so-many-th frame."""
    min_share: float = 0.5
    """Least share of these frames in which the face must be found."""
    smooth_s: float = 0.12
    """Standard deviation in time of the smoothing, in seconds; 0 joins what was found by straight lines."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every={self.every} must be at least 1, which looks at every frame")
        if not 0 <= self.margin <= 10:
            raise ValueError(f"margin={self.margin} must lie within 0 and 10; it is a fraction of the face's side")
        if not 0 < self.min_share <= 1:
            raise ValueError(f"min_share={self.min_share} must be above 0 and at most 1; it is a share of the frames")
        if not 0 <= self.smooth_s <= 10:
            raise ValueError(f"smooth_s={self.smooth_s} must lie within 0 and 10 seconds")
        if self.model is not None and not isinstance(self.detector, str):
            raise ValueError("model is for a detector given by name; yours has its own")

    def settings(self) -> dict[str, Any]:
        """What decides the tracks, as plain values: of a model what is in it, wherever it lies."""
        own = not isinstance(self.detector, str)
        return {
            "detector": type(self.detector).__qualname__ if own else self.detector,
            "model_sha256": None if self.model is None else hashlib.sha256(Path(self.model).read_bytes()).hexdigest(),
            "margin": self.margin,
            "every": self.every,
            "min_share": self.min_share,
            "smooth_s": self.smooth_s,
        }

    def track(
        self,
        video: MediaData | Path,
        *,
        span_s: tuple[float, float] | None = None,
        region: Region | None = None,
        square: tuple[int, int, int] | None = None,
        name: str | None = None,
    ) -> FaceTrack:
        """Follow the face of a clip.

        Args:
            video: a media file. Only the frames of the span are decoded.
            span_s: (start, end) in seconds on the file's clock; None for all of it.
            region: look in this part alone: (top, left, bottom, right) as fractions of the displayed height and width.
            square: look within (top, left, side) alone, in pixels of the displayed picture.
            name: what errors call this clip; None for the file's path.

        Raises:
            FaceNotFoundError: too few frames show a face.
            DecodeError: the file cannot be decoded, or the span or square lies outside.
            ValueError: contradictory arguments, or the detector is not installed.
        """
        name = name or (str(video) if isinstance(video, Path) else "clip")
        check_region(region, square, name)
        detector = make_detector(self.detector, self.model) if isinstance(self.detector, str) else self.detector
        data = load_media(video, name=name) if isinstance(video, Path) else video
        with open_media(data, name, sound=False) as media:
            if media.picture is None:
                raise nothing_there(name, True)
            looks = look_for_faces(
                media.picture, detector, span_s=span_s, region=region, square=square, every=self.every, name=name
            )
        return self._one_face(looks, name)

    def _one_face(self, looks: Looks, name: str) -> FaceTrack:
        """Choose the face of each shot, and smooth between jumps."""
        paths: list[FacePath] = []
        contested = False
        for first, end in _ranges(looks.shots, len(looks.numbers)):
            choice = choose_face(
                follow_faces([look for look in looks.looks if first <= look.place < end]), looks.bounds
            )  # fmt: skip
            paths += choice.paths
            contested |= choice.contested
        boxes = {place: box for path in paths for place, box in path.boxes.items()}
        if len(boxes) < self.min_share * len(looks.looks):
            raise FaceNotFoundError(name, len(boxes), len(looks.looks), self.min_share)
        pieces = _piece_starts(paths, looks.shots)
        smooth = np.empty((len(looks.numbers), 3))
        for begin, end in _ranges(pieces, len(looks.numbers)):
            seen = [look.place for look in looks.looks if begin <= look.place < end]
            smooth[begin:end] = smooth_squares(
                looks.times_s[begin:end],
                looks.times_s[seen],
                [boxes.get(place) for place in seen],
                smooth_s=self.smooth_s,
            )
        return FaceTrack(
            numbers=looks.numbers,
            times_s=looks.times_s,
            squares=fit_in(smooth, looks.bounds, self.margin),
            width=looks.width,
            height=looks.height,
            looks=np.array([look.place for look in looks.looks], dtype=np.int64),
            boxes=boxes,
            pieces=pieces,
            contested=contested,
        )


def _piece_starts(paths: list[FacePath], shots: tuple[int, ...]) -> tuple[int, ...]:
    """Where each path takes over: with its shot, or when it is first seen where the shot has had another face.

    A shot without a face stays with the path before, or after if there is none.
    """
    starts: list[int] = []
    for path in paths:
        shot = max(start for start in shots if start <= path.first)
        starts.append(path.first if starts and starts[-1] >= shot else shot)
    return (0, *starts[1:])


def _ranges(starts: tuple[int, ...], end: int) -> list[tuple[int, int]]:
    return list(zip(starts, (*starts[1:], end), strict=True))


def check_region(region: Any, square: Any, name: str) -> None:
    """``ValueError`` for a region that is none, or beside a square."""
    if region is None:
        return
    if square is not None:
        raise ValueError(f"{name}: both region {region} and square {square} are given; give one")
    top, left, bottom, right = region
    if not all(math.isfinite(edge) for edge in region) or not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
        raise ValueError(
            f"{name}: the region {tuple(region)} is not one; give top, left, bottom, right as fractions of the "
            "picture, for example 0,0,1,0.5 for its left half"
        )
