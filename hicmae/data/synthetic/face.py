"""Frames of a talking face: a head painted on its own canvas, moved over the backdrop, with a sensor's noise."""

from __future__ import annotations

import numpy as np

from hicmae.data.synthetic.canvas import FaceCanvas, Moments
from hicmae.data.synthetic.eyes import paint_brow, paint_brow_lines, paint_eye, paint_glasses
from hicmae.data.synthetic.head import Head, paint_head
from hicmae.data.synthetic.mouth import paint_mouth, paint_nose
from hicmae.data.synthetic.performance import Performance
from hicmae.data.synthetic.scene import HEAD_SCALE, Scene, paint_backdrop, tint
from hicmae.data.synthetic.speaker import Look
from hicmae.data.synthetic.warp import compose

_FRAMES_AT_ONCE = 24
"""Few enough for the arrays to stay in the processor's cache."""


def render_frames(look: Look, scene: Scene, performance: Performance, *, size: int) -> np.ndarray:
    """All frames of a clip: uint8 RGB (T, size, size, 3)."""
    backdrop = paint_backdrop(scene, look, size)
    tint(backdrop, scene)
    background = np.moveaxis(backdrop, 0, -1).astype(np.uint8)
    head = paint_head(look, scene, HEAD_SCALE * scene.zoom * size)
    still = _still_layer(head, scene)
    places = placements(scene, performance, size=size)
    matrices, boxes = _to_head(places, head), _reach(places, head, size)
    frames = np.empty((performance.frames, size, size, 3), np.uint8)
    for first in range(0, performance.frames, _FRAMES_AT_ONCE):
        part = slice(first, min(first + _FRAMES_AT_ONCE, performance.frames))
        layers = _moving_layers(head, still, look, scene, Moments.of(performance, part), part.stop - first)
        frames[part] = compose(layers, background, matrices[part], boxes[part])
    _add_noise(frames, scene)
    return frames


def placements(scene: Scene, performance: Performance, *, size: int) -> np.ndarray:
    """(T, 2, 3) float64: takes (x, y, 1) in face coordinates to column and row of the frame."""
    yaw, pitch, roll = performance.turn.T
    right, down, log_size = performance.shift.T
    unit = HEAD_SCALE * scene.zoom * size
    wide, high = unit * np.exp(log_size) * np.cos(yaw), unit * np.exp(log_size) * np.cos(pitch)
    column = scene.centre[0] * size + unit * right
    row = scene.centre[1] * size + unit * down
    # The head turns about the neck, one unit below the face's centre.
    column = column + unit * np.sin(roll)
    row = row + unit * (1 - np.cos(roll))
    return np.stack(
        [
            np.stack([wide * np.cos(roll), -high * np.sin(roll), column], axis=1),
            np.stack([wide * np.sin(roll), high * np.cos(roll), row], axis=1),
        ],
        axis=1,
    )


def _still_layer(head: Head, scene: Scene) -> np.ndarray:
    """The head without its moving parts: uint8 (rows, columns, 4), the last channel alpha."""
    colour = head.colour.copy()
    tint(colour, scene)
    layer = np.empty((*head.alpha.shape, 4), np.uint8)
    layer[..., :3] = np.moveaxis(colour, 0, -1)
    layer[..., 3] = np.round(255 * head.alpha)
    return layer


def _moving_layers(head: Head, still: np.ndarray, look: Look, scene: Scene, now: Moments, frames: int) -> np.ndarray:
    """Pictures of the head like ``still``: uint8 (frames, rows, columns, 4)."""
    canvas = FaceCanvas(head, frames)
    for side in (-1, 1):
        paint_eye(canvas, side, look, scene, now)
        paint_brow(canvas, side, look, scene, now)
    paint_brow_lines(canvas, look, scene, now)
    paint_mouth(canvas, look, scene, now)
    paint_nose(canvas, look, scene, now)
    if look.glasses:
        paint_glasses(canvas, look, scene, now)
    tint(canvas.picture, scene)
    layers = np.repeat(still[None], frames, axis=0)
    layers[:, canvas.rows, canvas.columns, :3] = np.moveaxis(canvas.picture, 0, -1)
    return layers


def _to_head(places: np.ndarray, head: Head) -> np.ndarray:
    """(T, 2, 3): from places in the frames to places in the head's picture, both counted from the edge in pixels."""
    turn = np.linalg.inv(places[:, :, :2])
    origin = -turn @ places[:, :, 2:] - np.array([[head.left], [head.top]])
    return np.concatenate([turn, origin], axis=2) * head.unit


def _reach(places: np.ndarray, head: Head, size: int) -> np.ndarray:
    """(T, 4) integers: left, top, right and bottom of the frames' pixels that the head can cover."""
    corners = places @ np.array([[head.left, head.right] * 2, [head.top] * 2 + [head.bottom] * 2, [1.0] * 4])
    low, high = np.floor(corners.min(axis=2)), np.ceil(corners.max(axis=2))
    return np.clip(np.concatenate([low, high], axis=1), 0, size).astype(np.int64)


def _add_noise(frames: np.ndarray, scene: Scene) -> None:
    """Sensor noise in place: pieces of one field of noise, cut elsewhere for every frame."""
    rng = np.random.default_rng(scene.texture_seed + 2)
    size = frames.shape[1]
    field = np.clip(rng.standard_normal((size + 64, size + 64, 1), dtype=np.float32) * scene.noise, -12, 12)
    # Pixels lie in 12..243, so adding modulo 256 never wraps and needs no wider type.
    grain = np.broadcast_to(np.round(field).astype(np.int8).view(np.uint8), (size + 64, size + 64, 3)).copy()
    for frame, (top, left) in zip(frames, rng.integers(0, 64, (len(frames), 2)), strict=True):
        frame += grain[top : top + size, left : left + size]
