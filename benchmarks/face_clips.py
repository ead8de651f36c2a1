"""Moving clips made of real photographs, with the face's true path.

The photographs come in the wheels of matplotlib (Grace Hopper, US Navy, public domain) and of scikit-image (Eileen
Collins, NASA, public domain). A clip shows one that pans, grows, shrinks and tilts over an even background, with noise
and flicker, encoded as H.264. Where the face is in the photograph was read off it by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
BACKGROUND = (96, 104, 90)


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A photograph and the box of the face in it, forehead to chin."""

    picture: Picture
    """RGB uint8 (H, W, 3)"""
    left: float
    top: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the face."""
        return self.left + self.width / 2, self.top + self.height / 2

    @property
    def side(self) -> float:
        """The longer side of the face's box."""
        return max(self.width, self.height)


def hopper() -> Photo:
    """Grace Hopper: spectacles, a cap, facing the camera."""
    import matplotlib

    file = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return Photo(picture=_read(file), left=180, top=122, width=176, height=210)


def collins() -> Photo:
    """Eileen Collins, smiling."""
    import skimage

    return Photo(
        picture=_read(Path(skimage.__file__).parent / "data" / "astronaut.png"), left=178, top=64, width=92, height=114
    )


def _read(file: Path) -> Picture:
    return cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a face is shown at an instant."""

    x: float
    y: float
    side: float
    """Of its square, in pixels."""
    roll: float = 0.0
    """Degrees counter-clockwise."""


Motion = Callable[[float], Pose | None]
"""The pose at a time in seconds; None hides the face behind the background."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A photograph that moves."""

    photo: Photo
    motion: Motion


def restless(width: int, height: int, *, side: float, seed: int = 0, still: bool = False) -> Motion:
    """Sways and nods as people do who talk: below 1 Hz, with a quick turn every few seconds."""
    rng = np.random.default_rng(seed)
    phases = rng.uniform(0, 2 * np.pi, 8)
    reach = 0.0 if still else 1.0

    def motion(time_s: float) -> Pose:
        def wave(number: int, hz: float) -> float:
            return float(np.sin(2 * np.pi * hz * time_s + phases[number]))

        jerk = np.tanh(12 * wave(6, 0.15))
        return Pose(
            x=width * (0.5 + reach * (0.13 * wave(0, 0.11) + 0.03 * wave(1, 0.6))) + reach * 0.12 * side * jerk,
            y=height * (0.5 + reach * (0.04 * wave(2, 0.17) + 0.02 * wave(3, 0.8))),
            side=side * (1 + reach * 0.2 * wave(4, 0.09)),
            roll=reach * 10 * wave(5, 0.23),
        )

    return motion


def draw(actors: Sequence[Actor], time_s: float, width: int, height: int) -> Picture:
    """The frame of an instant, RGB uint8 (height, width, 3)."""
    frame = np.full((height, width, 3), BACKGROUND, dtype=np.uint8)
    for actor in actors:
        pose = actor.motion(time_s)
        if pose is None:
            continue
        matrix = cv2.getRotationMatrix2D(actor.photo.centre, pose.roll, pose.side / actor.photo.side)
        matrix[:, 2] += np.array([pose.x, pose.y]) - actor.photo.centre
        # An area filter for what gets smaller: first by halves, then the rest.
        picture, halved = actor.photo.picture, 1
        while pose.side / actor.photo.side * halved < 0.5:
            picture, halved = cv2.pyrDown(picture), halved * 2  # type: ignore[assignment]
        matrix[:, :2] *= halved
        shown = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR)
        mask = cv2.warpAffine(np.full(picture.shape[:2], 255, np.uint8), matrix, (width, height))
        frame[mask > 127] = shown[mask > 127]
    return frame


def write_clip(
    file: Path,
    actors: Sequence[Actor],
    *,
    seconds: float,
    fps: Fraction | int = 25,
    width: int = 640,
    height: int = 360,
    noise: float = 8.0,
    crf: int = 26,
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """Write a clip, H.264 with B-frames in mp4.

    Returns:
        The true path of the first actor: (x, y, side) in every frame, float64 (N, 3), NaN where it is hidden.
    """
    rng = np.random.default_rng(seed)
    truth = []
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(round(seconds * fps)):
            time_s = float(number / fps)
            pose = actors[0].motion(time_s) if actors else None
            truth.append((pose.x, pose.y, pose.side) if pose else (np.nan,) * 3)
            grain = noise * rng.standard_normal((height // 2, width // 2, 1)) + rng.normal(0, noise / 4)
            frame = draw(actors, time_s, width, height) + cv2.resize(grain, (width, height))[..., None]
            picture = av.VideoFrame.from_ndarray(frame.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return np.array(truth)
