"""Small media files damaged at random, byte by byte, and what decoding makes of each.

A mutation is a pure function of (base file, kind, number), so a failure can be repeated by its name alone:
``mutate(bases()[name], kind, number)``. Run as a program, this module is the process that decodes them: it takes one
mutation a line and answers with one outcome a line, so that a crash or a hang belongs to the line in hand.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import re
import resource
import signal
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hicmae.config import InputSpec
from hicmae.media.decode import DecodedClip, DecodeError, decode_clip, probe
from hicmae.media.encode import encode_clip
from hicmae.media.frames_file import is_frames_file, read_frames
from tests.clip_truth import Truth
from tests.media_files import frame_times, make_clip

SPEC = InputSpec(image_size=64)
SECONDS = 3.0
MEMORY_NET_BYTES = 4 << 30
"""The decoding process can have no more than this, so that a mutation cannot take the machine down."""
_HUGE = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x00FFFFFF, 0x01000000)


@dataclass(frozen=True, kw_only=True)
class Base:
    """A whole file that is damaged, and perhaps one beside it that stays whole."""

    name: str
    damaged: bytes
    payload: tuple[int, int]
    """Where pictures and sound lie in ``damaged``; the rest describes them."""
    picture: bytes | None = None
    """The picture file, where ``damaged`` is a sound file of its own."""
    sound: bytes | None = None
    """The sound file, where ``damaged`` is a picture file of its own."""
    truth: Truth = field(default_factory=Truth)

    def decode(self, data: bytes, position: float) -> DecodedClip:
        """A window of the clip with ``data`` in the place of ``damaged``."""
        video, audio = (data, self.sound) if self.picture is None else (self.picture, data)
        return decode_clip(video, audio, spec=SPEC, position=position, name=self.name)


def bases() -> dict[str, Base]:
    """The files that are damaged, by name; built anew by each call."""
    common: dict[str, Any] = {"seconds": SECONDS, "noise": 6}
    films: dict[str, dict[str, Any]] = {
        "mp4": {},
        "faststart": {"faststart": True},
        "b_frames": {"b_frames": 2, "gop": 75},
        "vfr": {"vfr": True},
        "matroska": {"container": "matroska"},
        "avi": {"container": "avi", "audio_codec": "pcm_s16le"},
    }
    sounds = {"wav": ("wav", "pcm_s16le"), "flac": ("flac", "flac"), "m4a": ("mp4", "aac")}
    found: dict[str, Base] = {}
    for name, settings in films.items():
        data = make_clip(io.BytesIO(), **common | settings)
        times = tuple(map(float, frame_times(SECONDS, 25, vfr=bool(settings.get("vfr")))))
        found[name] = Base(name=name, damaged=data, payload=_payload(data), truth=Truth(times_s=times))
    silent = make_clip(io.BytesIO(), **common, with_audio=False)
    for name, (container, codec) in sounds.items():
        data = make_clip(io.BytesIO(), seconds=SECONDS, with_video=False, container=container, audio_codec=codec)
        found[name] = Base(name=name, damaged=data, payload=_payload(data), picture=silent)
    stored = encode_clip(found["mp4"].damaged, video_format="h264", audio_format="aac", size=64, name="stored")
    frames = encode_clip(found["mp4"].damaged, video_format="jpeg", audio_format="wav", size=64, name="frames")
    assert stored.video is not None
    assert frames.video is not None
    found["stored"] = Base(name="stored", damaged=stored.video, payload=_payload(stored.video))
    found["frames"] = Base(name="frames", damaged=frames.video, payload=_payload(frames.video), sound=frames.audio)
    assert frames.audio is not None
    found["plain_wav"] = Base(name="plain_wav", damaged=frames.audio, payload=_payload(frames.audio), picture=silent)
    return found


def _payload(data: bytes) -> tuple[int, int]:
    if data[4:8] == b"ftyp":
        begin = data.index(b"mdat") - 4
        return begin + 8, begin + int.from_bytes(data[begin : begin + 4], "big")
    if is_frames_file(data):
        return len(data) - len(read_frames(data, "frames").data), len(data)
    marks = {
        b"RIFF": b"movi" if data[8:12] == b"AVI " else b"data",
        b"fLaC": b"\xff\xf8",
        b"\x1a\x45\xdf\xa3": b"\x1f\x43\xb6\x75",
    }
    mark = next(mark for magic, mark in marks.items() if data.startswith(magic))
    return data.index(mark) + 8, len(data)


def _outside(rng: random.Random, base: Base) -> int:
    """A place in what describes the media."""
    begin, end = base.payload
    place = rng.randrange(len(base.damaged) - (end - begin))
    return place if place < begin else place + end - begin


def _inside(rng: random.Random, base: Base) -> int:
    return rng.randrange(*base.payload)


def _anywhere(rng: random.Random, base: Base) -> int:
    return _outside(rng, base) if rng.random() < 0.3 else _inside(rng, base)


def _flip(rng: random.Random, base: Base, place: Callable[[random.Random, Base], int], count: int) -> bytes:
    data = bytearray(base.damaged)
    for _ in range(count):
        data[place(rng, base)] ^= 1 << rng.randrange(8)
    return bytes(data)


def _block(rng: random.Random, base: Base) -> tuple[int, int]:
    begin = _anywhere(rng, base)
    return begin, min(len(base.damaged), begin + rng.choice((1, 4, 40, 400, 4000)))


def _replaced(base: Base, begin: int, end: int, by: bytes) -> bytes:
    return base.damaged[:begin] + by + base.damaged[end:]


def _delete(rng: random.Random, base: Base) -> bytes:
    return _replaced(base, *_block(rng, base), b"")


def _duplicate(rng: random.Random, base: Base) -> bytes:
    begin, end = _block(rng, base)
    return _replaced(base, end, end, base.damaged[begin:end])


def _zero(rng: random.Random, base: Base) -> bytes:
    begin, end = _block(rng, base)
    return _replaced(base, begin, end, bytes(end - begin))


def _scramble(rng: random.Random, base: Base) -> bytes:
    begin, end = _block(rng, base)
    return _replaced(base, begin, end, rng.randbytes(end - begin))


def _swap(rng: random.Random, base: Base) -> bytes:
    """Two blocks of one length change places."""
    size = rng.choice((4, 40, 400))
    first, second = sorted(min(_anywhere(rng, base), len(base.damaged) - size) for _ in range(2))
    data = bytearray(base.damaged)
    if first + size <= second:
        data[first : first + size], data[second : second + size] = (
            data[second : second + size],
            data[first : first + size],
        )
    return bytes(data)


def _cut(rng: random.Random, base: Base) -> bytes:
    return base.damaged[: _anywhere(rng, base)]


def _huge(rng: random.Random, base: Base) -> bytes:
    """A number of what describes the media becomes an extreme one; at a box's length or count where there is one."""
    begin, end = base.payload
    names = [m.start() for m in re.finditer(rb"[a-zA-Z]{4}", base.damaged) if not begin <= m.start() < end]
    place = rng.choice(names) + rng.choice((-4, 4, 8, 12, 16)) if rng.random() < 0.8 else _outside(rng, base)
    place = min(max(0, place), len(base.damaged) - 4)
    return _replaced(base, place, place + 4, rng.choice(_HUGE).to_bytes(4, rng.choice(("big", "little"))))


KINDS: dict[str, Callable[[random.Random, Base], bytes]] = {
    "one bit of the headers": lambda rng, base: _flip(rng, base, _outside, 1),
    "eight bits of the headers": lambda rng, base: _flip(rng, base, _outside, 8),
    "one bit of the media": lambda rng, base: _flip(rng, base, _inside, 1),
    "thirty bits of the media": lambda rng, base: _flip(rng, base, _inside, 30),
    "a block deleted": _delete,
    "a block twice": _duplicate,
    "a block of zeros": _zero,
    "a block of noise": _scramble,
    "two blocks swapped": _swap,
    "cut": _cut,
    "a huge number": _huge,
}
SPLICE = "spliced with another file"
CRASH, HANG, HUNGER = "a crash", "a hang", "all memory"
"""No mutations: what they do to the decoding process shows that it is watched."""


def mutate(found: dict[str, Base], name: str, kind: str, number: int) -> bytes:
    """The mutated bytes: the ``number``-th of its kind of the base file ``name``."""
    rng = random.Random(zlib.crc32(f"{name} {kind} {number}".encode()))
    base = found[name]
    if kind == SPLICE:
        other = found[rng.choice(sorted(set(found) - {name}))]
        return base.damaged[: _anywhere(rng, base)] + other.damaged[_anywhere(rng, other) :]
    return KINDS[kind](rng, base)


def plan(found: dict[str, Base], each: int) -> list[tuple[str, str, int]]:
    """``each`` mutations of every kind of every base file: (base, kind, number)."""
    return [(name, kind, number) for name in found for kind in (*KINDS, SPLICE) for number in range(each)]


def position_of(number: int) -> float:
    """Which window of a mutation is decoded."""
    return (0.0, 0.5, 1.0)[number % 3]


def outcome(found: dict[str, Base], name: str, kind: str, number: int) -> dict[str, Any]:
    """Decode a mutation: ``result`` is refused, right, wrong or error, and ``detail`` says which or what."""
    started = time.process_time()
    try:
        if kind == HUNGER:
            bytearray(MEMORY_NET_BYTES)
        result, detail = _decode(found[name], mutate(found, name, kind, number), position_of(number))
    except Exception as error:
        result, detail = "error", f"{type(error).__name__}: {error}"
    return {
        "result": result,
        "detail": detail,
        "cpu_s": time.process_time() - started,
        "peak_mb": _peak_mb(),
    }


def _peak_mb() -> float:
    """Most memory that this process has had resident; ``ru_maxrss`` would begin with what its parent had."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _decode(base: Base, data: bytes, position: float) -> tuple[str, str]:
    with contextlib.suppress(DecodeError):  # decoding need not agree, as it looks at other frames
        probe(data, name=base.name)
    try:
        clip = base.decode(data, position)
    except DecodeError as error:
        return "refused", error.reason
    problems = base.truth.faults(clip, SPEC)
    return ("wrong", ", ".join(problems)) if problems else ("right", "")


def read_bases(folder: Path) -> dict[str, Base]:
    """What ``write_bases`` wrote."""
    return pickle.loads((folder / "bases.pickle").read_bytes())  # noqa: S301


def write_bases(found: dict[str, Base], folder: Path) -> None:
    """Hand the base files to another process: encoders promise no equal bytes."""
    (folder / "bases.pickle").write_bytes(pickle.dumps(found))


def serve(folder: Path) -> None:
    """Answer each line of stdin, ``[base, kind, number]``, with a line of JSON on stdout."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_NET_BYTES, MEMORY_NET_BYTES))
    found = read_bases(folder)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        name, kind, number = json.loads(line)
        if kind == CRASH:
            os.abort()
        if kind == HANG:
            signal.pause()
        sys.stdout.write(json.dumps(outcome(found, name, kind, number)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
