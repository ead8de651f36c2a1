"""Windows along a file: where they lie, what they hold, and how little of a long file is in memory."""

from __future__ import annotations

import io
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.long_video import write_long_video
from hicmae.config import InputSpec
from hicmae.inference import windows as windows_module
from hicmae.inference.batches import batches_of, model_inputs
from hicmae.inference.items import MediaItem, media_item
from hicmae.inference.windows import ClipWindow, WindowSettings, read_windows
from hicmae.media import large_file, packets
from hicmae.media.batch_transform import BatchTransform
from hicmae.media.clip import DecodeError
from hicmae.media.decode import decode_windows, load_media
from hicmae.media.large_file import LargeFile
from hicmae.transform import ClipTransform
from tests.media_files import make_clip, read_picture_time

SPEC = InputSpec(image_size=64)


@lru_cache(maxsize=8)
def _clip(**settings: Any) -> bytes:
    return make_clip(io.BytesIO(), **settings)


def _windows(item: MediaItem, settings: WindowSettings | None = None, **kind: Any) -> list[ClipWindow]:
    with read_windows(item, SPEC, settings, **kind) as windows:
        found = list(windows)
        assert len(found) == windows.total
        return found


def test_windows_lie_side_by_side_and_the_last_one_ends_with_the_file() -> None:
    windows = _windows(MediaItem(name="a", video=_clip(seconds=16.0, gop=50)))
    starts = [window.start_s for window in windows]
    assert starts == pytest.approx([*np.arange(6) * 2.56, 16.0 - 2.56], abs=0.021)
    assert windows[-1].end_s == pytest.approx(16.0)
    for window in windows:
        assert window.frames is not None
        assert read_picture_time(window.frames[0]) == pytest.approx(window.start_s, abs=0.001)


@pytest.mark.parametrize("span_s", [None, (2.0, 9.5), (3.0, 4.0)])
def test_a_window_is_what_the_transform_gives_for_that_place(span_s: tuple[float, float] | None) -> None:
    data = _clip(seconds=16.0, gop=50)
    transform, batch_transform = ClipTransform(SPEC), BatchTransform(SPEC)
    item = MediaItem(name="a", video=data, span_s=span_s)
    with read_windows(item, SPEC, WindowSettings(hop_s=2.1)) as windows:
        places = windows.positions.tolist()[::3]
        for place, window in zip(places, list(windows)[::3], strict=True):
            theirs, ours = transform(data, place, span_s=span_s), model_inputs([window], batch_transform)
            for name in ("video", "log_mel"):
                assert torch.equal(ours[name], theirs[name])  # type: ignore[literal-required]


def test_a_short_file_gives_one_window_that_says_so() -> None:
    (short,) = _windows(MediaItem(name="a", video=_clip(seconds=1.0)))
    assert short.padded
    assert short.end_s == pytest.approx(1.0)
    (whole,) = _windows(MediaItem(name="a", video=_clip(seconds=2.56)))
    assert not whole.padded


def test_modalities_that_are_missing_or_not_wanted() -> None:
    silent = _windows(MediaItem(name="a", video=_clip(with_audio=False)))
    assert [window.modalities for window in silent] == [("video",)] * 2
    sound = _windows(MediaItem(name="a", audio=_clip(with_video=False, container="wav", audio_codec="pcm_s16le")))
    assert [window.modalities for window in sound] == [("audio",)] * 2
    both = MediaItem(name="a", video=_clip(seconds=7.0))
    wanted = _windows(both, modalities=("audio",))
    assert [window.start_s for window in wanted] == [window.start_s for window in _windows(both)]
    assert {window.modalities for window in wanted} == {("audio",)}


def test_batches_hold_windows_of_the_same_modalities() -> None:
    windows = _windows(MediaItem(name="a", video=_clip(seconds=14.0, audio_end_s=5.0)))
    sizes = [[window.modalities for window in batch] for batch in batches_of(windows, 3)]
    assert sizes == [[("video", "audio")] * 2, [("video",)] * 3, [("video",)]]


@pytest.mark.parametrize(
    "settings", [{"hop_s": 0.0}, {"hop_s": 1e-9}, {"hop_s": float("nan")}, {"hop_s": 1.0, "middle": True}]
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="hop_s="):
        WindowSettings(**settings)


STORED: dict[str, dict[str, Any]] = {
    "mp4, B-frames": dict(b_frames=3, gop=40, rate=44_100, channels=2),
    "open GOP": dict(b_frames=3, gop=20, video_options=(("x264-params", "open-gop=1"),)),
    "mkv": dict(container="matroska", b_frames=2, gop=30),
    "avi, reordered": dict(container="avi", b_frames=2, audio_codec="mp3", rate=16_000),
    "mp3": dict(container="mp3", with_video=False, audio_codec="mp3"),
    "plain wav": dict(container="wav", with_video=False, audio_codec="pcm_s16le"),
}


@pytest.mark.parametrize("stored", STORED)
def test_a_large_file_gives_what_a_small_one_gives(
    stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dict(STORED[stored])
    settings["video_options"] = dict(settings.get("video_options", ())) or None
    path = tmp_path / "film"
    data = make_clip(path, seconds=9.0, **settings)
    monkeypatch.setattr(large_file, "HELD_BYTES", 0)
    for limit in ("REMEMBERED_BYTES", "MOST_REMEMBERED_BYTES"):
        monkeypatch.setattr(packets, limit, 2000)  # so that it goes back to the begin of the file
    large = load_media(path)
    assert isinstance(large, LargeFile)
    places = (0.9, 0.0, 0.5)
    ours, theirs = (decode_windows(source, spec=SPEC, positions=places, name="x") for source in (large, data))
    for mine, other in zip(ours, theirs, strict=True):
        for name in vars(other):
            np.testing.assert_array_equal(getattr(mine, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("container", ["mp4", "matroska", "wav"])
def test_a_large_file_that_was_cut_short_is_noticed(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = dict(with_video=False, audio_codec="pcm_s16le") if container == "wav" else {}
    data = _clip(container=container, seconds=3.0, **sound)
    path = tmp_path / "film"
    path.write_bytes(data[: len(data) * 2 // 3])
    monkeypatch.setattr(large_file, "HELD_BYTES", 0)
    with pytest.raises(DecodeError) as caught:
        _windows(media_item(path))
    assert caught.value.reason in ("truncated", "unreadable")


def test_a_large_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film"
    path.write_bytes(_clip(seconds=9.0, gop=12))
    other = _clip(seconds=9.0, fps=50, gop=12)
    monkeypatch.setattr(large_file, "HELD_BYTES", 0)
    with read_windows(media_item(path), SPEC) as windows:
        path.write_bytes(other)
        with pytest.raises(DecodeError) as caught:
            list(windows)
        assert caught.value.reason == "changed_file"


def test_a_large_file_is_read_forwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film"
    path.write_bytes(_clip(seconds=15.36, gop=50))  # six windows, the last of which does not go back
    monkeypatch.setattr(large_file, "HELD_BYTES", 0)
    monkeypatch.setattr(packets, "REMEMBERED_BYTES", 0)
    monkeypatch.setattr(windows_module, "_TOGETHER", 1)
    begun: list[int] = []
    begin = packets.RereadPackets._begin
    monkeypatch.setattr(packets.RereadPackets, "_begin", lambda self: begun.append(self._stream) or begin(self))
    _windows(media_item(path))
    assert begun.count(0) == 1


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_file, "HELD_BYTES", 1 << 20)
    monkeypatch.setattr(packets, "REMEMBERED_BYTES", 2 << 20)
    clip = _clip(seconds=4.0, size=(128, 128), noise=80, gop=25)
    path = write_long_video(clip, tmp_path / "film.mp4", seconds=600, clip_s=4.0)
    size = path.stat().st_size
    assert size > 40e6
    settings = WindowSettings(hop_s=60.0)
    list(_windows(MediaItem(name="a", video=clip), settings))  # what is loaded once
    before, most = _resident(), 0
    with read_windows(media_item(path), SPEC, settings) as windows:
        assert windows.total == 11
        for window in windows:
            most = max(most, _resident() - before)
            assert window.frames is not None
    assert most < size / 3


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
