"""A small corpus of real mp4 files for tests of data: made once a session, a few kilobytes a clip."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from hicmae.data.manifest import Clip, Manifest, read_manifest, write_manifest
from tests.media_files import make_clip

EMOTIONS = ("angry", "happy", "neutral")


@functools.cache
def clip_bytes(seconds: float = 2.8, *, sound_only: bool = False) -> bytes:
    """An mp4 (or wav) whose picture and sound carry the time."""
    import io

    if sound_only:
        return make_clip(io.BytesIO(), seconds=seconds, with_video=False, container="wav", audio_codec="pcm_s16le")
    return make_clip(io.BytesIO(), seconds=seconds, size=(48, 48), rate=8000)


def make_corpus(folder: Path, count: int, *, corrupt: Sequence[int] = (), text: Sequence[int] = ()) -> Manifest:
    """``count`` clips of two lengths with a manifest; those in ``corrupt`` are cut short, in ``text`` are text."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        data = clip_bytes((2.8, 3.6)[i % 2])
        if i in corrupt:
            data = data[: len(data) // 2]
        if i in text:
            data = b"this is not a video\n" * 20
        path = folder / f"clip{i:03d}.mp4"
        path.write_bytes(data)
        labels: dict[str, str | float] = {"emotion": EMOTIONS[i % 3], "valence": i / count}
        rows.append(
            Clip(
                clip_id=f"clip{i:03d}", video=path, subject=f"subject{i % 4}", split=("train", "test")[i % 4 == 3],
                labels=labels,
            )
        )  # fmt: skip
    return read_manifest(write_manifest(folder / "manifest.csv", rows))
