"""``--faces``: windows of the moving square on the clock of the original, gaps where nobody is seen, nothing left
behind."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import av.error
import numpy as np
import pytest
import simplejpeg

from benchmarks.face_clips import Actor, Pose, collins, hopper, restless, write_clip
from hicmae.config import InputSpec
from hicmae.data.file_lock import hold_folder
from hicmae.data.manifest import Clip
from hicmae.faces import FaceTracker, passing_clip, write_face_clip
from hicmae.faces.detector import make_detector
from hicmae.faces.passing_clip import passing_face_clip
from hicmae.faces.scene import scene_doubt
from hicmae.inference.face_windows import face_windows
from hicmae.inference.items import MediaItem, media_item
from hicmae.inference.predictor import Predictor
from hicmae.inference.windows import WindowSettings, read_windows
from hicmae.media.clip import DecodeError
from hicmae.media.container import open_media
from hicmae.media.frames_file import pack_frames
from tests.media_files import make_clip
from tests.test_predictor import recognizer
from tests.tiny_model import TINY

SPEC = InputSpec.for_model(TINY, frame_interval_s=0.2, audio_seconds=0.8)
"""Windows of 0.8 s."""


def looking(*modalities: str) -> Predictor:
    return Predictor(recognizer(*modalities), SPEC, name="tiny", device="cpu", faces=True)


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a face that is gone from 0.8 s to 1.6 s, and a sound file."""
    folder = tmp_path_factory.mktemp("talk")
    path = restless(176, 96, side=50)
    write_clip(folder / "talk.mp4", [Actor(photo=hopper(), motion=lambda t: None if 0.8 <= t < 1.6 else path(t))],
               seconds=3.0, width=176, height=96)  # fmt: skip
    make_clip(folder / "voice.m4a", seconds=3.0, with_video=False)
    return folder / "talk.mp4"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_pixels_and_times_are_those_of_a_face_clip(talk: Path, temporary: Path) -> None:
    item = MediaItem(name="x", video=talk, audio=talk.with_name("voice.m4a"), span_s=(0.2, 2.8))
    tracker = FaceTracker(min_share=0.01)
    clip = Clip(clip_id="x", video=talk, audio=talk.with_name("voice.m4a"), start_s=0.2, end_s=2.8)
    row = write_face_clip(clip, tracker, temporary / "out" / "x.mp4")
    assert row.video is not None
    settings = WindowSettings()
    with face_windows(item, SPEC, settings, ("video", "audio")) as found:
        windows = list(found)
        assert list(temporary.glob("hicmae-faces-*"))
    assert not list(temporary.glob("hicmae-faces-*"))
    with read_windows(media_item(row.video), SPEC, settings) as expected:
        truth = list(expected)
    assert len(windows) == found.total == len(truth)
    for (window, _), other in zip(windows, truth, strict=True):
        np.testing.assert_array_equal(window.frames, other.frames)
        np.testing.assert_array_equal(window.waveform, other.waveform)
        assert window.start_s == pytest.approx(other.start_s + 0.2)  # the first frame of the span
    assert [shown for _, shown in windows] == [True, False, True, True]


def test_windows_without_a_face_are_left_out_and_said_so(talk: Path, temporary: Path) -> None:
    found = looking("video").predict(talk)
    assert {out.reason for out in found.left_out} == {"no_face"}
    assert [(out.start_s, out.end_s) for out in found.left_out] == [(pytest.approx(0.8), pytest.approx(1.6))]
    assert "left_out: 1 of 4 windows were left out (no_face 1)" in found.warnings
    assert not list(temporary.iterdir())


def test_a_file_without_a_face_fails_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    make_clip(temporary / "noise.mp4", seconds=1.0, time_code=False, size=(96, 64))
    for source in (temporary / "noise.mp4", MediaItem(name=str(temporary / "noise.mp4"),
                                                       video=(temporary / "noise.mp4").read_bytes())):  # fmt: skip
        with pytest.raises(DecodeError, match=r"noise.mp4: no face in any of the \d+ frames looked at") as raised:
            looking("video").predict(source)
        assert raised.value.reason == "no_face"
    assert [file.name for file in temporary.iterdir()] == ["noise.mp4"]


def test_a_face_that_cannot_be_encoded_fails_alone(
    talk: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise av.error.InvalidDataError(1, "x264 refuses")

    monkeypatch.setattr(passing_clip, "write_square", refuse)
    with pytest.raises(DecodeError) as failed:
        looking("video").predict(talk)
    assert failed.value.reason == "encode_failed"
    assert not list(temporary.glob("hicmae-faces-*"))


def test_no_face_is_followed_in_stored_squares(talk: Path) -> None:
    jpeg = simplejpeg.encode_jpeg(np.zeros((32, 32, 3), dtype=np.uint8))
    frames = pack_frames([jpeg] * 2, [0.0, 0.5], 1.0, width=32, height=32, name="a")
    item = MediaItem(name="a", video=frames)
    with (
        pytest.raises(DecodeError, match="leave --faces out") as failed,
        face_windows(item, SPEC, WindowSettings(), ("video",)),
    ):
        pass
    assert failed.value.reason == "stored_squares"


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(temporary: Path) -> None:
    left, used, fresh = (temporary / f"hicmae-faces-{name}" for name in ("left", "used", "fresh"))
    for folder in (left, used, fresh):
        folder.mkdir()
        (folder / "face.mp4").write_bytes(b"x")
        (folder / ".lock").touch()
    with hold_folder(used):
        for folder in (left, used):
            os.utime(folder, (time.time() - 3600,) * 2)
        with pytest.raises(DecodeError), passing_face_clip(b"x", None, FaceTracker(), name="x"):
            pass
    assert not left.exists()
    assert used.exists()
    assert fresh.exists()


def test_a_recogniser_that_only_listens_needs_no_faces() -> None:
    with pytest.raises(ValueError, match="built for sound alone"):
        looking("audio")


def doubt(file: Path, *, with_detector: bool = True) -> str | None:
    with open_media(file.read_bytes(), "x", sound=False) as media:
        assert media.picture is not None
        return scene_doubt(media.picture, make_detector("yunet") if with_detector else None, "x")


def test_a_small_face_and_several_faces_are_no_face_crop_and_a_face_that_fills_the_picture_is(tmp_path: Path) -> None:
    def written(*actors: Actor, width: int, height: int) -> Path:
        write_clip(tmp_path / "x.mp4", list(actors), seconds=0.2, width=width, height=height)
        return tmp_path / "x.mp4"

    def still(photo: object, x: float, y: float, side: float) -> Actor:
        return Actor(photo=photo, motion=lambda _: Pose(x=x, y=y, side=side))  # type: ignore[arg-type]

    small = written(still(hopper(), 160, 160, 70), width=320, height=320)
    assert (doubt(small) or "").startswith("its largest face is 2")
    assert doubt(small, with_detector=False) is None  # its picture is square
    two = written(still(hopper(), 100, 100, 100), still(collins(), 300, 100, 95), width=400, height=200)
    assert doubt(two) == "it shows several faces"
    assert (doubt(two, with_detector=False) or "").startswith("its picture is 400 x 200")
    filled = written(still(hopper(), 80, 80, 100), width=160, height=160)
    assert doubt(filled) is None


def test_how_often_a_face_was_seen_within_a_window(talk: Path) -> None:
    track = replace(FaceTracker(), min_share=0.01).track(talk)
    assert track.share_within(0.0, 0.75) == 1
    assert track.share_within(0.85, 1.5) == 0
    assert track.share_within(0.4, 1.2) == pytest.approx(0.5, abs=0.15)
    assert track.share_within(1.21, 1.22) == 0  # between two looks
    assert track.share_within(-5.0, -4.0) == 1
    assert track.share_within(10.0, 12.0) == 1
