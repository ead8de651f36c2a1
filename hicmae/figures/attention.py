"""Where a model looks and listens: heat over the face and the spectrogram, curves over time, and what fusion reads.

Shapes: T frames of the clip, S pixels of a frame's side, M moments (each a few frames).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hicmae.figures.canvas import save_figure
from hicmae.figures.palette import COLOURS

_SHOWN = 8
_HEAT = "turbo"
_CURSOR = (255, 255, 255)
_DPI = 100
_VIDEO, _AUDIO = COLOURS[0], COLOURS[1]


@dataclass(frozen=True, kw_only=True)
class AttentionPicture:
    """What is drawn; heat is in multiples of an even share."""

    frames: NDArray[np.uint8] | None
    """(T, S, S, 3); ``None`` without picture."""
    video: NDArray[np.floating] | None
    """(M, rows, columns); ``None`` without picture."""
    log_mel: NDArray[np.floating] | None
    """(frames, bins); ``None`` without sound."""
    audio: NDArray[np.floating] | None
    """(M of audio, bands), low frequencies first; ``None`` without sound."""
    video_reads: NDArray[np.floating] | None
    """(M of video, M of audio), of fusion."""
    audio_reads: NDArray[np.floating] | None
    """(M of audio, M of video), of fusion."""
    seconds: float
    """Length of the window."""
    title: str


# ---------------------------------------------------------------- a still


def draw_attention(shown: AttentionPicture, path: str | Path) -> Path:
    """A filmstrip with heat, the spectrogram with heat, curves over time and the maps of fusion, as PNG."""
    rows = ["film"] * (shown.frames is not None) + ["sound"] * (shown.log_mel is not None) + ["curves"]
    heights = {"film": 2.75, "sound": 1.5, "curves": 1.5}
    figure = Figure(figsize=(12, 0.7 + sum(heights[row] for row in rows)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, height_ratios=[heights[row] for row in rows], squeeze=False)[:, 0]
    where = dict(zip(rows, parts, strict=True))
    if shown.frames is not None:
        _draw_film(where["film"], shown)
    maps = [reads for reads in (shown.video_reads, shown.audio_reads) if reads is not None]
    if "sound" in where:
        _draw_sound(where["sound"], shown)
    columns = where["curves"].subplots(1, 1 + len(maps), width_ratios=[3.4, *[1] * len(maps)], squeeze=False)[0]
    _draw_curves(columns[0], shown)
    for axes, reads, names in zip(columns[1:], maps, (("video", "audio"), ("audio", "video")), strict=False):
        _draw_reads(axes, reads, names, shown.seconds)
    figure.suptitle(shown.title, fontsize=10)
    return save_figure(figure, path)


def _draw_film(figure: Any, shown: AttentionPicture) -> None:
    assert shown.frames is not None
    assert shown.video is not None
    count = min(_SHOWN, len(shown.frames))
    numbers = np.linspace(0, len(shown.frames) - 1, count).round().astype(int)
    all_axes = figure.subplots(2, count, squeeze=False)
    hot = heated_frames(shown.frames, shown.video, side=160)
    for column, number in enumerate(numbers):
        all_axes[0, column].imshow(shown.frames[number])
        all_axes[1, column].imshow(hot[number])
        all_axes[0, column].set_title(f"{number * shown.seconds / len(shown.frames):.2f} s", fontsize=8)
    for axes in all_axes.flat:
        axes.set(xticks=[], yticks=[])
    for axes, name in zip(all_axes[:, 0], ("clip", "attention"), strict=True):
        axes.set_ylabel(name, fontsize=9)
    _draw_scale(figure, all_axes[1], shown.video)


def _draw_sound(figure: Any, shown: AttentionPicture) -> None:
    assert shown.log_mel is not None
    assert shown.audio is not None
    plain, hot = figure.subplots(1, 2)
    _show_sound(plain, shown)
    _show_sound(hot, shown, heat=True)
    plain.set_ylabel("mel bin", fontsize=8)
    plain.set_title("log-mel spectrogram", fontsize=9)
    hot.set_title("attention to it", fontsize=9)
    _draw_scale(figure, [hot], shown.audio)


def _show_sound(axes: Any, shown: AttentionPicture, *, heat: bool = False) -> None:
    assert shown.log_mel is not None
    assert shown.audio is not None
    extent = (0, shown.seconds, 0, shown.log_mel.shape[1])
    if heat:
        picture = heated_spectrogram(shown.log_mel, shown.audio)
        axes.imshow(picture, aspect="auto", extent=extent)
    else:
        axes.imshow(shown.log_mel.T, origin="lower", aspect="auto", cmap="magma", extent=extent)
    axes.tick_params(labelsize=7)
    axes.set_xlabel("seconds", fontsize=8)


def _draw_curves(axes: Any, shown: AttentionPicture) -> None:
    """Attention by moment, each as a step as wide as the moment."""
    for name, heat, colour in (("to the picture", shown.video, _VIDEO), ("to the sound", shown.audio, _AUDIO)):
        if heat is not None:
            values = heat.reshape(len(heat), -1).mean(axis=1)
            axes.stairs(values, np.linspace(0, shown.seconds, len(values) + 1), color=colour, lw=1.6, label=name,
                        baseline=None)  # fmt: skip
    axes.axhline(1, color="0.7", lw=0.8, zorder=0)
    axes.set_xlim(0, shown.seconds)
    low, high = axes.get_ylim()
    low, high = min(low, 0.9), max(high, 1.1)
    axes.set_ylim(low, high + 0.3 * (high - low))  # room for the legend above the curves
    axes.set_ylabel("x even share", fontsize=8)
    axes.set_xlabel("seconds", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_title("attention over time", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False, loc="upper right", ncols=2)


def _draw_reads(axes: Any, reads: NDArray[np.floating], names: tuple[str, str], seconds: float) -> None:
    far = max(0.05, float(np.abs(reads - 1).max()))
    image = axes.imshow(
        reads, origin="lower", aspect="auto", cmap="RdBu_r", vmin=1 - far, vmax=1 + far,
        extent=(0, seconds, 0, seconds),
    )  # fmt: skip
    axes.set_title(f"fusion: {names[0]} reads {names[1]}", fontsize=9)
    axes.set_xlabel(f"{names[1]} at (s)", fontsize=8)
    axes.set_ylabel(f"{names[0]} at (s)", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.figure.colorbar(image, ax=axes).ax.tick_params(labelsize=7)


def _draw_scale(figure: Any, all_axes: Any, heat: NDArray[np.floating]) -> None:
    low, high = limits_of(heat)
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(low, high), _HEAT)
    bar = figure.colorbar(scale, ax=all_axes, pad=0.01)
    bar.set_label("x even share", fontsize=7)
    bar.ax.tick_params(labelsize=7)


# ---------------------------------------------------------------- heat


def limits_of(heat: NDArray[np.floating]) -> tuple[float, float]:
    """Heat that is drawn coldest and hottest: all but the two hundredths at either end, and never a hair's breadth."""
    low, high = (float(x) for x in np.percentile(heat, (2, 98)))
    return (low, high) if high - low > 0.02 else (low - 0.01, high + 0.01)


def heated_frames(frames: NDArray[np.uint8], heat: NDArray[np.floating], *, side: int) -> NDArray[np.uint8]:
    """Frames under their heat, one scale for the clip: (T, S, S, 3), (M, rows, columns) -> (T, side, side, 3)."""
    limits = limits_of(heat)
    each = len(frames) / len(heat)
    return np.stack([
        _blend(np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC)),
               _level(heat[int(number / each)], (side, side), limits))
        for number, frame in enumerate(frames)
    ])  # fmt: skip


def heated_spectrogram(log_mel: NDArray[np.floating], heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A grey spectrogram under its heat: (frames, bins), (M, bands) -> (bins, frames, 3), high frequencies first."""
    grey = log_mel.T[::-1]
    grey = (grey - grey.min()) / max(1e-6, float(np.ptp(grey)))
    picture = np.repeat((grey * 255).round().astype(np.uint8)[..., None], 3, axis=2)
    return _blend(picture, _level(heat.T[::-1], (picture.shape[1], picture.shape[0]), limits_of(heat)))


def _level(heat: NDArray[np.floating], size: tuple[int, int], limits: tuple[float, float]) -> NDArray[np.float64]:
    """Heat of patches as 0..1 of pixels, smooth between the patches' centres."""
    scaled = (heat - limits[0]) / (limits[1] - limits[0])
    image = Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.clip(np.asarray(image, dtype=np.float64), 0, 1)


def _blend(picture: NDArray[np.uint8], level: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colours over a picture that pales, the more so the hotter."""
    colours = matplotlib.colormaps[_HEAT](level)[..., :3] * 255
    share = (0.3 + 0.25 * level)[..., None]
    mixed: NDArray[np.uint8] = (picture * (1 - share) + colours * share).round().astype(np.uint8)
    return mixed


# ---------------------------------------------------------------- what plays


def attention_pages(shown: AttentionPicture, *, side: int = 200, pages_per_frame: int = 1) -> list[Image.Image]:
    """Pictures that play: the clip, its heat and what fusion reads over the spectrogram and the curves; a line marks
    the time of each.

    Args:
        shown: with picture.
        side: of the frames, in pixels.
        pages_per_frame: pictures drawn for each frame, between which the line moves on.
    """
    if shown.frames is None or shown.video is None:
        raise ValueError("there is no picture to play; a still (.png) shows the sound alone")
    page, places, lines = _still_page(shown, side)
    plain = [Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC) for frame in shown.frames]
    hot = [Image.fromarray(frame) for frame in heated_frames(shown.frames, shown.video, side=side)]
    pages = []
    for number, pictures in enumerate(zip(plain, hot, strict=True)):
        drawn = page.copy()
        for place, picture in zip(places, pictures, strict=True):
            drawn.paste(picture, place)
        for part in range(pages_per_frame):
            marked = drawn.copy()
            time = (number + (part + 0.5) / pages_per_frame) / len(shown.frames)
            for (left, top, right, bottom), colour, across in lines:
                if across:
                    y = bottom - round(time * (bottom - top))
                    ImageDraw.Draw(marked).line((left, y, right, y), fill=colour)
                else:
                    x = left + round(time * (right - left))
                    ImageDraw.Draw(marked).line((x, top, x, bottom), fill=colour)
            pages.append(marked)
    return pages


Box = tuple[int, int, int, int]
Line = tuple[Box, tuple[int, int, int], bool]


def _still_page(shown: AttentionPicture, side: int) -> tuple[Image.Image, list[tuple[int, int]], list[Line]]:
    """What stands still: the page, where both frames go, and where lines of time run (up, where ``True``)."""
    gap, left, top, strip = 12, 56, 44, round(0.45 * side)
    maps = shown.video_reads is not None
    width = left + 2 * side + gap + (side + 110 if maps else 24)
    rows = 2 if shown.log_mel is not None else 1
    height = top + side + rows * (strip + 44) + 10
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)

    def axes_at(x: int, y: int, wide: int, high: int) -> Any:
        return figure.add_axes((x / width, 1 - (y + high) / height, wide / width, high / height))

    figure.text(left / width, 1 - 4 / height, shown.title, va="top", fontsize=8)
    for place, name in enumerate(("clip", "attention")):
        figure.text((left + place * (side + gap)) / width, 1 - (top - 4) / height, name, va="bottom", fontsize=9)
    drawn = []
    if shown.video_reads is not None:
        axes = axes_at(left + 2 * (side + gap) + 44, top, side - 20, side)
        _draw_reads(axes, shown.video_reads, ("video", "audio"), shown.seconds)
        drawn.append((axes, (0, 0, 0), True))
    wide, y = width - left - 24, top + side + (36 if maps else 16)
    if shown.log_mel is not None:
        axes = axes_at(left, y, wide, strip)
        _show_sound(axes, shown, heat=True)
        axes.set(xlabel="", xticks=[])
        axes.set_ylabel("mel bin", fontsize=8)
        drawn.append((axes, _CURSOR, False))
        y += strip + 24
    axes = axes_at(left, y, wide, strip)
    _draw_curves(axes, shown)
    axes.set_title("")
    drawn.append((axes, (0, 0, 0), False))
    canvas.draw()
    page = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    lines = []
    for axes, colour, across in drawn:
        box = axes.get_window_extent()
        lines.append(((round(box.x0), height - round(box.y1), round(box.x1), height - round(box.y0)), colour, across))
    return page, [(left, top), (left + side + gap, top)], lines
