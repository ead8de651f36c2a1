"""Memory stays flat over thousands of decodes: a job decodes millions in each worker."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from hicmae.media.encode import encode_clip
from tests.media_files import make_clip

DECODES, WARM_UP = 2000, 400
LEAK_BYTES = 2048  # a decode; over the counted decodes this makes 3.1 MiB

PROGRAM = """
import os, sys
from pathlib import Path
from hicmae.config import InputSpec
from hicmae.media.decode import decode_windows, DecodeError

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

video, audio, pixels, decodes, warm_up, broken = sys.argv[1:]
data = Path(video).read_bytes()
sound = Path(audio).read_bytes() if audio else None
spec = InputSpec(image_size=32, num_frames=4)
for number in range(int(decodes)):
    if number == int(warm_up):
        before = resident()
    try:
        decode_windows(data, sound, spec=spec, positions=(number % 7 / 7,), pixels=pixels, name="x")
    except DecodeError:
        assert broken == "broken"
    else:
        assert broken == "whole"
print(resident() - before)
"""


def _files(kind: str) -> tuple[bytes, bytes | None]:
    film = make_clip(io.BytesIO(), size=(32, 32), b_frames=2, seconds=0.8)
    if kind in ("original", "broken"):
        return (film if kind == "original" else film[: film.index(b"moov") - 500]), None
    video_format, audio_format = kind.split("+")
    members = encode_clip(film, video_format=video_format, audio_format=audio_format, size=32, name="x")  # type: ignore[arg-type]
    assert members.video is not None
    return members.video, members.audio


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of a process from /proc")
@pytest.mark.parametrize("kind", ["original", "h264+aac", "h264+flac", "jpeg+wav", "broken"])
def test_memory_is_flat(kind: str, tmp_path: Path) -> None:
    video, audio = _files(kind)
    (tmp_path / "video").write_bytes(video)
    if audio is not None:
        (tmp_path / "audio").write_bytes(audio)
    arguments = [
        str(tmp_path / "video"),
        str(tmp_path / "audio") if audio is not None else "",
        "yuv420p" if kind.startswith("h264") else "rgb24",
        str(DECODES),
        str(WARM_UP),
        "broken" if kind == "broken" else "whole",
    ]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=True, capture_output=True, text=True)
    assert int(done.stdout) < LEAK_BYTES * (DECODES - WARM_UP)
