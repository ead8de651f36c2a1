"""What surrounds the face and changes from clip to clip whatever the emotion: room, light, camera, clothes."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from hicmae.data.synthetic.paint import blend, cover, darken, ellipse, mixed, scaled, value_noise
from hicmae.data.synthetic.seeding import generator_for
from hicmae.data.synthetic.speaker import Colour, Look

PATTERNS = ("plain", "stripes", "panels", "blobs", "window")
HEAD_SCALE = 0.31
"""Half the head's height as a share of the frame's side, before zoom."""
NECK_HEIGHT = 0.9
"""Where the neck leaves the head, in half head heights below the face's centre."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Nuisances of one clip."""

    wall: Colour
    accent: Colour
    pattern: str
    pattern_scale: float
    light: tuple[float, float, float]
    """Unit vector to the lamp: right, down, to the camera."""
    contrast: float
    """How much darker the shaded side of the face is, 0..1."""
    exposure: float
    warmth: float
    """Red gained and blue lost by the light's colour."""
    zoom: float
    centre: tuple[float, float]
    """The face's centre as shares of the frame's width and height."""
    noise: float
    """Standard deviation of the sensor's noise, in grey levels."""
    texture_seed: int

    @property
    def lamp_side(self) -> float:
        """1 where the lamp is to the right of the face, else -1."""
        return 1.0 if self.light[0] > 0 else -1.0


def draw_scene(seed: int, clip_id: str, *, framing: float = 1.0) -> Scene:
    """The scene of this clip, independent of speaker and emotion; ``framing`` as in ``CorpusSettings``."""
    rng = generator_for(seed, "scene", clip_id)
    hue = rng.random()
    azimuth, height = rng.uniform(-1.1, 1.1), rng.uniform(0.1, 0.8)
    light = np.array([np.sin(azimuth), -height, 0.5 + np.cos(azimuth) * 0.6])
    light /= np.linalg.norm(light)
    return Scene(
        wall=colorsys.hsv_to_rgb(hue, rng.uniform(0.05, 0.45), rng.uniform(0.35, 0.9)),
        accent=colorsys.hsv_to_rgb((hue + rng.uniform(0.05, 0.6)) % 1, rng.uniform(0.1, 0.55), rng.uniform(0.25, 0.85)),
        pattern=PATTERNS[int(rng.integers(len(PATTERNS)))],
        pattern_scale=rng.uniform(0.6, 1.6),
        light=(float(light[0]), float(light[1]), float(light[2])),
        contrast=rng.uniform(0.25, 0.6),
        exposure=rng.uniform(0.82, 1.1),
        warmth=rng.normal(0, 0.035),
        zoom=framing * rng.uniform(0.88, 1.14),
        centre=(
            0.5 + float(np.clip(0.035 * rng.normal(), -0.07, 0.07)),
            0.46 + float(np.clip(0.02 * rng.normal(), -0.04, 0.04)),
        ),
        noise=rng.uniform(0.4, 2.4),
        texture_seed=int(rng.integers(2**31)),
    )


def tint(picture: np.ndarray, scene: Scene) -> None:
    """Expose (3, ..., rows, columns) and colour it by the light, in place, leaving room for the sensor's noise."""
    for channel, gain in enumerate((1 + scene.warmth, 1.0, 1 - scene.warmth)):
        picture[channel] *= np.float32(scene.exposure * gain)
    np.clip(picture, 12, 243, out=picture)


def paint_backdrop(scene: Scene, look: Look, size: int) -> np.ndarray:
    """Everything behind the head: float32 (3, size, size) in 0..255, before ``tint``."""
    rng = np.random.default_rng(scene.texture_seed)
    picture = _paint_wall(scene, size, rng)
    unit = HEAD_SCALE * scene.zoom * size
    x = ((np.arange(size, dtype=np.float32) + 0.5) / size - scene.centre[0])[None] * size / unit
    y = ((np.arange(size, dtype=np.float32) + 0.5) / size - scene.centre[1])[:, None] * size / unit
    # A soft shadow on the wall, away from the lamp.
    shadow = ellipse(x + 0.35 * scene.light[0] * 2, y - 0.25, 1.35, 1.6, 1.0)
    darken(picture, 0.3 * scene.contrast * np.clip(shadow * 2, 0, 1))
    _paint_shoulders(picture, x, y, unit, scene, look, rng)
    _paint_neck(picture, x, y, unit, scene, look)
    return picture


def _paint_wall(scene: Scene, size: int, rng: np.random.Generator) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 1, size, dtype=np.float32), np.linspace(0, 1, size, dtype=np.float32))
    shade = 1.0 + 0.18 * (scene.light[0] * (x - 0.5) + scene.light[1] * (y - 0.5)) * 2
    shade += 0.03 * value_noise(rng, (size, size), 7) + 0.02 * value_noise(rng, (size, size), 40)
    picture = np.stack([255 * channel * shade for channel in scene.wall]).astype(np.float32)
    step = 0.16 * scene.pattern_scale
    if scene.pattern == "stripes":
        slant = rng.uniform(-0.5, 0.5)
        blend(picture, 0.45 * (np.sin((x + slant * y) * 2 * np.pi / step) > 0), scene.accent)
    elif scene.pattern == "panels":
        cell = np.floor(x / step) * 7 + np.floor(y / (1.7 * step)) * 13
        tone = (np.sin(cell * 12.9898 + rng.uniform(0, 6)) * 0.5 + 0.5).astype(np.float32)
        groove = np.minimum(np.minimum(x % step, (-x) % step), np.minimum(y % (1.7 * step), (-y) % (1.7 * step)))
        blend(picture, 0.5 * tone, scene.accent)
        darken(picture, 0.35 * (groove < 0.012))
    elif scene.pattern == "blobs":
        blend(
            picture,
            0.7 * np.clip(value_noise(rng, (size, size), max(2, round(5 / scene.pattern_scale))), 0, 1),
            scene.accent,
        )
    elif scene.pattern == "window":
        left, top = rng.uniform(-0.1, 0.7), rng.uniform(-0.1, 0.25)
        inside = np.minimum(np.minimum(x - left, left + 0.38 - x), np.minimum(y - top, top + 0.5 - y))
        cross = np.minimum(np.abs(x - left - 0.19), np.abs(y - top - 0.25))
        blend(picture, (inside > -0.02).astype(np.float32), scaled(scene.accent, 0.6))
        pane = scaled(mixed(scene.accent, (0.8, 0.9, 1.0), 0.7), 1.1)
        blend(picture, ((inside > 0) & (cross > 0.01)).astype(np.float32), pane)
    return picture


def _paint_shoulders(
    picture: np.ndarray, x: np.ndarray, y: np.ndarray, unit: float, scene: Scene, look: Look, rng: np.random.Generator
) -> None:
    width = look.shoulder_width
    top = 1.26 + 0.55 * np.abs(x / width) ** 3.0
    body = cover((y - top) * unit) * cover((width + 0.12 * (y - 1.5) - np.abs(x)) * unit)
    folds = (
        1 + 0.14 * scene.light[0] * x + 0.05 * value_noise(rng, picture.shape[1:], 9) - 0.12 * np.clip(y - 1.5, 0, 1)
    )
    blend(picture, body, np.stack([255 * channel * folds for channel in look.clothes]))
    if look.collar == "v":
        blend(picture, body * cover((0.62 - (y - 1.2) - 1.5 * np.abs(x)) * unit * 0.6), scaled(look.skin, 0.86))
    elif look.collar == "shirt":
        flap = np.minimum(0.75 - (y - 1.2) - 0.7 * np.abs(x), 1.1 * np.abs(x) - 0.05 * (y - 1.2) + 0.02)
        blend(picture, body * cover(flap * unit * 0.8), scaled(mixed(look.clothes, (1, 1, 1), 0.6), 1.05))
    elif look.collar == "round":
        blend(picture, cover(ellipse(x, y - 1.25, 0.55, 0.27, unit)), scaled(look.clothes, 0.75))
        blend(picture, cover(ellipse(x, y - 1.22, 0.5, 0.22, unit)), scaled(look.skin, 0.86))


def _paint_neck(picture: np.ndarray, x: np.ndarray, y: np.ndarray, unit: float, scene: Scene, look: Look) -> None:
    half = 0.38 * look.half_width / 0.76 + 0.12 * np.clip((y - 1.15) / 0.25, 0, 1) ** 2
    end = 1.36 if look.collar != "v" else 1.42
    neck = cover((half - np.abs(x)) * unit) * cover((end - 0.5 * x**2 - y) * unit) * cover((y - 0.3) * unit)
    shade = 0.86 + 0.2 * scene.contrast * (scene.light[0] * x / half)
    # The chin's shadow.
    shade = shade * (1 - 0.38 * np.clip(1 - (y - NECK_HEIGHT) / 0.32, 0, 1))
    blend(picture, neck, np.stack([255 * channel * shade for channel in look.skin]))
    if look.collar == "scarf":
        scarf = ellipse(x, y - 1.35, 0.72, 0.24, unit)
        ripple = 1 + 0.12 * np.sin(14 * y + 5 * x)
        colour = mixed(look.clothes, scene.accent, 0.0)
        blend(picture, cover(scarf), np.stack([255 * min(1.0, 1.25 * channel) * ripple for channel in colour]))
