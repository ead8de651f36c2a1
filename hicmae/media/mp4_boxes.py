"""The boxes of an mp4, walked before FFmpeg sees them.

FFmpeg passes over a box that is cut short or damaged without complaint; a film has then lost its end, its sound or its
picture.

Boxes: ISO/IEC 14496-12, section 4.2 (size, type, body) and table 1 (which box holds which).
"""

from __future__ import annotations

from collections.abc import Iterator

from hicmae.media.clip import DecodeError
from hicmae.media.large_file import MediaData

FETCH_AGAIN = "fetch or export the file again, or drop it from the manifest"

_NEEDED: dict[bytes, tuple[tuple[bytes, ...], ...]] = {
    b"moov": (),
    b"trak": ((b"tkhd",), (b"mdia",)),
    b"mdia": ((b"mdhd",), (b"hdlr",), (b"minf",)),
    b"minf": ((b"stbl",),),
    b"stbl": ((b"stsd",), (b"stts",), (b"stsc",), (b"stsz", b"stz2"), (b"stco", b"co64")),
}
"""Boxes that are looked into, and what each must hold: one of each group."""

_LETTERS = frozenset(range(32, 127)) | {0xA9}
"""Bytes of a box's type; 0xA9 begins some of QuickTime's own."""


def check_boxes(data: MediaData, name: str) -> None:
    """Every box must be whole, the index (moov) must be there, and each of its tracks must hold what a track needs.

    Raises:
        DecodeError: ``truncated`` where the end of the file is missing, ``unreadable`` where boxes do not fit.
    """
    seen = set()
    for kind, begin, end in _boxes(data, 0, len(data), name, within=b""):
        seen.add(kind)
        if kind == b"moov":
            _check_inside(data, kind, begin, end, name)
    if b"moov" not in seen:
        raise truncated(name, f"its index (box 'moov') is missing from the {len(data)} bytes")


def truncated(name: str, found: str) -> DecodeError:
    """The error for a file whose end is missing."""
    return DecodeError(name, "truncated", f"the file was cut short: {found}", FETCH_AGAIN)


def _check_inside(data: MediaData, kind: bytes, begin: int, end: int, name: str) -> None:
    seen = set()
    for child, child_begin, child_end in _boxes(data, begin, end, name, within=kind):
        seen.add(child)
        if child in _NEEDED:
            _check_inside(data, child, child_begin, child_end, name)
    for group in _NEEDED[kind]:
        if not seen.intersection(group):
            raise _damaged(name, f"box {_text(kind)} at byte {begin} has no {_text(group[0])}")


def _boxes(data: MediaData, position: int, end: int, name: str, *, within: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, begin of the body, end of the body) of each box; ``within`` is the box they lie in, empty for the file."""
    while position + 8 <= end:
        length, header = int.from_bytes(data[position : position + 4], "big"), 8
        kind = bytes(data[position + 4 : position + 8])
        if length == 1:
            length, header = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        elif length == 0 and not within:
            length = end - position  # the last box of a file may say so
        if within and not _LETTERS.issuperset(kind):
            raise _damaged(name, f"a box of type {kind!r} at byte {position}, within {_text(within)}")
        if length < header:
            raise _damaged(name, f"an mp4 box of {length} bytes at byte {position}")
        if position + length > end and within:
            raise _damaged(name, f"box {_text(kind)} at byte {position} reaches out of {_text(within)}")
        if position + length > end:
            missing = position + length - end
            raise truncated(name, f"box {_text(kind)} at byte {position} lacks {missing} of its {length} bytes")
        yield kind, position + header, position + length
        position += length


def _text(kind: bytes) -> str:
    return f"'{kind.decode('ascii', 'backslashreplace')}'"


def _damaged(name: str, found: str) -> DecodeError:
    return DecodeError(name, "unreadable", f"its index is damaged: {found}", FETCH_AGAIN)
