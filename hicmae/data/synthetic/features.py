"""The moving parts of a face: brows, eyes, nose and mouth, painted for all frames of a clip at once.

Shape letters: T frames, h and w rows and columns of a feature's window. Curves over time have shape (T, 1, 1), so
that they broadcast against x (1, w) and y (h, 1).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hicmae.data.synthetic.emotions import FACE_CUES
from hicmae.data.synthetic.head import LEFT, TOP, Head
from hicmae.data.synthetic.paint import blend, cover, darken, mixed, scaled
from hicmae.data.synthetic.performance import Performance
from hicmae.data.synthetic.scene import Scene
from hicmae.data.synthetic.speaker import Look

_BOX = (-0.74, 0.74, -0.66, 0.99)
"""Left, right, top and bottom of the part of the head that is painted anew for every frame."""


def paint_features(head: Head, look: Look, scene: Scene, performance: Performance) -> tuple[np.ndarray, slice, slice]:
    """Pictures of the face's inner part: float32 (3, T, h, w), and the rows and columns of the head they belong to."""
    rows, columns, _, _ = head.window(*_BOX)
    inner = head.colour[:, None, rows, columns]
    picture = np.repeat(inner, performance.frames, axis=1)
    canvas = _Canvas(picture, head, rows, columns)
    cue = {name: performance.face[:, k].astype(np.float32)[:, None, None] for k, name in enumerate(FACE_CUES)}
    # What is nearer to the camera moves more when the head turns.
    aside = performance.turn[:, 0].astype(np.float32)[:, None, None]
    below = performance.turn[:, 1].astype(np.float32)[:, None, None]
    for side in (-1, 1):
        _paint_eye(canvas, side, look, scene, performance, cue, 0.10 * aside, 0.10 * below)
        _paint_brow(canvas, side, look, cue, 0.12 * aside, 0.12 * below)
    _paint_brow_lines(canvas, look, cue, 0.12 * aside, 0.12 * below)
    _paint_mouth(canvas, look, scene, performance, cue, 0.16 * aside, 0.13 * below)
    _paint_nose(canvas, look, scene, cue, 0.22 * aside, 0.18 * below)
    if look.glasses:
        _paint_glasses(canvas, look, 0.14 * aside, 0.12 * below)
    return picture, rows, columns


class _Canvas:
    """The stack of pictures with face coordinates."""

    def __init__(self, picture: np.ndarray, head: Head, rows: slice, columns: slice) -> None:
        self.picture, self.unit = picture, np.float32(head.unit)
        self._row0, self._column0 = rows.start, columns.start

    def window(self, left: float, right: float, top: float, bottom: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A view (3, T, h, w) of a rectangle in face coordinates, with x (1, w) and y (h, 1) of its pixels."""
        unit, (rows, columns) = float(self.unit), self.picture.shape[2:]
        first_row = int(np.clip((top - TOP) * unit - self._row0, 0, rows - 1))
        last_row = int(np.clip((bottom - TOP) * unit - self._row0 + 1, first_row + 1, rows))
        first_column = int(np.clip((left - LEFT) * unit - self._column0, 0, columns - 1))
        last_column = int(np.clip((right - LEFT) * unit - self._column0 + 1, first_column + 1, columns))
        x = LEFT + (np.arange(first_column, last_column, dtype=np.float32) + (self._column0 + 0.5)) / self.unit
        y = TOP + (np.arange(first_row, last_row, dtype=np.float32) + (self._row0 + 0.5)) / self.unit
        view = self.picture[:, :, first_row:last_row, first_column:last_column]
        return view, x.astype(np.float32)[None], y.astype(np.float32)[:, None]


def _paint_eye(
    canvas: _Canvas,
    side: int,
    look: Look,
    scene: Scene,
    performance: Performance,
    cue: Mapping[str, np.ndarray],
    aside: np.ndarray,
    below: np.ndarray,
) -> None:
    centre_x = side * look.eye_spacing
    picture, x, y = canvas.window(centre_x - 0.26, centre_x + 0.26, -0.22, 0.2)
    unit = canvas.unit
    across = (x - centre_x - aside) / look.eye_width  # (T, 1, w)
    inside = np.clip(1 - across**2, 0, None)
    blink = performance.blink.astype(np.float32)[:, None, None]
    middle = below - look.eye_cant * across * side * look.eye_width / 0.17 * 0.5
    raised = np.clip(1 + 0.42 * cue["lid"] - 0.1 * cue["squint"], 0.22, 1.6) * (1 - blink)
    lower = look.eye_height * 0.62 * np.clip(1 - 0.65 * cue["squint"], 0.1, 1.2) * (1 - 0.5 * blink)
    lid_y = middle - look.eye_height * 1.15 * raised * inside**0.62 + 0.045 * blink
    floor_y = np.maximum(middle + lower * inside**0.8, lid_y)
    gap = cover((y - lid_y) * unit) * cover((floor_y - y) * unit) * (inside > 0)  # (T, h, w)

    # The lid's skin and its fold show more where the eye is half shut.
    fold = middle - look.eye_height * (1.0 + 0.55 * np.clip(raised, 0.45, 1.4)) * inside**0.55 - 0.02
    lid = cover((y - fold) * unit) * cover((lid_y - y) * unit) * (inside > 0)
    blend(picture, 0.8 * lid, scaled(mixed(look.skin, (0.45, 0.25, 0.25), 0.18), 0.88 * scene.exposure))
    darken(picture, 0.3 * np.clip(1 - np.abs(y - fold) * unit * 0.8, 0, 1) * np.minimum(1, inside * 4))
    # Bag under a squinting eye.
    darken(
        picture,
        (0.10 + 0.2 * np.clip(cue["squint"], 0, 1))
        * np.exp(-(((y - floor_y - 0.045) / 0.022) ** 2))
        * np.minimum(1, inside * 2),
    )

    white = np.clip(1 - 0.35 * np.clip(1 - (y - lid_y) / 0.07, 0, 1) - 0.15 * across**2, 0, 1)
    blend(picture, gap, np.stack([250 * white, 246 * white, 244 * white]))
    gaze = performance.gaze.astype(np.float32)
    iris_x = centre_x + aside + 0.055 * gaze[:, 0, None, None]
    iris_y = middle.mean(axis=2, keepdims=True) - 0.012 + 0.03 * gaze[:, 1, None, None]
    distance = np.sqrt((x - iris_x) ** 2 + (y - iris_y) ** 2)
    radius = np.float32(look.eye_height * 0.88)
    iris = gap * cover((radius - distance) * unit)
    glow = 0.7 + 0.75 * np.clip((y - iris_y) / radius, -0.4, 1) * np.ones_like(distance)
    blend(picture, iris, np.stack([np.minimum(235, 255 * channel * glow) for channel in look.iris]))
    darken(picture, 0.5 * gap * np.clip(1 - np.abs(radius - distance) * unit, 0, 1))
    blend(picture, gap * cover((0.48 * radius - distance) * unit), (0.04, 0.03, 0.03))
    spark = np.sqrt((x - iris_x - 0.028 * np.sign(scene.light[0])) ** 2 + (y - iris_y + 0.03) ** 2)
    blend(picture, 0.95 * gap * cover((0.02 - spark) * unit), (1, 1, 1))
    # Lashes.
    lash = cover((0.017 + 0.012 * inside - np.abs(y - lid_y + 0.006)) * unit) * (inside > 0)
    blend(picture, 0.9 * lash, (0.10, 0.07, 0.06))
    rim = np.clip(1 - np.abs(y - floor_y) * unit, 0, 1) * (inside > 0)
    darken(picture, 0.35 * rim)


def _brow_place(
    look: Look, side: int, x: np.ndarray, cue: Mapping[str, np.ndarray], aside: np.ndarray, below: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Position along the brow (0 inner end, 1 outer end) and the brow's height there, both (T, 1, w)."""
    inner = 0.13 - 0.055 * cue["pinch"]
    along = (side * (x - aside) - inner) / (look.eye_spacing + 0.22 - inner)
    lift_inner = 0.115 * cue["brow_inner"]
    lift_outer = 0.09 * cue["brow_outer"]
    s = np.clip(along, 0, 1)
    height = below - look.brow_gap - lift_inner * (1 - s) ** 1.3 - lift_outer * s
    return along, height - look.brow_arch * 4 * s * (1 - s) * (1 + 0.3 * cue["brow_outer"]) + 0.05 * s**2


def _paint_brow(
    canvas: _Canvas, side: int, look: Look, cue: Mapping[str, np.ndarray], aside: np.ndarray, below: np.ndarray
) -> None:
    left, right = sorted((side * 0.02, side * 0.66))
    picture, x, y = canvas.window(left, right, -0.56, -0.02)
    along, height = _brow_place(look, side, x, cue, aside, below)
    s = np.clip(along, 0, 1)
    thickness = look.brow_thickness * (0.75 + 0.6 * s) * np.clip(1.15 - s**3, 0.25, 1)
    mask = cover((thickness / 2 - np.abs(y - height)) * canvas.unit)
    mask *= cover(along * canvas.unit * 0.45) * cover((1 - along) * canvas.unit * 0.45)
    blend(picture, 0.93 * mask, scaled(mixed(look.hair, (0.2, 0.12, 0.08), 0.45), 0.8))


def _paint_brow_lines(
    canvas: _Canvas, look: Look, cue: Mapping[str, np.ndarray], aside: np.ndarray, below: np.ndarray
) -> None:
    """Creases of the forehead where the brows are raised, and between them where they are drawn together."""
    picture, x, y = canvas.window(-0.5, 0.5, -0.64, -0.1)
    raised = np.clip(0.5 * (cue["brow_inner"] + cue["brow_outer"]) - 0.25, 0, 1)
    lines = np.zeros((), np.float32)
    for height in (-0.5, -0.57):
        lines = lines + np.exp(-(((y - height - 0.03 * x**2 * 4 + 0.05 * raised - below) / 0.013) ** 2))
    darken(picture, 0.3 * raised * lines * np.exp(-((x - aside) ** 4) / 0.02))
    pinched = np.clip(cue["pinch"] - 0.2, 0, 1)
    for side in (-1, 1):
        distance = (x - aside - side * (0.045 + 0.15 * (y - below + 0.25) * 0.3)) / 0.012
        darken(picture, 0.32 * pinched * np.exp(-(distance**2) - ((y - below + 0.24) / 0.075) ** 2))


def _paint_nose(
    canvas: _Canvas, look: Look, scene: Scene, cue: Mapping[str, np.ndarray], aside: np.ndarray, below: np.ndarray
) -> None:
    picture, x, y = canvas.window(-0.3, 0.3, -0.2, 0.5)
    lift = 0.035 * np.clip(cue["sneer"], -0.5, 1.2)
    tip = below + look.nose_length - lift
    width = look.nose_width * (1 + 0.16 * np.clip(cue["sneer"], -0.5, 1.2))
    offset = x - aside * np.clip((y + 0.3) / 0.55, 0, 1)
    along = np.clip((y + 0.1) / (tip + 0.1), 0, 1)
    body = (
        np.exp(-((offset / (0.06 + 0.75 * width * along**2.2)) ** 2)) * (y < tip + 0.1) * np.clip((y + 0.18) * 8, 0, 1)
    )
    lamp = 1.0 if scene.light[0] > 0 else -1.0
    slope = offset * lamp / (0.05 + 0.8 * width * along**2)
    darken(picture, 0.34 * scene.contrast * body * np.clip(-slope, 0, 1.2) + 0.0)
    shine = np.exp(-(((offset - 0.02 * lamp) / 0.035) ** 2)) * (
        0.10 * np.exp(-(((y - 0.05) / 0.16) ** 2)) + 0.28 * np.exp(-(((y - tip + 0.03) / 0.045) ** 2))
    )
    blend(picture, shine, mixed(look.skin, (1, 1, 1), 0.75))
    # Underside, wings and nostrils.
    underside = np.exp(-(((y - tip - 0.085 + 1.2 * offset**2) / 0.026) ** 2)) * np.clip(
        (width * 1.15 - np.abs(offset)) * 16, 0, 1
    )
    darken(picture, 0.3 * underside)
    for side in (-1, 1):
        wing = np.sqrt(((offset - side * width * 0.98) / 0.5) ** 2 + ((y - tip - 0.02) / 1.2) ** 2)
        darken(picture, 0.36 * np.exp(-(((wing - 0.02) / 0.022) ** 2)) * (side * offset > width * 0.55))
        hole = 1 - np.sqrt(((offset - side * width * 0.45) / 0.042) ** 2 + ((y - tip - 0.058) / 0.022) ** 2)
        blend(picture, 0.8 * cover(hole * canvas.unit * 0.03), scaled(look.skin, 0.28))
        # Wrinkles beside the bridge, with the upper lip raised.
        crease = np.exp(-(((y - 0.02 - 0.5 * side * offset) / 0.014) ** 2)) + np.exp(
            -(((y - 0.085 - 0.5 * side * offset) / 0.014) ** 2)
        )
        darken(
            picture,
            0.3 * np.clip(cue["sneer"] - 0.15, 0, 1) * crease * np.exp(-(((side * offset - 0.07) / 0.045) ** 2)),
        )


def _paint_mouth(
    canvas: _Canvas,
    look: Look,
    scene: Scene,
    performance: Performance,
    cue: Mapping[str, np.ndarray],
    aside: np.ndarray,
    below: np.ndarray,
) -> None:
    picture, x, y = canvas.window(-0.52, 0.52, 0.22, 0.98)
    unit = canvas.unit
    opening = performance.opening.astype(np.float32)[:, None, None]
    rounding = performance.rounding.astype(np.float32)[:, None, None] * np.minimum(1, opening * 2 + 0.2)
    jaw = np.clip(cue["jaw"], 0, 1.2)
    sneer, smile = np.clip(cue["sneer"], -0.3, 1.3), np.clip(cue["smile"], -1.3, 1.3)
    height = np.clip(0.235 * opening + 0.13 * jaw * (0.4 + 0.6 * opening) + 0.02 * np.clip(sneer, 0, 1), 0.002, 0.31)
    half = look.mouth_width * np.clip(
        1 + 0.16 * cue["width"] + 0.15 * smile - 0.3 * np.clip(rounding, -0.4, 1) - 0.12 * jaw, 0.45, 1.5
    )
    across = np.clip((x - aside) / half, -1.3, 1.3)  # (T, 1, w)
    profile = np.clip(1 - across**2, 0, 1)
    # The corners go up with a smile, the middle dips; the reverse for a frown.
    line = look.mouth_height + below - 0.105 * smile * (across**2 - 0.45) * (half / 0.27)
    line = line - 0.02 * sneer
    inner_top = line - 0.28 * height * profile**0.7 - 0.03 * np.clip(sneer, 0, 2) * profile
    inner_bottom = line + 0.72 * height * profile**0.6
    thin = np.clip(1 - 0.5 * np.clip(cue["press"], -0.4, 1.2), 0.35, 1.2)
    bow = 1 + 0.25 * np.exp(-(((np.abs(across) - 0.22) / 0.16) ** 2)) - 0.25 * np.exp(-((across / 0.12) ** 2))
    outer_top = inner_top - look.lip_thickness * thin * bow * profile**0.75
    outer_bottom = inner_bottom + look.lip_thickness * 1.3 * thin * profile**0.75
    within = cover((half * 1.02 - np.abs(x - aside)) * unit)

    # Folds from the nose to the corners, with smile or sneer; a shadow under the lower lip.
    strength = np.clip(0.12 + 0.3 * np.clip(smile, 0, 1) + 0.4 * np.clip(sneer, 0, 1), 0, 0.5)
    fold_x = 0.18 + 0.55 * np.clip(y - below - 0.34, 0, 0.4) + 0.06 * smile
    fold = (
        np.exp(-(((np.abs(x - aside) - fold_x) / 0.02) ** 2))
        * np.clip((y - 0.3) * 9, 0, 1)
        * np.clip((0.68 - y) * 7, 0, 1)
    )
    darken(picture, strength * fold)
    darken(picture, 0.2 * np.exp(-(((y - outer_bottom - 0.05) / 0.03) ** 2)) * np.clip(1 - np.abs(across) * 1.3, 0, 1))

    top_edge, bottom_edge = cover((y - outer_top) * unit), cover((outer_bottom - y) * unit)
    lips = top_edge * bottom_edge * within
    glow = 0.85 + 0.35 * np.clip((y - inner_bottom) / (1.3 * look.lip_thickness), 0, 0.6) * (1 - 0.6 * np.abs(across))
    glow = (
        glow
        * (1 - 0.12 * np.clip((inner_top - y) / look.lip_thickness, 0, 1))
        * (1 + 0.25 * scene.contrast * np.sign(scene.light[0]) * across * 0.4)
    )
    blend(picture, lips, np.stack([255 * channel * glow for channel in look.lip]))
    hollow = cover((y - inner_top) * unit) * cover((inner_bottom - y) * unit) * within
    hollow *= np.clip(height * unit, 0.35, 1)
    blend(picture, hollow, (0.17, 0.04, 0.05))
    tongue = (
        hollow * np.clip((y - inner_bottom + 0.42 * height + 0.05 * across**2) * unit * 0.5, 0, 1) * (height > 0.07)
    )
    blend(picture, 0.85 * tongue, (0.62, 0.24, 0.25))
    teeth_height = np.minimum(
        0.052 + 0.02 * np.clip(smile, 0, 1) + 0.03 * np.clip(sneer, 0, 1), 0.42 * height + 0.02 * np.clip(sneer, 0, 1)
    )
    teeth = hollow * cover((inner_top + teeth_height - y) * unit) * np.clip((0.88 - np.abs(across)) * 8, 0, 1)
    blend(picture, teeth * np.clip((height - 0.02) * 40, 0, 1), (0.93, 0.91, 0.86))
    # Corners.
    corner = np.exp(-(((np.abs(across) - 1.0) / 0.07) ** 2) - ((y - line) / 0.022) ** 2)
    darken(picture, 0.4 * corner)


def _paint_glasses(canvas: _Canvas, look: Look, aside: np.ndarray, below: np.ndarray) -> None:
    picture, x, y = canvas.window(-0.74, 0.74, -0.32, 0.3)
    centre = np.abs(x - aside) - look.eye_spacing
    middle = y - below - 0.01
    ring = np.sqrt(centre**2 + (middle * 1.08) ** 2)
    rim = cover((0.02 - np.abs(ring - look.glasses)) * canvas.unit)
    bridge = cover((0.016 - np.abs(middle + 0.03 + 0.5 * (x - aside) ** 2)) * canvas.unit) * (
        np.abs(x - aside) < look.eye_spacing - look.glasses
    )
    arm = cover((0.016 - np.abs(middle + 0.04)) * canvas.unit) * (np.abs(x - aside) > look.eye_spacing + look.glasses)
    frame = np.maximum(rim, np.maximum(bridge, arm))
    blend(picture, 0.12 * cover((look.glasses - ring) * canvas.unit) * ((centre + middle) < -0.08), (1, 1, 1))
    blend(picture, 0.95 * frame, (0.10, 0.09, 0.11))
