"""Eyes, brows, the creases they make, and glasses, painted for all frames of a ``FaceCanvas`` at once."""

from __future__ import annotations

import numpy as np

from hicmae.data.synthetic.canvas import FaceCanvas, Moments
from hicmae.data.synthetic.paint import blend, cover, darken, mixed, scaled
from hicmae.data.synthetic.scene import Scene
from hicmae.data.synthetic.speaker import Look


def paint_eye(canvas: FaceCanvas, side: int, look: Look, scene: Scene, now: Moments) -> None:
    """One eye; ``side`` is -1 for the one on the left of the picture and 1 for the other."""
    aside, below = 0.10 * now.yaw, 0.10 * now.pitch
    centre_x = side * look.eye_spacing
    picture, x, y = canvas.window(centre_x - 0.24, centre_x + 0.24, -0.2, 0.17)
    unit, eye_height = canvas.unit, look.eye_height
    squint = np.clip(now.cue["squint"], -0.3, 1.3)

    # Curves along the eye, (T, 1, w).
    across = (x - centre_x - aside) / look.eye_width
    bulge = np.clip(1 - across**2, 0, None)
    present = (bulge > 0).astype(np.float32)
    middle = below - 0.5 * look.eye_cant * look.eye_width / 0.17 * side * across
    raised = np.clip(1 + 0.42 * now.cue["lid"] - 0.1 * squint, 0.22, 1.6) * (1 - now.blink)
    lower = eye_height * 0.62 * np.clip(1 - 0.65 * squint, 0.1, 1.2) * (1 - 0.5 * now.blink)
    lid_y = middle - eye_height * 1.15 * raised * bulge**0.62 + 0.045 * now.blink
    floor_y = np.maximum(middle + lower * bulge**0.8, lid_y)
    # The lid's fold; its skin shows more where the eye is half shut.
    fold_y = middle - eye_height * (1.0 + 0.55 * np.clip(raised, 0.45, 1.4)) * bulge**0.55 - 0.02

    gap = cover((y - lid_y) * unit) * cover((floor_y - y) * unit) * present  # (T, h, w)
    lid = cover((y - fold_y) * unit) * cover((lid_y - y) * unit) * (0.8 * present)
    blend(picture, lid, scaled(mixed(look.skin, (0.45, 0.25, 0.25), 0.18), 0.88))
    crease = np.clip(1 - np.abs(y - fold_y) * (0.8 * unit), 0, 1) * (0.3 * np.minimum(1, bulge * 4))
    bag = np.exp(-(((y - floor_y - 0.045) / 0.022) ** 2))
    bag *= (0.10 + 0.2 * np.clip(squint, 0, 1)) * np.minimum(1, bulge * 2)
    darken(picture, crease + bag)

    # The upper lid shades the eyeball.
    white = 247 * (1 - 0.35 * np.clip(1 - (y - lid_y) / 0.07, 0, 1) - 0.15 * np.minimum(across**2, 1))
    blend(picture, gap, [white, white, white])
    iris_x = centre_x + aside + 0.055 * now.gaze_right
    iris_y = middle.mean(axis=2, keepdims=True) - 0.012 + 0.03 * now.gaze_down
    distance = np.sqrt((x - iris_x) ** 2 + (y - iris_y) ** 2)
    radius = 0.88 * eye_height
    glow = 255 * (0.7 + 0.75 * np.clip((y - iris_y) / radius, -0.4, 1))
    blend(picture, gap * cover((radius - distance) * unit), [channel * glow for channel in look.iris])
    blend(picture, gap * cover((0.48 * radius - distance) * unit), (0.04, 0.03, 0.03))
    spark = np.sqrt((x - iris_x - 0.028 * scene.lamp_side) ** 2 + (y - iris_y + 0.03) ** 2)
    blend(picture, gap * (0.95 * cover((0.02 - spark) * unit)), (1, 1, 1))
    rim = np.clip(1 - np.abs(y - floor_y) * unit, 0, 1) * (0.35 * present)
    darken(picture, np.maximum(rim, gap * np.clip(0.5 - np.abs(radius - distance) * (0.5 * unit), 0, 1)))
    lash = cover((0.017 + 0.012 * bulge - np.abs(y - lid_y + 0.006)) * unit) * (0.9 * present)
    blend(picture, lash, (0.10, 0.07, 0.06))


def _brow_place(look: Look, side: int, x: np.ndarray, now: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Position along the brow (0 inner end, 1 outer end) and the brow's height there, both (T, 1, w)."""
    aside, below = 0.12 * now.yaw, 0.12 * now.pitch
    inner = 0.13 - 0.055 * now.cue["pinch"]
    along = (side * (x - aside) - inner) / (look.eye_spacing + 0.22 - inner)
    lift_inner = 0.115 * now.cue["brow_inner"]
    lift_outer = 0.09 * now.cue["brow_outer"]
    s = np.clip(along, 0, 1)
    height = below - look.brow_gap - lift_inner * (1 - s) ** 1.3 - lift_outer * s
    return along, height - look.brow_arch * 4 * s * (1 - s) * (1 + 0.3 * now.cue["brow_outer"]) + 0.05 * s**2


def paint_brow(canvas: FaceCanvas, side: int, look: Look, scene: Scene, now: Moments) -> None:
    """One brow, thinner towards its outer end."""
    left, right = sorted((side * 0.02, side * 0.66))
    picture, x, y = canvas.window(left, right, -0.56, -0.02)
    along, height = _brow_place(look, side, x, now)
    s = np.clip(along, 0, 1)
    thickness = look.brow_thickness * (0.75 + 0.6 * s) * np.clip(1.15 - s**3, 0.25, 1)
    mask = cover((thickness / 2 - np.abs(y - height)) * canvas.unit)
    mask *= cover(along * canvas.unit * 0.45) * cover((1 - along) * canvas.unit * 0.45)
    blend(picture, 0.93 * mask, scaled(mixed(look.hair, (0.2, 0.12, 0.08), 0.45), 0.8))


def paint_brow_lines(canvas: FaceCanvas, look: Look, scene: Scene, now: Moments) -> None:
    """Creases of the forehead where the brows are raised, and between them where they are drawn together."""
    aside, below = 0.12 * now.yaw, 0.12 * now.pitch
    raised = np.clip(0.5 * (now.cue["brow_inner"] + now.cue["brow_outer"]) - 0.25, 0, 1)
    if raised.any():
        picture, x, y = canvas.window(-0.42, 0.42, -0.66, -0.42)
        climb = y - 0.12 * x**2 + 0.05 * raised - below
        lines = np.exp(-(((climb + 0.5) / 0.013) ** 2)) + np.exp(-(((climb + 0.57) / 0.013) ** 2))
        darken(picture, lines * (0.3 * raised * np.exp(-((x - aside) ** 4) / 0.02)))
    pinched = np.clip(now.cue["pinch"] - 0.2, 0, 1)
    if pinched.any():
        picture, x, y = canvas.window(-0.12, 0.12, -0.42, -0.06)
        distance = (np.abs(x - aside) - (0.045 + 0.045 * (y - below + 0.25))) / 0.012
        darken(picture, np.exp(-(distance**2)) * (0.32 * pinched * np.exp(-(((y - below + 0.24) / 0.075) ** 2))))


def paint_glasses(canvas: FaceCanvas, look: Look, scene: Scene, now: Moments) -> None:
    """Round glasses."""
    aside, below = 0.14 * now.yaw, 0.12 * now.pitch
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
