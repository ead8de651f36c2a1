"""Nose and mouth, painted for all frames of a ``FaceCanvas`` at once."""

from __future__ import annotations

import numpy as np

from hicmae.data.synthetic.canvas import FaceCanvas, Moments
from hicmae.data.synthetic.paint import blend, cover, darken, mixed, scaled
from hicmae.data.synthetic.scene import Scene
from hicmae.data.synthetic.speaker import Look


def paint_nose(canvas: FaceCanvas, look: Look, scene: Scene, now: Moments) -> None:
    """Bridge and tip by light and shade, nostrils, and wrinkles where the upper lip is raised."""
    aside, below = 0.22 * now.yaw, 0.18 * now.pitch
    picture, x, y = canvas.window(-0.27, 0.27, -0.16, 0.47)
    sneer = np.clip(now.cue["sneer"], -0.5, 1.2)
    tip = below + look.nose_length - 0.035 * sneer
    width = look.nose_width * (1 + 0.16 * sneer)
    offset = x - aside * np.clip((y + 0.3) / 0.55, 0, 1)  # (T, h, w)
    mirrored = np.abs(offset)
    along = np.clip((y + 0.1) / (tip + 0.1), 0, 1)

    reach = 1 / (0.06 + 0.75 * width * along**2.1)
    slope = offset * (reach * -scene.lamp_side)
    body = np.exp(-(slope**2)) * ((y < tip + 0.1) * np.clip((y + 0.18) * 8, 0, 1))
    shade = (0.34 * scene.contrast) * body * np.clip(slope, 0, 1.2)
    underside = np.exp(-(((y - tip - 0.085 + 1.2 * mirrored**2) / 0.026) ** 2))
    shade += 0.3 * underside * np.clip((width * 1.15 - mirrored) * 16, 0, 1)
    wing = np.sqrt(((mirrored - width * 0.98) / 0.5) ** 2 + ((y - tip - 0.02) / 1.2) ** 2)
    shade += 0.36 * np.exp(-(((wing - 0.02) / 0.022) ** 2)) * (mirrored > width * 0.55)
    wrinkled = np.clip(sneer - 0.15, 0, 1)
    if wrinkled.any():
        climb = y - 0.5 * mirrored
        crease = np.exp(-(((climb - 0.02) / 0.014) ** 2)) + np.exp(-(((climb - 0.085) / 0.014) ** 2))
        shade += 0.3 * wrinkled * crease * np.exp(-(((mirrored - 0.07) / 0.045) ** 2))
    darken(picture, shade)

    shine_along = 0.10 * np.exp(-(((y - 0.05) / 0.16) ** 2)) + 0.28 * np.exp(-(((y - tip + 0.03) / 0.045) ** 2))
    shine = np.exp(-(((offset - 0.02 * scene.lamp_side) / 0.035) ** 2)) * shine_along
    blend(picture, shine, mixed(look.skin, (1, 1, 1), 0.75))
    hole = 1 - np.sqrt(((mirrored - width * 0.45) / 0.042) ** 2 + ((y - tip - 0.058) / 0.022) ** 2)
    blend(picture, 0.8 * cover(hole * (0.03 * canvas.unit)), scaled(look.skin, 0.28))


def paint_mouth(canvas: FaceCanvas, look: Look, scene: Scene, now: Moments) -> None:
    """Lips round a hollow with teeth and tongue; folds from the nose to the corners."""
    aside, below = 0.16 * now.yaw, 0.13 * now.pitch
    picture, x, y = canvas.window(-0.5, 0.5, 0.24, 0.98)
    unit, lip_thickness = canvas.unit, look.lip_thickness
    rounding = now.rounding * np.minimum(1, now.opening * 2 + 0.2)
    jaw = np.clip(now.cue["jaw"], 0, 1.2)
    smile = np.clip(now.cue["smile"], -1.3, 1.3)
    sneer = np.clip(now.cue["sneer"], -0.3, 1.3)
    raised = np.maximum(sneer, 0)
    height = np.clip(0.235 * now.opening + 0.13 * jaw * (0.4 + 0.6 * now.opening) + 0.02 * raised, 0.002, 0.31)
    stretch = 1 + 0.16 * now.cue["width"] + 0.15 * smile - 0.3 * np.clip(rounding, -0.4, 1) - 0.12 * jaw
    half = look.mouth_width * np.clip(stretch, 0.45, 1.5)

    # Curves along the mouth, (T, 1, w). Corners go up with a smile and the middle dips; the reverse for a frown.
    across = np.clip((x - aside) / half, -1.3, 1.3)
    outward = np.abs(across)
    profile = np.clip(1 - across**2, 0, 1)
    line = look.mouth_height + below - 0.125 * smile * (across**2 - 0.45) * (half / 0.27) - 0.02 * sneer
    inner_top = line - 0.28 * height * profile**0.7 - 0.03 * raised * profile
    inner_bottom = line + 0.72 * height * profile**0.6
    thin = np.clip(1 - 0.5 * now.cue["press"], 0.4, 1.2)
    bow = 1 + 0.25 * np.exp(-(((outward - 0.22) / 0.16) ** 2)) - 0.25 * np.exp(-((across / 0.12) ** 2))
    outer_top = inner_top - lip_thickness * thin * bow * profile**0.75
    outer_bottom = inner_bottom + lip_thickness * 1.3 * thin * profile**0.75
    within = cover((half * 1.02 - np.abs(x - aside)) * unit)

    fold_strength = np.clip(0.12 + 0.3 * np.maximum(smile, 0) + 0.4 * raised, 0, 0.5)
    fold_x = 0.18 + 0.55 * np.clip(y - below - 0.34, 0, 0.4) + 0.06 * smile
    fold_ends = np.clip((y - 0.3) * 9, 0, 1) * np.clip((0.68 - y) * 7, 0, 1)
    shade = np.exp(-(((np.abs(x - aside) - fold_x) / 0.02) ** 2)) * (fold_strength * fold_ends)
    below_lip = np.exp(-(((y - outer_bottom - 0.05) / 0.03) ** 2))
    darken(picture, shade + below_lip * (0.2 * np.clip(1 - outward * 1.3, 0, 1)))

    lips = cover((y - outer_top) * unit) * cover((outer_bottom - y) * unit) * within
    glow = 0.85 + np.clip((y - inner_bottom) / (1.3 * lip_thickness), 0, 0.6) * (0.35 - 0.21 * outward)
    glow *= 1 - 0.12 * np.clip((inner_top - y) / lip_thickness, 0, 1)
    glow *= 255 * (1 + 0.1 * scene.contrast * scene.lamp_side * across)
    blend(picture, lips, [channel * glow for channel in look.lip])
    hollow = cover((y - inner_top) * unit) * cover((inner_bottom - y) * unit) * within
    hollow *= np.clip(height * unit, 0.35, 1)
    blend(picture, hollow, (0.17, 0.04, 0.05))
    tongue = np.clip((y - inner_bottom + 0.42 * height + 0.05 * across**2) * (unit * 0.5), 0, 1)
    blend(picture, hollow * tongue * (0.85 * (height > 0.07)), (0.62, 0.24, 0.25))
    bite = 0.02 * raised
    teeth_height = np.minimum(0.052 + 0.02 * np.maximum(smile, 0) + 1.5 * bite, 0.42 * height + bite)
    bright = np.clip((0.88 - outward) * 8, 0, 1) * np.clip((height - 0.02) * 40, 0, 1)
    blend(picture, hollow * cover((inner_top + teeth_height - y) * unit) * bright, (0.93, 0.91, 0.86))
    darken(picture, np.exp(-(((y - line) / 0.022) ** 2)) * (0.4 * np.exp(-(((outward - 1.0) / 0.07) ** 2))))
