"""The part of a head that does not move against itself: skull, skin, shading, ears, hair, beard.

It is painted once a clip on a canvas in face coordinates: the origin is the face's centre, one unit is half the
head's height, x points right and y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hicmae.data.synthetic.paint import blend, cover, darken, ellipse, mixed, scaled, value_noise
from hicmae.data.synthetic.scene import Scene
from hicmae.data.synthetic.speaker import Look

_LEFT, _RIGHT, _TOP, _BOTTOM = -1.28, 1.28, -1.42, 1.40
"""Extent of the canvas in face coordinates; it is cut to the head afterwards."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """A painted head, cut to what is not transparent and a border of two pixels."""

    colour: np.ndarray
    """float32 (3, rows, columns) in 0..255."""
    alpha: np.ndarray
    """float32 (rows, columns) in 0..1."""
    unit: float
    """Pixels per unit."""
    left: float
    """Face coordinate x of the left edge."""
    top: float
    """Face coordinate y of the upper edge."""

    @property
    def right(self) -> float:
        """Face coordinate x of the right edge."""
        return self.left + self.alpha.shape[1] / self.unit

    @property
    def bottom(self) -> float:
        """Face coordinate y of the lower edge."""
        return self.top + self.alpha.shape[0] / self.unit

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Face coordinates x (1, columns) and y (rows, 1) of the pixels' centres, float32."""
        rows, columns = self.alpha.shape
        x = self.left + (np.arange(columns) + 0.5) / self.unit
        y = self.top + (np.arange(rows) + 0.5) / self.unit
        return x.astype(np.float32)[None], y.astype(np.float32)[:, None]

    def slices(self, left: float, right: float, top: float, bottom: float) -> tuple[slice, slice]:
        """Rows and columns whose centres lie in a rectangle in face coordinates."""
        x, y = self.coordinates()
        rows, columns = np.searchsorted(y[:, 0], (top, bottom)), np.searchsorted(x[0], (left, right))
        return slice(int(rows[0]), int(rows[1])), slice(int(columns[0]), int(columns[1]))


def _canvas_coordinates(unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x (1, columns) and y (rows, 1) of the canvas's pixels, float32."""
    columns, rows = round((_RIGHT - _LEFT) * unit), round((_BOTTOM - _TOP) * unit)
    x = _LEFT + (np.arange(columns, dtype=np.float32) + 0.5) / np.float32(unit)
    y = _TOP + (np.arange(rows, dtype=np.float32) + 0.5) / np.float32(unit)
    return x[None], y[:, None]


def outline(look: Look, y: np.ndarray) -> np.ndarray:
    """Half width of the head at height y, before it closes at crown and chin."""
    return look.half_width * (1 - look.jaw * np.clip(y + 0.1, 0, 1) ** 1.6)


def paint_head(look: Look, scene: Scene, unit: float) -> Head:
    """The head at ``unit`` pixels per half head height, without eyes, brows, nose and mouth."""
    rng = np.random.default_rng(scene.texture_seed + 1)
    x, y = _canvas_coordinates(unit)
    width = outline(look, y)
    reach = (np.abs(x / width) ** 2.25 + np.abs(y) ** 2.25) ** (1 / 2.25)
    skull = cover((1 - reach) * look.half_width * unit)
    colour = np.empty((3, y.shape[0], x.shape[1]), np.float32)
    for channel in range(3):
        colour[channel] = 255 * look.skin[channel]
    alpha = skull.copy()

    for side in (-1, 1):
        ear = cover(ellipse(x - side * 1.0 * look.half_width, y - 0.06, 0.1, 0.19, unit))
        inner = cover(ellipse(x - side * 1.02 * look.half_width, y - 0.06, 0.05, 0.12, unit))
        blend(colour, inner * (1 - skull), scaled(look.skin, 0.72))
        alpha = np.maximum(alpha, ear)

    _shade(colour, x, y, width, scene)
    for side in (-1, 1):
        blush = np.exp(-(((x - side * 0.42) / 0.2) ** 2) - ((y - 0.28) / 0.15) ** 2)
        blend(colour, 0.22 * blush, mixed(look.skin, (0.85, 0.3, 0.3), 0.5))
        darken(colour, 0.13 * np.exp(-(((x - side * look.eye_spacing) / 0.22) ** 2) - ((y + 0.08) / 0.14) ** 2))
    colour *= 1 + 0.012 * value_noise(rng, colour.shape[1:], 50)
    if look.beard != "none":
        _grow_beard(colour, x, y, skull, look, rng)
    _grow_hair(colour, alpha, x, y, unit, reach, look, scene, rng)
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    first_row, first_column = max(0, rows[0] - 2), max(0, columns[0] - 2)
    part = (slice(first_row, rows[-1] + 3), slice(first_column, columns[-1] + 3))
    alpha = alpha[part]
    # Sampling outside the picture reads its border, so that has to be transparent.
    alpha[[0, -1]], alpha[:, [0, -1]] = 0, 0
    return Head(
        colour=colour[:, *part], alpha=alpha, unit=unit, left=_LEFT + first_column / unit, top=_TOP + first_row / unit
    )


def _shade(colour: np.ndarray, x: np.ndarray, y: np.ndarray, width: np.ndarray, scene: Scene) -> None:
    """Light as on a rounded body; the shaded side keeps some light from the room."""
    across, along = x / width, y * 0.8
    depth = np.sqrt(np.clip(1.15 - across**2 - along**2, 0.02, None))
    lit = (across * scene.light[0] + along * scene.light[1] + depth * scene.light[2]) / 1.07
    colour *= (1.04 - scene.contrast * (1 - np.clip(lit, 0, 1)) ** 1.3).astype(np.float32)


def _grow_beard(
    colour: np.ndarray, x: np.ndarray, y: np.ndarray, skull: np.ndarray, look: Look, rng: np.random.Generator
) -> None:
    strands = 1 + 0.18 * value_noise(rng, colour.shape[1:], 60)
    mouth = np.sqrt((x / 0.3) ** 2 + ((y - look.mouth_height) / 0.13) ** 2)
    around = np.clip((mouth - 1) * 3, 0, 1)
    moustache = np.clip(1 - np.abs(y - look.mouth_height + 0.13 - 0.25 * x**2) / 0.09, 0, 1) * np.clip(
        (0.34 - np.abs(x)) * 9, 0, 1
    )
    jaw = np.clip((y - 0.28 + 0.25 * np.clip(0.55 - np.abs(x), 0, 1) * -1) * 7, 0, 1) * around
    jaw = jaw * np.clip((y + 0.75 * np.abs(x) - 0.56) * 6, 0, 1)
    amount = {
        "stubble": 0.28 * np.maximum(jaw, moustache),
        "full": 0.92 * np.maximum(jaw, moustache),
        "moustache": 0.95 * moustache,
    }
    mask = np.clip(amount[look.beard] * strands, 0, 1) * skull
    blend(colour, mask, np.stack([255 * channel * (0.85 * strands) for channel in look.hair]))


def _grow_hair(
    colour: np.ndarray,
    alpha: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    unit: float,
    reach: np.ndarray,
    look: Look,
    scene: Scene,
    rng: np.random.Generator,
) -> None:
    """Hair in front of the skull and round it, in place."""
    if look.hair_style == "bald":
        shine = np.exp(-(((x - 0.35 * scene.light[0]) / 0.28) ** 2) - ((y + 0.68) / 0.14) ** 2)
        blend(colour, 0.25 * shine, (1, 1, 1))
        return
    ripple = 0.05 * np.sin(13 * np.arctan2(x, -y) + rng.uniform(0, 6)) if look.hair_style == "curly" else 0.0
    volume = {"short": 0.09, "parted": 0.12, "fringe": 0.11, "long": 0.13, "curly": 0.22, "bun": 0.07}[look.hair_style]
    wide = look.half_width + volume
    around = (1 - np.sqrt((x / wide) ** 2 + (np.minimum(y + 0.02, 0.0) / (1.0 + volume + ripple)) ** 2)) * wide
    parting = rng.choice([-0.3, 0.3]) if look.hair_style == "parted" else 0.0
    line = look.hair_line + {
        "short": 0.28 * (x / 0.7) ** 2 * np.abs(x / 0.7) ** 2,
        "parted": 0.34 * np.abs(x - parting) ** 1.4 - 0.06,
        "fringe": 0.26 + 0.05 * np.sin(9 * x + 1) + 0.0 * x,
        "long": 0.6 * np.abs(x / 0.75) ** 2.2 - 0.08,
        "curly": 0.35 * np.abs(x / 0.75) ** 3 + 0.03 * np.sin(16 * x),
        "bun": 0.42 * np.abs(x / 0.75) ** 2 - 0.1,
    }[look.hair_style].astype(np.float32)
    cap = np.minimum(around, line - y)
    # Sideburns: hair beside the face, down to the ears or beyond.
    bottom = {"short": -0.05, "parted": 0.05, "fringe": 0.25, "long": 1.28, "curly": 0.3, "bun": -0.1}[look.hair_style]
    taper = 1 + (0.06 if look.hair_style == "long" else -0.12) * np.clip(y, 0, 1)
    edge = around + (0.08 * np.clip(y, 0, 1) if look.hair_style == "long" else 0.0)
    inner = np.abs(x) - 0.93 * outline(look, y) + 0.06 * np.clip(0.2 - y, 0, 1)
    sides = np.minimum(np.minimum(edge, wide * taper - np.abs(x)), inner)
    sides = np.minimum(sides, bottom - y + 0.08 * np.sin(9 * np.abs(x) + 1))
    sides = np.where(y > line, np.minimum(sides, y + 0.6), -1.0)
    hair = np.maximum(cover(cap * unit), cover(sides * unit))
    if look.hair_style == "bun":
        hair = np.maximum(hair, cover(ellipse(x, y + 1.17, 0.3, 0.22, unit)))
    along = (
        np.arctan2(x - parting, 1.5 - y)
        if look.hair_style in ("long", "parted", "fringe", "bun")
        else np.arctan2(x, -y - 0.1)
    )
    strands = 0.10 * np.sin(60 * along + 3 * value_noise(rng, colour.shape[1:], 8)) + 0.06 * value_noise(
        rng, colour.shape[1:], 40
    )
    gloss = (
        0.4
        * np.exp(-(((reach - 0.93 + 0.15 * y) / 0.1) ** 2))
        * np.clip(0.6 + scene.light[0] * x * 1.2, 0, 1)
        * (y < -0.35)
    )
    tone = (0.92 + strands + gloss - 0.25 * scene.contrast * np.clip(-x * scene.light[0], 0, 1)).astype(np.float32)
    # The hair's shadow on the forehead.
    darken(colour, 0.22 * np.clip(1 - (y - line) / 0.12, 0, 1) * (y > line))
    # Colours are not multiplied by alpha: what the edge shows is hair alone, however little of the pixel it covers.
    over = hair + (1 - hair) * alpha
    blend(colour, hair / np.maximum(over, 1e-3), [255 * channel * tone + 14 * gloss for channel in look.hair])
    alpha[:] = over
