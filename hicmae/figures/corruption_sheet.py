"""What each corruption makes of a clip: a row a corruption, a column a level."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hicmae.corruptions.corruption import Corruption, Media
from hicmae.figures.spectrogram import spectrogram_picture

_TILE, _CAPTION, _GAP, _MARGIN = 96, 14, 6, 118
_MOST_FRAMES = 16


def draw_corruption_sheet(
    rows: Mapping[Corruption, Sequence[tuple[float, Media]]],
    path: str | Path,
    *,
    log_mel: Callable[[Media], NDArray[np.float32]],
    title: str = "",
) -> Path:
    """Write a PNG, atomically. Picture is shown by its middle frame (by all, small, where frames are lost), sound by
    its spectrogram, on the scale of the first medium of the row.

    Args:
        rows: by corruption the levels and what the clip is at them, the clean one first.
        path: the PNG to write.
        log_mel: spectrogram of a medium, float32 (frames, bins).
        title: a line above all.
    """
    width = _MARGIN + max(len(levels) for levels in rows.values()) * (_TILE + _GAP)
    sheet = Image.new("RGB", (width, _CAPTION + _GAP + len(rows) * (_TILE + _CAPTION + _GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 2), title, fill="black")
    for row, (kind, levels) in enumerate(rows.items()):
        top = _CAPTION + _GAP + row * (_TILE + _CAPTION + _GAP)
        draw.text((_GAP, top + _CAPTION), f"{kind.title}\n({kind.unit})", fill="black")
        scale = log_mel(levels[0][1])
        limits = float(scale.min()), float(scale.max())
        for column, (level, media) in enumerate(levels):
            left = _MARGIN + column * (_TILE + _GAP)
            draw.text((left, top), "clean" if level == kind.clean else f"{level:g}", fill="black")
            if "audio" in kind.modalities:
                tile = spectrogram_picture(log_mel(media), (_TILE, _TILE), limits=limits)
            else:
                tile = _picture(media.video, all_frames=kind.name == "frame_drops")
            sheet.paste(tile, (left, top + _CAPTION))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        sheet.save(draft, format="PNG", optimize=True)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _picture(video: NDArray[np.uint8], *, all_frames: bool) -> Image.Image:
    if not all_frames:
        return Image.fromarray(video[len(video) // 2]).resize((_TILE, _TILE), Image.Resampling.BICUBIC)
    shown = video[:_MOST_FRAMES]
    side = int(np.ceil(np.sqrt(len(shown))))
    tile, small = Image.new("RGB", (_TILE, _TILE), "white"), _TILE // side
    for number, frame in enumerate(shown):
        place = (number % side * small, number // side * small)
        tile.paste(Image.fromarray(frame).resize((small, small), Image.Resampling.BOX), place)
    return tile
