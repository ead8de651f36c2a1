"""Contact sheet of clips: a few frames over time above the log-mel spectrogram of the sound, with the clip's name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from hicmae.figures.spectrogram import spectrogram_picture

FRAMES_SHOWN = 4
_STRIP, _CAPTION, _GAP = 56, 14, 8
_CHARACTER = 6  # width of Pillow's built-in font


@dataclass(frozen=True, kw_only=True)
class SheetClip:
    """What is shown of a clip."""

    title: str
    frames: npt.NDArray[np.uint8] | None
    """RGB uint8 (T, S, S, 3); None without a picture."""
    log_mel: npt.NDArray[np.float32] | None
    """float32 (F, M): time, mel bin; None without sound."""
    problem: str = ""
    """Why neither could be decoded."""


def draw_contact_sheet(clips: Sequence[SheetClip], path: str | Path, *, columns: int = 4, tile: int = 80) -> Path:
    """Write a PNG, atomically.

    Args:
        clips: in reading order.
        path: the PNG to write.
        columns: clips beside one another.
        tile: side of a frame on the sheet, in pixels.
    """
    width, height = FRAMES_SHOWN * tile, _CAPTION + tile + _STRIP
    rows = -(-len(clips) // columns)
    size = (columns * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP)
    sheet = Image.new("RGB", size, "white")
    for place, clip in enumerate(clips):
        left, top = _GAP + place % columns * (width + _GAP), _GAP + place // columns * (height + _GAP)
        sheet.paste(_draw_clip(clip, width, tile), (left, top))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        sheet.save(draft, format="PNG", optimize=True)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _draw_clip(clip: SheetClip, width: int, tile: int) -> Image.Image:
    picture = Image.new("RGB", (width, _CAPTION + tile + _STRIP), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((0, 0), clip.title[: width // _CHARACTER], fill="black")
    draw.rectangle((0, _CAPTION, width - 1, _CAPTION + tile + _STRIP - 1), fill=(224, 224, 224))
    if clip.problem:
        for line in range(4):
            part = clip.problem[line * (width // _CHARACTER - 2) :][: width // _CHARACTER - 2]
            draw.text((6, _CAPTION + 6 + 12 * line), part, fill=(160, 0, 0))
        return picture
    if clip.frames is None:
        draw.text((6, _CAPTION + 6), "no picture", fill="black")
    else:
        chosen = np.linspace(0, len(clip.frames) - 1, FRAMES_SHOWN).round().astype(int)
        for place, frame in enumerate(clip.frames[chosen]):
            small = Image.fromarray(frame).resize((tile, tile), Image.Resampling.BOX, reducing_gap=3.0)
            picture.paste(small, (place * tile, _CAPTION))
    if clip.log_mel is None:
        draw.text((6, _CAPTION + tile + 6), "no sound", fill="black")
    else:
        # from the clip's own faintest to its own loudest
        picture.paste(spectrogram_picture(clip.log_mel, (width, _STRIP)), (0, _CAPTION + tile))
    return picture
