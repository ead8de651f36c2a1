"""Features of long videos: the right footage at every step, kept on the disk, and made anew when they must be."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from torchvision.io import write_jpeg

from hicmae.backbone import Backbone
from hicmae.config import InputSpec
from hicmae.continuous import footage as footage_module
from hicmae.continuous.features import FeatureSettings, FeatureStore
from hicmae.continuous.footage import FaceFrames, find_faces, open_footage
from hicmae.continuous.labels import read_rows
from hicmae.continuous.sequences import LongVideo
from hicmae.continuous.synthetic import LongClipSettings, write_long_clips
from hicmae.continuous.synthetic import main as make_long_clips
from hicmae.data.file_lock import HeldLock
from hicmae.media.clip import DecodeError
from hicmae.media.decode import decode_clip
from hicmae.metrics import dimensional_scores
from tests.corpus import clip_bytes
from tests.media_files import frame_times, make_clip, read_picture_time, read_sound_time
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


@pytest.mark.parametrize(("fps", "vfr", "start_s"), [(25, False, 0.0), (Fraction(30000, 1001), False, 0.0),
                                                       (12, True, 0.0), (50, False, 1.3)])  # fmt: skip
def test_a_step_has_the_picture_and_sound_around_its_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fps: float, vfr: bool, start_s: float
) -> None:
    """By the time that pictures and sound carry themselves, at any frame rate, and where a file does not begin at 0."""
    monkeypatch.setattr(footage_module, "MAX_FRAMES", 20)
    stamps = [start_s + time for time in map(float, frame_times(3.0, fps, vfr=vfr))]
    path = tmp_path / "long.mkv"
    make_clip(path, size=(48, 48), times=[Fraction(round(1000 * stamp), 1000) for stamp in stamps],
              seconds=start_s + 3.0, audio_start_s=start_s, audio_codec="pcm_s16le", container="matroska")  # fmt: skip
    with open_footage(path, None, SPEC, name="long") as footage:
        np.testing.assert_allclose(footage.times_s, stamps, atol=0.002)
        steps = np.arange(0, len(stamps), 3)
        starts = footage.starts(steps, SPEC)
        half = SPEC.window_seconds / 2
        middle = np.array(stamps)[steps]
        inside = (middle - half >= stamps[0]) & (middle + half <= footage.end_s)
        np.testing.assert_allclose(starts[inside] + half, middle[inside], atol=0.002)
        assert inside.sum() > len(steps) // 2
        for stretch in footage.stretches(steps, SPEC):
            assert stretch.sound is not None
            for begin, row, offset in zip(starts[stretch.steps], stretch.rows, stretch.offsets, strict=True):
                instants = begin + np.arange(SPEC.num_frames) * SPEC.frame_interval_s
                on_screen = [stamps[np.searchsorted(stamps, instant + 0.002, side="right") - 1] for instant in instants]
                shown = [read_picture_time(picture) for picture in stretch.frames[row]]
                np.testing.assert_allclose(shown, on_screen, atol=0.0011)
                excerpt = stretch.sound[offset : offset + 4000] / 32768
                assert read_sound_time(excerpt, SPEC.sample_rate_hz, begin, search_s=0.05) == pytest.approx(
                    begin, abs=1e-3
                )


class _Pixels(nn.Module):
    """In a backbone's place: the picture in the middle of the window, small and grey."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(width=24 * 24)
        self.somewhere = nn.Parameter(torch.zeros(1))

    def summarize(self, modality: str, layer_means: Tensor) -> Tensor:
        return layer_means[-1]

    def forward(self, video: Tensor, log_mel: Tensor) -> SimpleNamespace:
        grey = video[:, :, video.shape[2] // 2].mean(dim=1, keepdim=True)
        return SimpleNamespace(layer_means={"video": adaptive_avg_pool2d(grey, 24).flatten(1).unsqueeze(0)})


def test_synthetic_faces_show_their_valence_at_the_frames_that_are_labelled(tmp_path: Path) -> None:
    """What a backbone does not find in a face (docs/continuous.md) is in the pixels that it is given: a linear
    regression on the first two thirds of a video tells the rest, and tells it worse from labels of another second."""
    annotations = write_long_clips(tmp_path, LongClipSettings(speakers=1, test_speakers=0, seconds=40))
    spec = InputSpec.for_model(replace(TINY, image_size=96), audio_seconds=0.66)
    store = FeatureStore(tmp_path / "features", _Pixels(), spec, weights="none",  # type: ignore[arg-type]
                         settings=FeatureSettings(every=4))  # fmt: skip
    features = store.get(LongVideo(name="one", video=next((tmp_path / "videos").iterdir()), subject="s"))
    labels = read_rows(next(annotations.rglob("*.txt")), ("valence",)).values[:, 0]
    pixels = np.asarray(features.streams["video"], dtype=np.float64)

    def held_out(shift: int) -> float:
        truth = labels[(features.steps + shift).clip(0, len(labels) - 1)]
        there = np.flatnonzero(np.isfinite(truth))
        train, test = there[: 2 * len(there) // 3], there[2 * len(there) // 3 + 10 :]
        kernel = Ridge(alpha=1.0).fit(pixels[train], truth[train])
        return dimensional_scores(truth[test], kernel.predict(pixels[test])).ccc

    assert held_out(0) > 0.7
    assert max(held_out(-25), held_out(25)) < held_out(0) - 0.03


def test_long_clips_of_other_settings_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*options: str) -> str:
        with pytest.raises(SystemExit):
            make_long_clips([str(tmp_path / "long"), *options])
        return capsys.readouterr().err

    assert "at least one in all" in fails("--speakers", "0", "--test-speakers", "0")
    assert "seconds=0.5 must" in fails("--seconds", "0.5")
    assert "size=33 must" in fails("--size", "33")
    options = ["--speakers", "1", "--test-speakers", "0", "--seconds", "1", "--size", "16"]
    for _ in range(2):
        assert make_long_clips([str(tmp_path / "long"), *options]) == 0
    assert "other settings" in fails(*options, "--seed", "1")


def test_processes_that_want_the_same_features_compute_them_once(
    tmp_path: Path, backbone: Backbone, video: LongVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    compute = FeatureStore._compute

    def slow(self: FeatureStore, video: LongVideo, lock: HeldLock) -> None:
        computed.append(video.name)
        time.sleep(0.2)  # so that all are there before the first has done
        compute(self, video, lock)

    monkeypatch.setattr(FeatureStore, "_compute", slow)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: _store(tmp_path / "f", backbone, every=20).get(video).frames, range(3)))
    assert found == [90] * 3
    assert computed == ["long"]


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
    # Of frames 40 to 55 the window around frame 79 (from 0) begins with frame 71: none of the lost face is in it.
    with open_footage(path, faces, SPEC, name="right") as footage:
        rows, there = footage.shown(footage.starts(np.array([20, 79]), SPEC), SPEC)
    assert there.all()
    assert isinstance(footage.picture, FaceFrames)
    assert (footage.picture.numbers[rows[1]] == 79).sum() >= 2
    assert footage.picture.numbers[rows[1]].min() == 79
    np.testing.assert_array_equal(footage.picture.numbers[rows[0]], [12, 16, 20, 24])
    (faces / "00092.jpg").write_bytes((faces / "00001.jpg").read_bytes())  # another decoder found two more frames
    with open_footage(path, faces, SPEC, name="right") as footage:
        assert isinstance(footage.picture, FaceFrames)
        assert footage.picture.numbers[-1] == 88
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
