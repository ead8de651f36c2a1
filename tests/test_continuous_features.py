"""Features of long videos: the right footage at every step, kept on the disk, and made anew when they must be."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.io import write_jpeg

from hicmae.backbone import Backbone
from hicmae.config import InputSpec
from hicmae.continuous import footage as footage_module
from hicmae.continuous.features import FeatureSettings, FeatureStore
from hicmae.continuous.footage import find_faces, open_footage
from hicmae.continuous.sequences import LongVideo
from hicmae.media.clip import DecodeError
from hicmae.media.decode import decode_clip
from tests.corpus import clip_bytes
from tests.tiny_model import TINY, shake

SPEC = InputSpec.for_model(TINY, audio_seconds=0.66)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    model = Backbone(TINY)
    shake(model)
    return model.eval()


@pytest.fixture
def video(tmp_path: Path) -> LongVideo:
    path = tmp_path / "long.mp4"
    path.write_bytes(clip_bytes(3.6))
    return LongVideo(name="long", video=path, subject="s")


def _store(folder: Path, backbone: Backbone, *, weights: str = "w", **settings: object) -> FeatureStore:
    return FeatureStore(folder, backbone, SPEC, weights=weights, settings=FeatureSettings(**settings))  # type: ignore[arg-type]


def test_steps_are_the_windows_that_a_clip_decoder_cuts(
    tmp_path: Path, backbone: Backbone, video: LongVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footage_module, "MAX_FRAMES", 20)  # several stretches
    store = _store(tmp_path / "features", backbone, every=4, batch_size=3, fused=True)
    features = store.get(video)
    assert video.video is not None
    data = video.video.read_bytes()
    with open_footage(video.video, None, SPEC, name="long") as footage:
        times, end_s = footage.times_s, footage.end_s
    assert features.frames == len(times)
    np.testing.assert_array_equal(features.steps, np.arange(0, len(times), 4))
    for row in (0, 1, 7, 12, len(features.steps) - 1):
        begin = np.clip(times[features.steps[row]] - SPEC.window_seconds / 2, 0, end_s - SPEC.window_seconds)
        position = begin / (end_s - SPEC.window_seconds)
        clip = decode_clip(data, spec=SPEC, position=float(np.clip(position, 0, 1)), name="long")
        batch = torch.from_numpy(clip.video)[None], torch.from_numpy(clip.waveform)[None]
        with torch.inference_mode():
            out = backbone(*store._transform(*batch, sound_samples=torch.tensor([clip.sound_samples])))
        expected = out.pooled[0].split(TINY.width)
        for name, value in zip(("video", "audio", "fused_video", "fused_audio"), expected, strict=True):
            # The clip's sound begins with its first frame, up to a frame before the step's window does.
            tolerance = 0.002 if name == "video" else 0.15
            np.testing.assert_allclose(features.streams[name][row], value.numpy(), atol=tolerance, rtol=0.01)
    assert all(there.all() for there in features.present.values())


def test_features_do_not_depend_on_batches_or_stretches(
    tmp_path: Path, backbone: Backbone, video: LongVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _store(tmp_path / "a", backbone, every=5).get(video)
    monkeypatch.setattr(footage_module, "MAX_FRAMES", 9)
    parts = _store(tmp_path / "b", backbone, every=5, batch_size=2).get(video)
    np.testing.assert_allclose(parts.streams["video"], whole.streams["video"], atol=2e-3)
    np.testing.assert_allclose(parts.streams["audio"], whole.streams["audio"], atol=2e-2)


def test_features_are_kept_and_made_anew_for_another_model_setting_or_file(
    tmp_path: Path, backbone: Backbone, video: LongVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "features"
    store = _store(folder, backbone, every=20)
    store.get(video)
    monkeypatch.setattr(FeatureStore, "_compute", lambda *_: pytest.fail("computed again"))
    assert len(store.get(video).steps) == len(_store(folder, backbone, every=20, batch_size=1).get(video).steps)
    assert _store(folder, backbone, every=20, weights="other").find(video) is None
    assert _store(folder, backbone, every=10).find(video) is None
    assert video.video is not None
    video.video.write_bytes(clip_bytes(2.8))
    assert store.find(video) is None
    monkeypatch.undo()
    assert store.get(video).frames < 90
    # Killed between the arrays and the note that they are whole: a draft is no feature.
    shutil.move(folder / "long", folder / ".long.draft")
    assert store.find(video) is None
    assert store.get(video).frames < 90


def test_face_pictures_replace_the_picture_and_may_be_missing(tmp_path: Path, backbone: Backbone) -> None:
    path = tmp_path / "10-25-48x48.mp4"
    path.write_bytes(clip_bytes(3.6))
    faces = tmp_path / "faces"
    faces.mkdir()
    for number in [*range(1, 31), *range(80, 90)]:  # lost from frame 31 to 79
        picture = torch.full((3, 40, 40), number * 2, dtype=torch.uint8)
        write_jpeg(picture, str(faces / f"{number:05d}.jpg"))
    one = LongVideo(name="right", video=path, faces=faces, subject="s")
    features = _store(tmp_path / "features", backbone, every=1).get(one)
    assert features.frames == 90
    present = features.present["video"]
    assert present[:30].all()
    assert present[79:].all()
    # The window of 0.64 s around frame 55 (from 0) holds frames 47 to 63: no face.
    assert not present[50:60].any()
    assert not np.asarray(features.streams["video"][50:60]).any()
    assert np.asarray(features.streams["audio"][55]).any()
    alone = LongVideo(name="alone", video=None, faces=faces, subject="s", frame_rate=25.0)
    features = _store(tmp_path / "features", backbone, every=10).get(alone)
    assert features.frames == 89
    assert not features.present["audio"].any()
    (faces / "00200.jpg").write_bytes((faces / "00001.jpg").read_bytes())
    with pytest.raises(DecodeError, match="frame 200 of a video of 90"):
        _store(tmp_path / "features", backbone).get(one)


def test_folders_of_faces_that_cannot_be_used(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    faces.mkdir()
    with pytest.raises(ValueError, match="holds no pictures named by frame"):
        find_faces(faces)
    (faces / "1.jpg").touch()
    with pytest.raises(ValueError, match="no video beside it"), open_footage(None, faces, SPEC, name="a"):
        pass
    (faces / "00001.png").touch()
    with pytest.raises(ValueError, match="has that number too"):
        find_faces(faces)
    (faces / "1.jpg").rename(faces / "0.jpg")
    with pytest.raises(ValueError, match="frames count from 1"):
        find_faces(faces)
    sound = tmp_path / "a.wav"
    sound.write_bytes(clip_bytes(sound_only=True))
    with pytest.raises(DecodeError, match="holds no picture"), open_footage(sound, None, SPEC, name="a"):
        pass
