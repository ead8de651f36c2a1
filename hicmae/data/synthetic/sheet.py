"""Contact sheet: a few speakers in all emotions at the apex, with the sound below, in one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hicmae.data.synthetic.corpus import ClipPlan, CorpusSettings, draw_clip, plan_clips, render_clip
from hicmae.data.synthetic.emotions import EMOTIONS
from hicmae.data.synthetic.performance import Performance
from hicmae.data.synthetic.voice import SAMPLE_RATE_HZ

_STRIP, _CAPTION = 40, 14


def write_contact_sheet(path: Path | str, settings: CorpusSettings, *, speakers: int = 4, tile: int = 144) -> Path:
    """Rows are labelled speakers, columns emotions; under each face the clip's waveform and spectrogram (0..8 kHz).

    Each face is shown where its expression is farthest from where the clip began. ``tile`` is the side of
    a face in pixels. A speaker without a clip of some emotion leaves that place empty. The ending of
    ``path`` chooses the format.
    """
    rows = list(dict.fromkeys(plan.speaker_id for plan in plan_clips(settings) if plan.split != "unlabelled"))
    rows = rows[:speakers]
    first: dict[tuple[str, str], ClipPlan] = {}
    for plan in plan_clips(settings):
        first.setdefault((plan.speaker_id, plan.emotion), plan)
    height = tile + 2 * _STRIP
    sheet = Image.new("RGB", (len(EMOTIONS) * tile, _CAPTION + len(rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, emotion in enumerate(EMOTIONS):
        draw.text((column * tile + 4, 1), emotion, fill="black")
        for row, speaker_id in enumerate(rows):
            chosen = first.get((speaker_id, emotion))
            if chosen is None:
                continue
            frames, sound = render_clip(chosen, settings)
            top = _CAPTION + row * height
            face = Image.fromarray(frames[_apex(draw_clip(chosen, settings).performance)])
            sheet.paste(face.resize((tile, tile), Image.Resampling.LANCZOS), (column * tile, top))
            sheet.paste(Image.fromarray(_waveform(sound, tile)), (column * tile, top + tile))
            sheet.paste(Image.fromarray(_spectrogram(sound, tile)), (column * tile, top + tile + _STRIP))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A palette keeps the file small.
    sheet.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    return path


def _apex(performance: Performance) -> int:
    """The frame of the strongest expression, away from blinks and wide open vowels."""
    change = np.linalg.norm(performance.face - performance.face[0], axis=1)
    return int(np.argmax(change / change.max() - performance.blink - 0.5 * np.abs(performance.opening - 0.25)))


def _waveform(sound: np.ndarray, width: int) -> np.ndarray:
    """uint8 (_STRIP, width, 3): the range of every column's samples; full height is half of full scale."""
    pieces = np.array_split(sound.astype(np.float32) / 16_384, width)
    rows = np.linspace(1, -1, _STRIP)[:, None]
    low, high = np.array([piece.min() for piece in pieces]), np.array([piece.max() for piece in pieces])
    inked = (rows >= low - 1 / _STRIP) & (rows <= high + 1 / _STRIP)
    return np.where(inked[..., None], np.array([40, 70, 130]), np.array([240, 242, 246])).astype(np.uint8)


def _spectrogram(sound: np.ndarray, width: int) -> np.ndarray:
    """uint8 (_STRIP, width, 3): energy in 25 ms windows, 60 dB from dark to light, high frequencies above."""
    window = SAMPLE_RATE_HZ // 40
    starts = np.linspace(0, len(sound) - window, width).astype(np.int64)
    pieces = sound[starts[:, None] + np.arange(window)] / 32_768 * np.hanning(window)
    power = np.abs(np.fft.rfft(pieces, axis=1))[:, : window // 2] ** 2
    bands = np.array([band.mean(axis=1) for band in np.array_split(power, _STRIP, axis=1)])[::-1]
    level = np.clip((10 * np.log10(bands + 1e-9) + 50) / 60, 0, 1)[..., None]
    return (255 * level ** np.array([0.8, 1.3, 0.9])).astype(np.uint8)
