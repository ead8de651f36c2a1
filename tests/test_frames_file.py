from __future__ import annotations

import struct

import numpy as np
import pytest
import simplejpeg

from hicmae.media.clip import DecodeError
from hicmae.media.frames_file import MAGIC, is_frames_file, pack_frames, read_frames

TIMES = np.array([0.0, 0.04, 0.1, 0.12])
HEAD, COUNT = 28, len(TIMES)
OFFSETS = HEAD + 8 * COUNT
BODY = OFFSETS + 4 * (COUNT + 1)


def jpegs() -> list[bytes]:
    rng = np.random.default_rng(0)
    return [simplejpeg.encode_jpeg(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)) for _ in TIMES]


@pytest.fixture(scope="module")
def packed() -> bytes:
    return pack_frames(jpegs(), TIMES, 0.16, width=32, height=24, name="a")


def test_what_is_written_is_read(packed: bytes) -> None:
    file = read_frames(packed, "a")
    assert (file.width, file.height, file.end_s) == (32, 24, 0.16)
    assert file.times_s.tolist() == TIMES.tolist()
    assert [bytes(file.jpeg(i)) for i in range(COUNT)] == jpegs()
    assert simplejpeg.decode_jpeg(file.jpeg(2)).shape == (24, 32, 3)


def test_layout_is_the_documented_one(packed: bytes) -> None:
    assert struct.unpack_from("<8sIHHId", packed) == (b"HCMFRM01", 4, 32, 24, 0, 0.16)
    assert struct.unpack_from("<4d", packed, HEAD) == tuple(TIMES)
    first, second = struct.unpack_from("<2I", packed, OFFSETS)
    assert packed[BODY + first : BODY + second] == jpegs()[0]


def test_frames_are_not_copied(packed: bytes) -> None:
    assert read_frames(packed, "a").jpeg(1).obj is packed


def test_files_of_frames_are_told_from_others(packed: bytes) -> None:
    assert is_frames_file(packed)
    assert not is_frames_file(b"")
    assert not is_frames_file(b"\x00\x00\x00\x18ftypmp42")


def test_every_cut_is_found(packed: bytes) -> None:
    for size in range(len(packed)):
        with pytest.raises(DecodeError) as caught:
            read_frames(packed[:size], "clip7")
        assert caught.value.reason == ("truncated" if size >= len(MAGIC) else "unreadable")
        assert "clip7" in str(caught.value)


@pytest.mark.parametrize(
    ("position", "form", "value", "found"),
    [
        (0, "<B", 0, "does not begin"),
        (8, "<I", 0, "0 frames"),
        (8, "<I", COUNT - 1, "do not ascend|do not follow"),
        (12, "<H", 0, "0x24"),
        (14, "<H", 0, "32x0"),
        (16, "<I", 1, "reserved field 1"),
        (20, "<d", 0.12, "do not ascend"),
        (20, "<d", float("inf"), "do not ascend"),
        (HEAD, "<d", float("nan"), "do not ascend"),
        (HEAD, "<d", float("-inf"), "do not ascend"),
        (HEAD + 8, "<d", 0.0, "do not ascend"),
        (HEAD + 8, "<d", 0.5, "do not ascend"),
        (OFFSETS, "<I", 4, "do not follow"),
        (OFFSETS + 4, "<I", 0, "do not follow"),
        (OFFSETS + 4, "<I", 2**32 - 1, "do not follow"),
        (OFFSETS + 4, "<I", 40, "frame . is no whole JPEG"),
        (OFFSETS + 4 * COUNT, "<I", 2**32 - 1, "bytes of frames are in the file"),
        (BODY, "<B", 0, "frame 0 is no whole JPEG"),
    ],
)
def test_a_damaged_table_is_refused(packed: bytes, position: int, form: str, value: float, found: str) -> None:
    damaged = bytearray(packed)
    struct.pack_into(form, damaged, position, value)
    with pytest.raises(DecodeError, match=found) as caught:
        read_frames(bytes(damaged), "a")
    assert caught.value.reason in ("unreadable", "truncated")


def test_bytes_behind_the_last_frame_are_refused(packed: bytes) -> None:
    with pytest.raises(DecodeError, match="3 bytes follow"):
        read_frames(packed + b"abc", "a")


def test_what_could_not_be_read_is_not_written() -> None:
    frames = jpegs()
    with pytest.raises(ValueError, match="4 frames with 3 times"):
        pack_frames(frames, TIMES[:3], 0.16, width=32, height=24, name="a")
    with pytest.raises(ValueError, match="do not ascend"):
        pack_frames(frames, TIMES[::-1], 0.16, width=32, height=24, name="a")
    with pytest.raises(ValueError, match="within 1 and 65535"):
        pack_frames(frames, TIMES, 0.16, width=70_000, height=24, name="a")
    with pytest.raises(ValueError, match="0 frames"):
        pack_frames([], [], 0.16, width=32, height=24, name="a")
    with pytest.raises(ValueError, match="frame 1 is no whole JPEG"):
        pack_frames([frames[0], b"12345678", *frames[2:]], TIMES, 0.16, width=32, height=24, name="a")
