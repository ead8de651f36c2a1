"""How well faces are found and followed: ``python benchmarks/faces.py``.

Needs the extra ``dev``. Prints the figures of docs/faces.md: detectors on two photographs turned, scaled and damaged;
the tracker against the true path of moving clips, by how often it looks and how much it smooths (seven minutes). With
``--sheet docs/images/faces.png`` it draws the picture of that page instead, the sheet of ``hicmae faces``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.face_clips import Actor, Motion, Photo, Picture, Pose, collins, draw, hopper, restless, write_clip
from hicmae.data.manifest import Clip, read_manifest, write_manifest
from hicmae.faces import DETECTORS, FaceTrack, FaceTracker
from hicmae.faces.detector import FaceDetector, make_detector
from hicmae.faces.job import write_faces
from hicmae.faces.sheet import SHEET_NAME
from hicmae.faces.yunet import YuNet

WIDTH, HEIGHT = 640, 480
ANGLES = (-60, -45, -30, -15, 0, 15, 30, 45, 60)
SIDES = (24, 48, 96, 192, 384)
DAMAGES = ("none", "dark", "noise", "blur", "low rate")
FPS = 25


def say(text: str) -> None:
    """One line, now."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def damaged(picture: Picture, damage: str, side: float, rng: np.random.Generator) -> Picture:
    """Dark: a fifth as bright; noise: 30 of 255; blur: by a thirtieth of the face; low rate: JPEG of quality 8."""
    if damage == "dark":
        return (picture * 0.2).astype(np.uint8)
    if damage == "noise":
        return (picture + rng.normal(0, 30, picture.shape)).clip(0, 255).astype(np.uint8)
    if damage == "blur":
        return cv2.GaussianBlur(picture, (0, 0), side / 30)  # type: ignore[return-value]
    if damage == "low rate":
        return cv2.imdecode(cv2.imencode(".jpg", picture, [1, 8])[1], 1)  # type: ignore[return-value]
    return picture


def variants() -> Iterator[tuple[dict[str, str], Picture, Pose]]:
    """Each photograph at every angle, size and damage."""
    rng = np.random.default_rng(0)
    photos: dict[str, Photo] = {"Hopper": hopper(), "Collins": collins()}
    for who, photo in photos.items():
        for roll in ANGLES:
            for side in SIDES:
                pose = Pose(x=WIDTH / 2, y=HEIGHT / 2, side=side, roll=roll)
                clean = draw([Actor(photo=photo, motion=lambda _, pose=pose: pose)], 0.0, WIDTH, HEIGHT)
                for damage in DAMAGES:
                    labels = {"photo": who, "tilt": f"{abs(roll)}", "side": f"{side}", "damage": damage}
                    yield labels, damaged(clean, damage, side, rng), pose


def faceless() -> list[Picture]:
    """Pictures without a human face: those of scikit-image's wheel, and noise."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    names = ("brick", "cell", "chelsea", "coffee", "coins", "color", "grass", "gravel", "hubble_deep_field", "ihc",
             "moon", "motorcycle_left", "page", "retina", "rocket", "text")  # fmt: skip
    pictures = [cv2.imread(str(file)) for name in names for file in folder.glob(f"{name}.*")]
    assert len(pictures) == len(names), len(pictures)
    rng = np.random.default_rng(0)
    return [*pictures, *(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(4))]


def compare_detectors() -> None:
    """Hits, false faces and time of each detector."""
    say("## detectors")
    shown = list(variants())
    for name in DETECTORS:
        detector: FaceDetector = make_detector(name)
        hits: dict[str, list[bool]] = defaultdict(list)
        elsewhere, seconds = 0, 0.0
        for labels, picture, pose in shown:
            begun = time.perf_counter()
            boxes = detector.detect(picture)
            seconds += time.perf_counter() - begun
            near = [np.hypot(b.centre[0] - pose.x, b.centre[1] - pose.y) < 0.4 * pose.side for b in boxes]
            elsewhere += len(near) - any(near)
            for key in ("all", *(f"{kind} {value}" for kind, value in labels.items())):
                hits[key].append(any(near))
        false = sum(bool(detector.detect(picture)) for picture in faceless())
        say(f"{name}: {len(shown)} pictures of {WIDTH}x{HEIGHT}, {seconds / len(shown) * 1e3:.1f} ms each, "
              f"{elsewhere} boxes elsewhere; a face in {false} of {len(faceless())} pictures without one")  # fmt: skip
        say("  found: " + ", ".join(f"{key} {np.mean(found):.0%}" for key, found in hits.items()))


def compare_scores() -> None:
    """What YuNet finds by the least score that counts."""
    detector = YuNet(least_score=0.3)
    there, without = [], [max([box.score for box in detector.detect(picture)], default=0.0) for picture in faceless()]
    for _, picture, pose in variants():
        near = [
            box.score
            for box in detector.detect(picture)
            if np.hypot(box.centre[0] - pose.x, box.centre[1] - pose.y) < 0.4 * pose.side
        ]
        there.append(max(near, default=0.0))
    for least in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        say(f"yunet from {least}: {np.mean(np.array(there) >= least):.0%} found; a face in "
            f"{sum(score >= least for score in without)} of {len(without)} pictures without one")  # fmt: skip


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of squares (x, y, side) of the centre, float64 (N, 3) each; (N,)."""
    low = np.maximum(one[:, :2] - one[:, 2:] / 2, other[:, :2] - other[:, 2:] / 2)
    high = np.minimum(one[:, :2] + one[:, 2:] / 2, other[:, :2] + other[:, 2:] / 2)
    shared = np.prod(np.maximum(0, high - low), axis=1)
    return shared / (one[:, 2] ** 2 + other[:, 2] ** 2 - shared)


def path_of(track: FaceTrack) -> np.ndarray:
    """(x, y, side) by frame, float64 (N, 3)."""
    top, left, side = track.squares.T
    return np.stack([left + side / 2, top + side / 2, side], axis=1)


def jitter(path: np.ndarray) -> float:
    """Standard deviation of the second difference of the centre, in pixels a frame a frame."""
    return float(np.diff(path[:, :2], 2, axis=0).std())


def compare_trackers(clips: Sequence[tuple[Path, np.ndarray]]) -> None:
    """Overlap with the true path, and jitter, by settings."""
    say("## tracks")
    seconds = sum(len(truth) for _, truth in clips) / FPS
    say(f"{len(clips)} clips, {seconds:.0f} s of 640x360 at {FPS} frames/s; jitter of the true path "
          f"{np.mean([jitter(truth) for _, truth in clips]):.3f} px")  # fmt: skip
    for every in (1, 2, 3, 5, 8):
        for smooth_s in (0.0, 0.08, 0.12, 0.16, 0.25):
            overlaps, jitters, shares = [], [], []
            begun = time.perf_counter()
            for file, truth in clips:
                track = FaceTracker(every=every, smooth_s=smooth_s, margin=0).track(file)
                path = path_of(track)
                overlaps.append(overlap(path, truth))
                jitters.append(jitter(path))
                shares.append(track.share)
            spent = (time.perf_counter() - begun) / seconds
            every_frame = np.concatenate(overlaps)
            say(f"every {every:2d}, smooth {smooth_s:.2f} s: IoU mean {every_frame.mean():.3f}, 5 % below "
                  f"{np.quantile(every_frame, 0.05):.3f}; jitter {np.mean(jitters):.3f} px; found in "
                  f"{np.mean(shares):.0%}; {1 / spent:.1f} times real time")  # fmt: skip


def make_clips(folder: Path) -> list[tuple[Path, np.ndarray]]:
    """Six clips of 10 s, three of each photograph, with faces 60 to 140 pixels high."""
    clips = []
    for number, side in enumerate((60, 100, 140)):
        for who, photo in (("hopper", hopper()), ("collins", collins())):
            file = folder / f"{who}_{side}.mp4"
            actor = Actor(photo=photo, motion=restless(640, 360, side=side, seed=number))
            clips.append((file, write_clip(file, [actor], seconds=10, fps=FPS, seed=number)))
    return clips


def draw_sheet_of(clips: Sequence[tuple[Path, np.ndarray]], folder: Path, sheet: Path) -> None:
    """The sheet that ``hicmae faces`` draws, of the moving clips and of some that are harder."""
    left, right = restless(320, 360, side=110, seed=5), restless(320, 360, side=70, seed=6)

    def aside(motion: Motion) -> Motion:
        return lambda time_s: None if (pose := motion(time_s)) is None else replace(pose, x=pose.x + 320)

    def hidden(motion: Motion) -> Motion:
        return lambda time_s: None if 2 < time_s < 2.8 else motion(time_s)

    def edge(time_s: float) -> Pose:
        return Pose(x=40 + 30 * time_s, y=60, side=100)

    def until(motion: Motion, end_s: float) -> Motion:
        return lambda time_s: motion(time_s) if time_s < end_s else None

    def since(motion: Motion, start_s: float) -> Motion:
        return lambda time_s: motion(time_s) if time_s >= start_s else None

    one, two = hopper(), collins()
    harder = {
        "two_faces": [Actor(photo=one, motion=left), Actor(photo=two, motion=aside(right))],
        "hidden_for_0_8_s": [Actor(photo=one, motion=hidden(restless(640, 360, side=110, seed=7)))],
        "at_the_edge": [Actor(photo=two, motion=edge)],
        "another_shot_after_2_s": [
            Actor(photo=one, motion=until(left, 2)),
            Actor(photo=two, motion=since(aside(right), 2)),
        ],
        "nobody": [],
    }
    rows = [Clip(clip_id=file.stem, video=file, end_s=4.0) for file, _ in clips]
    for name, actors in harder.items():
        write_clip(folder / f"{name}.mp4", actors, seconds=4, fps=FPS)
        rows.append(Clip(clip_id=name, video=folder / f"{name}.mp4"))
    manifest = read_manifest(write_manifest(folder / "clips.csv", rows))
    report = write_faces(manifest, folder / "out", workers=2)
    say(f"## sheet\n{len(report.clips)} clips; {'; '.join(report.doubts)}")
    for reject in report.rejected:
        say(f"rejected: {reject.detail}")
    # A sixth of the bytes, for the repository; other methods lose the green of the squares.
    few = Image.open(folder / "out" / SHEET_NAME).quantize(96, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(sheet, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="only draw this contact sheet")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        if args.sheet:
            draw_sheet_of(make_clips(Path(folder)), Path(folder), args.sheet)
            return
        compare_detectors()
        compare_scores()
        compare_trackers(make_clips(Path(folder)))


if __name__ == "__main__":
    main()
