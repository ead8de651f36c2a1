"""Contact sheet of face clips: frames of the original with the square drawn, each beside what was written for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hicmae.faces.cut import FaceCut
from hicmae.faces.detector import need
from hicmae.media.clip import DecodeError
from hicmae.media.container import open_media
from hicmae.media.probe import read_media_file
from hicmae.media.pyav_decoder import decode_frames
from hicmae.media.square import Frame, display_size

SHEET_NAME = "sheet.png"
MOST_ROWS = 12
_TILE, _CAPTION, _GAP = 120, 14, 6
_WIDEST = 16 / 9


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """A clip on the sheet."""

    clip_id: str
    video: Path
    """The original."""
    face_clip: Path
    cut: FaceCut

    @property
    def title(self) -> str:
        """Which clip it is, and what is doubtful about it."""
        remarks = ["another face as large"] * self.cut.contested + [f"{self.cut.pieces} pieces"] * (self.cut.pieces > 1)
        return ", ".join([f"{self.clip_id}: found in {self.cut.share:.0%}", *remarks])


def draw_sheet(clips: Sequence[SheetRow], path: Path) -> Path:
    """Write a PNG, atomically: one clip a row. A row that cannot be decoded any more says so.

    Of more than ``MOST_ROWS`` clips so many are shown, from the one in which the face was found least often to the one
    in which it was found most.
    """
    image = need("PIL.Image")
    ranked = sorted(clips, key=lambda clip: clip.cut.share)
    count = min(MOST_ROWS, len(ranked))
    strips = [_strip(ranked[round(step * (len(ranked) - 1) / max(1, count - 1))]) for step in range(count)]
    width = max(strip.width for strip in strips) + 2 * _GAP
    height = sum(strip.height + _GAP for strip in strips) + _GAP
    sheet = image.new("RGB", (width, height), "white")
    top = _GAP
    for strip in strips:
        sheet.paste(strip, (_GAP, top))
        top += strip.height + _GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        sheet.save(draft, format="PNG")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _strip(row: SheetRow) -> Any:
    """Title, and frame and face side by side for each frame shown."""
    image, draw = need("PIL.Image"), need("PIL.ImageDraw")
    tiles: list[Any] = []
    problem = ""
    try:
        shown = row.cut.shown
        frames = _frames(row.video, [int(number) for number, *_ in shown])
        last = len(shown) - 1  # they are evenly spread over the frames of the face clip
        faces = _frames(row.face_clip, [step / max(1, last) for step in range(len(shown))])
        for (_, *square), frame, face in zip(shown, frames, faces, strict=True):
            tiles += [_with_square(frame, square), face.resize((_TILE, _TILE))]
    except DecodeError as error:
        problem = str(error)
    width = max(3 * (round(_TILE * _WIDEST) + _TILE), sum(tile.width for tile in tiles)) + 2 * _GAP
    strip = image.new("RGB", (width, _CAPTION + _TILE), "white")
    draw.Draw(strip).text((0, 0), row.title, fill="black")
    if problem:
        draw.Draw(strip).text((0, _CAPTION + 6), problem, fill=(160, 0, 0))
    left = 0
    for place, tile in enumerate(tiles):
        strip.paste(tile, (left, _CAPTION))
        left += tile.width + _GAP * (place % 2)  # a frame touches its face
    return strip


def _frames(file: Path, wanted: Sequence[int] | Sequence[float]) -> list[Any]:
    """Upright frames with square pixels, by number (int) or by place in the film, 0.0 to 1.0 (float)."""
    image = need("PIL.Image")
    pictures: dict[int, Any] = {}
    with open_media(read_media_file(file), str(file), sound=False) as media:
        track = media.picture
        if track is None:
            return []
        numbers = [place if isinstance(place, int) else round(place * (len(track.kept) - 1)) for place in wanted]
        aspect = track.stream.sample_aspect_ratio

        def take(number: int, frame: Frame, rotation: int) -> None:
            upright = np.ascontiguousarray(np.rot90(frame, round(rotation / 90) % 4))
            size = display_size(frame.shape[1], frame.shape[0], rotation, aspect)
            pictures[number] = image.fromarray(upright).resize(size)

        decode_frames(track, np.unique(numbers), take, str(file))
    return [pictures[number] for number in numbers]


def _with_square(frame: Any, square: Sequence[float]) -> Any:
    scale = min(_TILE / frame.height, _WIDEST * _TILE / frame.width)
    small = frame.resize((max(1, round(frame.width * scale)), max(1, round(frame.height * scale))))
    top, left, side = (edge * scale for edge in square)
    need("PIL.ImageDraw").Draw(small).rectangle((left, top, left + side - 1, top + side - 1), outline=(0, 255, 0))
    return small
