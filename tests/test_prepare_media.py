"""What ``hicmae prepare`` makes of a corpus: files of frames, face films, squares; killed and started again."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from hicmae.benchmarks.card import NativeClip
from hicmae.data.manifest import Clip, read_manifest
from hicmae.data.shard_source import ShardSource
from hicmae.data.source import ManifestSource
from hicmae.faces import FaceBox, FaceNotFoundError, FaceTracker
from hicmae.faces.cut import FaceCut
from hicmae.media.clip import DecodeError
from hicmae.media.container import open_media
from hicmae.media.encode import whole_sound
from hicmae.media.frames_file import FramesFile, read_frames
from hicmae.media.probe import probe
from hicmae.prepare.frames import LARGEST_SIDE, make_frames_file, scan_frames
from hicmae.prepare.made_media import make_media, region_square
from tests import native_trees
from tests.media_files import read_picture_time, read_sound_time
from tests.test_prepare import prepare, rejects, report


def picture(number: int, size: tuple[int, int] = (32, 24)) -> np.ndarray:
    """A picture of its own for every number, uint8 (height, width, 3), smooth so that JPEG keeps it."""
    width, height = size
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 5 % 256, columns * 4 % 256, np.full_like(rows, number * 10 % 256)], axis=2).astype(np.uint8)


def save(path: Path, image: np.ndarray) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))
    return path.read_bytes()


def decoded(file: FramesFile) -> list[np.ndarray]:
    return [simplejpeg.decode_jpeg(file.jpeg(i)) for i in range(len(file.times_s))]


def made(folder: Path, **options: Any) -> FramesFile:
    return read_frames(make_frames_file(folder, name="clip", **({"frame_rate": 25.0} | options)), "clip")


def test_jpegs_are_taken_byte_for_byte_in_natural_order(tmp_path: Path) -> None:
    data = {number: save(tmp_path / f"{number}.jpg", picture(number)) for number in (1, 2, 3, 9, 10, 11, 12)}
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "boxes.txt").write_text("no picture")
    file = made(tmp_path)
    assert [bytes(file.jpeg(i)) for i in range(7)] == list(data.values())
    assert (file.width, file.height) == (32, 24)
    # frames 4 to 8 are missing: the third stays on screen
    np.testing.assert_allclose(file.times_s, np.array([0, 1, 2, 8, 9, 10, 11]) / 25)
    assert file.end_s == pytest.approx(12 / 25)


def test_frames_fill_the_time_of_the_sound(tmp_path: Path) -> None:
    for number in range(0, 40, 5):
        save(tmp_path / f"frame_det_00_{number:06d}.jpg", picture(number))
    file = made(tmp_path, frame_rate=None, start_s=0.5, end_s=2.5)
    np.testing.assert_allclose(file.times_s, 0.5 + np.arange(8) * 0.25)
    assert file.end_s == pytest.approx(2.5)
    with pytest.raises(DecodeError, match="no sound whose time") as error:
        made(tmp_path, frame_rate=None)
    assert error.value.reason == "no_frame_times"


@pytest.mark.parametrize("kind", ["png", "bmp"])
def test_other_pictures_are_encoded_well(tmp_path: Path, kind: str) -> None:
    for number in range(4):
        save(tmp_path / f"{number}.{kind}", picture(number))
    for number, frame in enumerate(decoded(made(tmp_path))):
        assert np.abs(frame.astype(int) - picture(number)).mean() < 2


def test_pictures_of_several_sizes_become_squares_of_one(tmp_path: Path) -> None:
    for number, size in enumerate([(40, 40), (60, 44), (41, 41), (44, 90), (40, 42)]):
        image = np.full((size[1], size[0], 3), 20, dtype=np.uint8)
        side = min(size)
        top, left = (size[1] - side) // 2, (size[0] - side) // 2
        image[top : top + side, left : left + side] = 100 + number
        save(tmp_path / f"{number}.jpg", image)
    file = made(tmp_path)
    assert (file.width, file.height) == (40, 40)
    for number, frame in enumerate(decoded(file)):
        assert np.abs(frame[4:-4, 4:-4].astype(int) - (100 + number)).max() <= 3


def test_large_pictures_are_scaled_down(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg", picture(1, (LARGEST_SIDE + 200, LARGEST_SIDE + 100)))
    file = made(tmp_path)
    assert (file.width, file.height) == (LARGEST_SIDE, LARGEST_SIDE)


@pytest.mark.parametrize(
    ("files", "reason", "found"),
    [
        ({}, "no_frames", "nothing"),
        ({"a.mp4": b"1", "b.mp4": b"2"}, "no_frames", "2 mp4"),
        ({"1.jpg": b"", "2.jpg": b""}, "corrupt_frames", "1.jpg"),
        ({"1.png": b"\x89PNG\r\n\x1a\n"}, "corrupt_frames", "1.png"),
        ({"1.jpg": None, "2.jpg": b"half"}, "corrupt_frames", "2.jpg"),
        ({"1.jpg": None, "2.jpg": b"gap"}, "corrupt_frames", "2.jpg"),
        ({"1.jpg": None, "2.jpg": None, "9.jpg": None}, "missing_frames", "3 of 9"),
    ],
)
def test_frames_that_cannot_be_used(tmp_path: Path, files: dict[str, bytes | None], reason: str, found: str) -> None:
    for name, data in files.items():
        whole = save(tmp_path / name, picture(1)) if data in (None, b"half", b"gap") else data
        cut = {b"half": whole[: len(whole) // 2], b"gap": whole[: len(whole) - 60] + b"\xff\xd9"} if data else {}
        (tmp_path / name).write_bytes(cut.get(data, whole))
    with pytest.raises(DecodeError, match=found) as error:
        made(tmp_path)
    assert error.value.reason == reason
    with pytest.raises(DecodeError) as error:
        scan_frames(tmp_path / "none", "clip")
    assert error.value.reason == "missing_file"


def test_names_of_frames_with_numbers_of_any_length(tmp_path: Path) -> None:
    for number in (10**30, 10**30 + 2, 10**30 + 6):
        (tmp_path / f"{number}.jpg").touch()
    assert scan_frames(tmp_path, "clip").positions == (0, 1, 3)
    (tmp_path / "7_1.jpg").touch()
    (tmp_path / "8_1.jpg").touch()  # the last number counts nothing
    assert scan_frames(tmp_path, "clip").positions == (0, 1, 2, 3, 4)


def test_face_pictures_and_sound_files_of_a_corpus(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    native = native_trees.build_dfew_frames(root)
    assert prepare("dfew", root, out) == 0
    assert rejects(out) == {}
    manifest = read_manifest(out / "manifest.csv")
    sources = ManifestSource(manifest), ShardSource(out / "shards")
    stored = {sources[1].info(n).clip_id: sources[1].read(n) for n in range(len(sources[1]))}
    for number, found in enumerate(native.clips):
        clip = manifest.clips[number]
        assert clip.clip_id == found.clip.clip_id
        assert clip.video == out / "media" / f"{clip.clip_id}.frames"
        assert clip.audio is not None
        assert clip.audio.resolve() == found.clip.audio
        assert (clip.split, clip.labels) == (found.clip.split, found.clip.labels)
        read = sources[0].read(number)
        assert (stored[clip.clip_id].video, stored[clip.clip_id].audio) == (read.video, read.audio)
        assert read.video is not None
        file = read_frames(read.video, clip.clip_id)
        assert found.clip.video is not None
        pictures = [native_trees.face_frame(n) for n in range(1, native_trees.FRAMES + 1)]
        assert [bytes(file.jpeg(i)) for i in range(len(file.times_s))] == pictures
        np.testing.assert_allclose(
            file.times_s, np.arange(native_trees.FRAMES) * native_trees.SECONDS / native_trees.FRAMES
        )


@pytest.mark.parametrize("storage", ["h264", "jpeg"])
def test_face_pictures_are_re_encoded_with_the_sound_of_the_films(tmp_path: Path, storage: str) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    native = native_trees.build_mafw_frames(root)
    assert prepare("mafw", root, out, "--format", storage, "--size", "48", "--audio", "wav") == 0
    clip = read_manifest(out / "manifest.csv").clips[0]
    assert clip.audio == out / "media" / f"{clip.clip_id}.flac"
    with open_media(clip.audio.read_bytes(), "sound") as media:
        assert media.sound is not None
        sound = whole_sound(media.sound, 1.0, 2.0, "sound")
    assert sound is not None
    assert read_sound_time(sound / 32768, 16_000, 1.0) == pytest.approx(1.0, abs=0.003)
    source = ShardSource(out / "shards")
    assert len(source) == len(native.clips)
    stored = source.read(0)
    assert stored.video is not None
    info = probe(stored.video, name="stored")
    assert (info.width, info.height) == (48, 48)
    assert info.duration_s == pytest.approx(native_trees.SECONDS, abs=0.01)
    if storage == "jpeg":
        file = read_frames(stored.video, "stored")
        times = np.arange(native_trees.FRAMES) * native_trees.SECONDS / native_trees.FRAMES
        np.testing.assert_allclose(file.times_s, times, atol=1e-6)
        assert [read_picture_time(frame) for frame in decoded(file)] == [0.4] * native_trees.FRAMES


def test_sound_that_was_lost_is_made_again(tmp_path: Path) -> None:
    film = native_trees.write(tmp_path / "film.mp4", native_trees.film("mp4"))
    native = NativeClip(clip=Clip(clip_id="clip", video=native_trees.put_frames(tmp_path / "faces"), audio=film))
    sound = tmp_path / "out" / "media" / "clip.flac"
    make_media([native], tmp_path / "out", faces=None)
    whole = sound.read_bytes()
    sound.write_bytes(whole[:100])
    make_media([native], tmp_path / "out", faces=None)
    assert sound.read_bytes() == whole


def test_faces_of_a_silent_film_fill_its_time(tmp_path: Path) -> None:
    film = native_trees.write(tmp_path / "film.mp4", native_trees.silent_film())
    clip = Clip(clip_id="clip", video=native_trees.put_frames(tmp_path / "faces"), audio=film)
    made_media = make_media([NativeClip(clip=clip)], tmp_path / "out", faces=None)
    assert made_media.rejected == ()
    (row,) = made_media.rows
    assert row.video is not None
    assert row.audio is None
    assert read_frames(row.video.read_bytes(), "clip").end_s == pytest.approx(native_trees.SECONDS)


def test_the_square_in_a_region() -> None:
    assert region_square((0.0, 0.5, 1.0, 1.0), 720, 480) == (60, 360, 360)
    assert region_square((0.2, 0.0, 0.8, 0.5), 720, 480) == (96, 36, 288)
    assert region_square((0.0, 0.0, 1.0, 1.0), 7, 5) == (0, 1, 5)


class FakeFaces:
    """Stands for the tracker's films: copies of the original, and no face in clips of some names."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, without: tuple[str, ...] = (), two_faces: str = "",
        die_after: int = 10**9,
    ):  # fmt: skip
        import hicmae.faces.cut
        import hicmae.faces.detector

        self.calls: dict[str, Any] = {}
        self.without, self.two_faces, self.left = without, two_faces, itertools.count(die_after, -1)
        monkeypatch.setattr(hicmae.faces.cut, "cut_face", self)
        monkeypatch.setattr(hicmae.faces.detector, "make_detector", lambda name, model: None)

    def __call__(self, clip: Clip, out: Path, *, tracker: Any, region: Any) -> FaceCut:
        if next(self.left) <= 0:
            raise KeyboardInterrupt
        self.calls[clip.clip_id] = (region, tracker.margin, tracker.detector, clip.span_s)
        if clip.clip_id in self.without:
            raise FaceNotFoundError(clip.clip_id, 1, 10, 0.5)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(native_trees.film("mp4"))
        two = clip.clip_id == self.two_faces
        shown = ((0.0, 0.0, 0.0, 20.0), (9.0, 1.0, 1.0, 20.0))
        return FaceCut(bytes=out.stat().st_size, share=0.5 if two else 1.0, contested=two, pieces=1, shown=shown)


def test_faces_are_followed_in_the_speakers_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    native = native_trees.build_iemocap(root)
    nobody, doubtful = "Ses02F_impro01_M000", "Ses03F_impro01_M000"
    faces = FakeFaces(monkeypatch, without=(nobody,), two_faces=doubtful)
    assert prepare("iemocap", root, out, "--faces", "--margin", "0.4", "--detector", "haar") == 0
    assert faces.calls == {found.clip.clip_id: (found.region, 0.4, "haar", found.clip.span_s) for found in native.clips}
    assert rejects(out) == {nobody: "no_face"}
    rows = {clip.clip_id: clip for clip in read_manifest(out / "manifest.csv").clips}
    assert set(rows) == {found.clip.clip_id for found in native.clips} - {nobody}
    for clip_id, clip in rows.items():
        assert clip.video == out / "faces" / f"{clip_id}.mp4"
        assert (clip.audio, clip.span_s, clip.square) == (None, None, None)
    assert f"1 clips show another face that is about as large and as central: {doubtful}" in report(out)["warnings"]
    with Image.open(out / "faces" / "sheet.png") as sheet:
        assert sheet.height == 12 * (14 + 120 + 6) + 6
    # short films: the originals are stored, not re-encoded
    assert str(ShardSource(out / "shards").storages[0]) == "original files"


class OneFace:
    """Finds a face of 30 pixels in the middle of what it is shown."""

    def detect(self, frame: np.ndarray) -> list[FaceBox]:
        height, width = frame.shape[:2]
        return [FaceBox(left=width / 2 - 15, top=height / 2 - 15, width=30, height=30, score=0.9)]


def test_face_films_are_written_by_the_tracker_itself(tmp_path: Path) -> None:
    found = native_trees.build_iemocap(tmp_path / "root").clips[1]
    tracker = FaceTracker(detector=OneFace(), margin=0.2)
    done = make_media([found], tmp_path / "out", faces=tracker)
    assert done.rejected == ()
    (row,) = done.rows
    assert row == replace(
        found.clip, video=tmp_path / "out" / "faces" / f"{found.clip.clip_id}.mp4", audio=None, start_s=None, end_s=None
    )
    assert row.video is not None
    info = probe(row.video, name="film")
    assert (info.has_video, info.has_audio, info.width, info.height) == (True, True, 224, 224)
    assert info.duration_s == pytest.approx(2.6, abs=0.05)


def test_folders_of_faces_skip_the_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = FakeFaces(monkeypatch)
    native_trees.build_dfew_frames(tmp_path / "root")
    assert prepare("dfew", tmp_path / "root", tmp_path / "out", "--faces", "--no-shards") == 0
    assert faces.calls == {}
    kept = "10 clips have no film in which to look for a face, and are taken as they are"
    assert kept in report(tmp_path / "out")["warnings"]
    assert f"warning: {kept}" in capsys.readouterr().out


def test_killed_it_goes_on_and_ends_as_if_undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    native = native_trees.build_ravdess(root)
    without = (native.clips[2].clip.clip_id,)
    with monkeypatch.context() as context:
        FakeFaces(context, without=without)
        assert prepare("ravdess", root, tmp_path / "undisturbed", "--faces") == 0
    with monkeypatch.context() as context:
        faces = FakeFaces(context, without=without, die_after=5)
        assert prepare("ravdess", root, out, "--faces") == 130
        assert len(faces.calls) == 5
    with (out / "made.jsonl").open("a") as file:
        file.write('\0\0\0\n{"id": "torn in the middle of a li')  # zeros: as after a power cut
    lost = out / "faces" / f"{native.clips[1].clip.clip_id}.mp4"
    lost.write_bytes(b"torn")  # as after a power cut
    (out / "faces" / ".half.1.tmp.mp4").write_bytes(b"left by the killed run")
    with monkeypatch.context() as context:
        faces = FakeFaces(context, without=without)
        assert prepare("ravdess", root, out, "--faces") == 0
        done = {found.clip.clip_id for found in (native.clips[0], *native.clips[2:5])}
        assert set(faces.calls) == {found.clip.clip_id for found in native.clips} - done
    names = ("manifest.csv", "rejects.csv", "report.md", "report.json", "shards/clips.arrow", "shards/shard-000000.tar")
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes(), name
    assert not list((out / "faces").glob(".*"))
    with monkeypatch.context() as context:
        faces = FakeFaces(context, without=without)
        assert prepare("ravdess", root, out, "--faces") == 0
        assert faces.calls == {}


def test_a_changed_corpus_and_other_options_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    native = native_trees.build_dfew_frames(root)
    assert prepare("dfew", root, out, "--no-shards") == 0
    before = (out / "manifest.csv").read_bytes()
    assert prepare("dfew", root, out) == 0  # shards come later
    (tmp_path / "elsewhere").mkdir()
    moved = root.rename(tmp_path / "elsewhere" / "root")
    assert prepare("dfew", moved, out) == 0  # the same clips at another place

    def refused(*more: str) -> str:
        capsys.readouterr()
        assert prepare("dfew", moved, out, *more) == 2
        return capsys.readouterr().err

    assert "storage: " in refused("--format", "jpeg")
    FakeFaces(monkeypatch)
    assert "faces: 'none' there" in refused("--faces")
    folder = native.clips[0].clip.video
    assert folder is not None
    folder = moved / folder.relative_to(root)
    extra = folder / f"{folder.name}_00016.jpg"
    extra.write_bytes(native_trees.face_frame(16))
    assert f"changed clips (1): {native.clips[0].clip.clip_id}" in refused()
    extra.unlink()
    assert prepare("dfew", moved, out) == 0
    assert (out / "manifest.csv").read_bytes().count(b"\n") == before.count(b"\n")


def test_processes_make_the_same_and_say_what_failed(tmp_path: Path) -> None:
    clips = []
    for number in range(3):
        folder = tmp_path / f"clip{number}"
        for frame in range(4):
            save(folder / f"{frame}.jpg", picture(10 * number + frame))
        clips.append(NativeClip(clip=Clip(clip_id=f"clip{number}", video=folder), frame_rate=25.0))
    (tmp_path / "clip1" / "2.jpg").write_bytes(b"\xff\xd8 no picture \xff\xd9")
    seen: list[tuple[int, int]] = []
    done = make_media(
        clips, tmp_path / "two", faces=None, workers=2, on_progress=lambda done, total: seen.append((done, total))
    )
    assert [row.clip_id for row in done.rows] == ["clip0", "clip2"]
    assert [(reject.clip_id, reject.reason) for reject in done.rejected] == [("clip1", "corrupt_frames")]
    assert seen[-1] == (3, 3)
    make_media(clips, tmp_path / "one", faces=None)
    for row in done.rows:
        assert row.video is not None
        assert row.video.read_bytes() == (tmp_path / "one" / "media" / row.video.name).read_bytes()
